//! Keeps the device's memory wired.
//!
//! The system may take the pages of idle GPU memory back, and the next token then waits until all weights are wired again.
//! A residency set (macOS 15) holds every buffer. It is requested when work begins and again every half second while the
//! last work is recent; after three idle minutes the memory is the system's to take.

#![allow(unsafe_code, reason = "residency sets are not marked as Send")]

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_metal::{MTLBuffer, MTLCommandQueue, MTLDevice, MTLResidencySet, MTLResidencySetDescriptor};

use crate::{Error, Result};

/// Between requests, while work is recent.
const EVERY: Duration = Duration::from_millis(500);
/// How long idle memory is kept.
const KEPT: Duration = Duration::from_secs(180);

/// A residency set and the thread that keeps it.
pub(super) struct Residency {
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    set: Retained<ProtocolObject<dyn MTLResidencySet>>,
    /// Buffers were added or removed since the last commit.
    dirty: bool,
    /// The set is requested, and the keeper asks again.
    kept: bool,
    last_use: Instant,
    stop: bool,
}

// SAFETY: a residency set is bound to no thread, and this one is used under the lock of its state alone.
unsafe impl Send for State {}

impl Residency {
    /// A set for the memory of `device`; none where the system has no residency sets (before macOS 15).
    pub(super) fn open(device: &ProtocolObject<dyn MTLDevice>) -> Result<Option<Arc<Self>>> {
        if !objc2::available!(macos = 15.0) {
            return Ok(None);
        }
        let unavailable =
            |reason: String| Error::Unavailable { device: "metal: residency set".to_owned(), reason };
        let descriptor = MTLResidencySetDescriptor::new();
        let set = device.newResidencySetWithDescriptor_error(&descriptor);
        let set = set.map_err(|e| unavailable(e.localizedDescription().to_string()))?;
        let state = State { set, dirty: false, kept: false, last_use: Instant::now(), stop: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let keeper = thread::Builder::new().name("metal-residency".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.keep()
        });
        let keeper = Some(keeper.map_err(|e| unavailable(format!("no thread: {e}")))?);
        Ok(Some(Arc::new(Self { shared, keeper })))
    }

    /// Work on `queue` finds the set's memory resident.
    pub(super) fn attach(&self, queue: &ProtocolObject<dyn MTLCommandQueue>) {
        queue.addResidencySet(&self.shared.lock().set);
    }

    /// `buffer` belongs to the set from the next work on.
    pub(super) fn add(&self, buffer: &ProtocolObject<dyn MTLBuffer>) {
        let mut state = self.shared.lock();
        state.set.addAllocation(ProtocolObject::from_ref(buffer));
        state.dirty = true;
    }

    /// `buffer` no longer belongs to the set; its memory goes once the keeper or the next work commits that.
    pub(super) fn remove(&self, buffer: &ProtocolObject<dyn MTLBuffer>) {
        let mut state = self.shared.lock();
        state.set.removeAllocation(ProtocolObject::from_ref(buffer));
        state.dirty = true;
        if !state.kept {
            state.commit(); // the keeper sleeps
        }
    }

    /// Lets go at once of what was removed.
    pub(super) fn settle(&self) {
        self.shared.lock().commit();
    }

    /// Work begins.
    pub(super) fn touch(&self) {
        let mut state = self.shared.lock();
        state.last_use = Instant::now();
        state.commit();
        if !state.kept {
            state.kept = true;
            state.set.requestResidency();
            self.shared.changed.notify_all();
        }
    }
}

impl Drop for Residency {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        if let Some(keeper) = self.keeper.take() {
            // it holds no lock that this thread has, and cannot panic
            let _ = keeper.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keeper's life.
    fn keep(&self) {
        let mut state = self.lock();
        while !state.stop {
            if state.kept {
                autoreleasepool(|_| state.keep());
                let waited = self.changed.wait_timeout(state, EVERY);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl State {
    fn commit(&mut self) {
        if std::mem::take(&mut self.dirty) {
            self.set.commit();
        }
    }

    /// Asks again, or lets go.
    fn keep(&mut self) {
        self.commit();
        self.kept = self.last_use.elapsed() < KEPT;
        if self.kept {
            self.set.requestResidency();
        } else {
            self.set.endResidency();
        }
    }
}
