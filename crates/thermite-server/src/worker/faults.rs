//! What has gone wrong on a model's thread, for `/health`.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The last step failed, with the requests in it.
    Step(String),
    /// The thread panicked: the model is gone.
    Panic(String),
}

/// The last thing that went wrong, as long as it lasts.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Option<Fault>>);

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Option<Fault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault that lasts.
    pub(crate) fn current(&self) -> Option<Fault> {
        self.lock().clone()
    }

    /// Takes note of one.
    pub(super) fn set(&self, fault: Fault) {
        *self.lock() = Some(fault);
    }

    /// A step went well.
    pub(super) fn clear(&self) {
        let mut fault = self.lock();
        if fault.is_some() {
            *fault = None;
        }
    }
}
