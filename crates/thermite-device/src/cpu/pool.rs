//! Threads for kernels: they spin briefly between kernels, so that a decode step pays no system call, and sleep
//! when nothing comes.
//!
//! A job is opened, joined by whoever is awake, and closed by its owner when no tasks are left; a sleeping worker
//! that comes too late finds it closed and is never waited for. There is no lock.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};

/// How often a worker looks for a job before it sleeps: some 100 microseconds.
const SPINS: u32 = 20_000;

/// So many of them, a microsecond or two, between offers of the core to other threads. Where there are none this costs
/// little; where there are (those of a server, or another pool's) they need not wait for a thread that only waits itself.
const PATIENCE: u32 = 256;

/// Bits of [`Shared::state`]: the job's number, whether it can be joined, and how many workers are in it.
const OPEN: u64 = 1 << 31;
const ACTIVE: u64 = OPEN - 1;
const EPOCH: u64 = 1 << 32;

type Job = *const (dyn Fn(usize) + Sync);

struct Shared {
    state: AtomicU64,
    job: UnsafeCell<Option<Job>>,
    tasks: AtomicUsize,
    next: AtomicUsize,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written only by the owner while the job is closed and no worker is active, and read only by
// workers that have joined an open job; `state` orders the two.
unsafe impl Sync for Shared {}
// SAFETY: the job pointer is only followed while `Pool::run`, which holds the closure, waits.
unsafe impl Send for Shared {}

struct Worker {
    asleep: Arc<AtomicBool>,
    thread: Thread,
    handle: Option<JoinHandle<()>>,
}

/// A pool of threads, the caller's among them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    busy: AtomicBool,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads)", self.threads())
    }
}

impl Pool {
    /// A pool of `threads`, of which the caller of [`Pool::run`] is one.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            tasks: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut pool = Self { shared, workers: Vec::new(), busy: AtomicBool::new(false) };
        for i in 1..threads.max(1) {
            let asleep = Arc::new(AtomicBool::new(false));
            let (shared, flag) = (Arc::clone(&pool.shared), Arc::clone(&asleep));
            let handle =
                thread::Builder::new().name(format!("thermite-{i}")).spawn(move || work(&shared, &flag))?;
            pool.workers.push(Worker { asleep, thread: handle.thread().clone(), handle: Some(handle) });
        }
        Ok(pool)
    }

    /// Threads, the caller's included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task(0)` to `task(tasks - 1)`, each once, on all threads. A job inside a job, or a second caller at
    /// the same time, runs on its own thread alone. A panic in a task comes out here.
    pub fn run(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        if tasks <= 1 || self.workers.is_empty() || self.busy.swap(true, Ordering::Acquire) {
            return (0..tasks).for_each(task);
        }
        let job: &(dyn Fn(usize) + Sync) = &task;
        let shared = &*self.shared;
        // SAFETY: the last job is closed and left, so nobody reads `job`; the pointer's lifetime is erased, and
        // `task` outlives every use because this function waits for all who joined.
        unsafe {
            *shared.job.get() = Some(std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(job));
        }
        shared.tasks.store(tasks, Ordering::Relaxed);
        shared.next.store(0, Ordering::Relaxed);
        let epoch = (shared.state.load(Ordering::Relaxed) / EPOCH).wrapping_add(1) % EPOCH;
        shared.state.store((epoch * EPOCH) | OPEN, Ordering::SeqCst);
        // no more than there is work for
        for worker in self.workers.iter().take(tasks - 1) {
            if worker.asleep.load(Ordering::SeqCst) {
                worker.thread.unpark();
            }
        }
        let mine = catch_unwind(AssertUnwindSafe(|| shared.take_tasks(job)));
        shared.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while shared.state.load(Ordering::Acquire) & ACTIVE != 0 {
            spin(&mut spins);
        }
        let theirs = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.busy.store(false, Ordering::Release);
        if let Some(panic) = mine.err().or(theirs) {
            resume_unwind(panic);
        }
    }

    /// Runs `task` over `0..len` in one contiguous range a thread, ranges being multiples of `grain` long.
    pub fn run_ranges(&self, len: usize, grain: usize, task: impl Fn(Range<usize>) + Sync) {
        let grains = len.div_ceil(grain.max(1));
        let parts = grains.min(self.threads()).max(1);
        let bound = |part: usize| (grains * part / parts * grain).min(len);
        self.run(parts, |part| task(bound(part)..bound(part + 1)));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in &mut self.workers {
            worker.thread.unpark();
            if let Some(handle) = worker.handle.take() {
                // a worker's panic has been reported by `run`
                let _ = handle.join();
            }
        }
    }
}

impl Shared {
    fn take_tasks(&self, job: &(dyn Fn(usize) + Sync)) {
        let tasks = self.tasks.load(Ordering::Relaxed);
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            job(task);
        }
    }

    /// Joins the open job if it is not number `last`; gives its number.
    fn join(&self, last: u64) -> Option<u64> {
        let state = self.state.load(Ordering::Acquire);
        if state & OPEN == 0 || state / EPOCH == last {
            return None;
        }
        let joined = self.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed);
        joined.ok().map(|_| state / EPOCH)
    }
}

/// Waits a moment, the one number `spins`.
fn spin(spins: &mut u32) {
    *spins = spins.wrapping_add(1);
    if spins.is_multiple_of(PATIENCE) {
        thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

/// A worker's life.
fn work(shared: &Shared, asleep: &AtomicBool) {
    let (mut last, mut spins) = (0, 0);
    while !shared.stop.load(Ordering::Relaxed) {
        if let Some(epoch) = shared.join(last) {
            // SAFETY: an open job that has been joined is complete, and its owner waits for this worker.
            let job = unsafe { (*shared.job.get()).map(|job| &*job) };
            if let Some(job) = job {
                let done = catch_unwind(AssertUnwindSafe(|| shared.take_tasks(job)));
                if let Err(panic) = done {
                    *shared.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
                }
            }
            shared.state.fetch_sub(1, Ordering::AcqRel);
            (last, spins) = (epoch, 0);
        } else if spins < SPINS {
            spin(&mut spins);
        } else {
            asleep.store(true, Ordering::SeqCst);
            let state = shared.state.load(Ordering::SeqCst);
            let nothing = state & OPEN == 0 || state / EPOCH == last;
            if nothing && !shared.stop.load(Ordering::SeqCst) {
                thread::park();
            }
            asleep.store(false, Ordering::SeqCst);
            spins = 0;
        }
    }
}

/// A slice of which several tasks write disjoint parts at once.
pub(crate) struct Parts<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: the parts handed out are disjoint by the contract of `get`.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// # Safety
    /// No two parts that are alive at the same time overlap.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn get(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part {range:?} of {}", self.len);
        // SAFETY: in bounds by the assertion, disjoint by contract.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            for tasks in [0, 1, 2, 7, 1000] {
                for _ in 0..50 {
                    let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                    pool.run(tasks, |i| {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
                }
            }
        }
    }

    #[test]
    fn a_job_inside_a_job_runs() {
        let pool = Pool::new(3).unwrap();
        let count = AtomicUsize::new(0);
        pool.run(4, |_| {
            pool.run(5, |_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(count.into_inner(), 20);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2).unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(64, |i| assert!(i != 40, "forty"));
        }));
        assert!(result.is_err());
        let count = AtomicUsize::new(0);
        pool.run(64, |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 64);
    }

    #[test]
    fn sleepers_wake() {
        let pool = Pool::new(2).unwrap();
        for _ in 0..5 {
            thread::sleep(std::time::Duration::from_millis(20));
            let seen = Mutex::new(std::collections::HashSet::new());
            pool.run(200, |_| {
                thread::sleep(std::time::Duration::from_micros(100));
                seen.lock().unwrap().insert(thread::current().id());
            });
            assert_eq!(seen.into_inner().unwrap().len(), 2);
        }
    }

    #[test]
    fn ranges_cover() {
        let pool = Pool::new(3).unwrap();
        for (len, grain) in [(0, 8), (1, 8), (7, 8), (64, 16), (100, 16), (5, 1)] {
            let mut marks = vec![0u8; len];
            let parts = Parts::new(&mut marks);
            pool.run_ranges(len, grain, |range| {
                assert!(range.is_empty() || range.start % grain == 0);
                // SAFETY: the ranges are disjoint.
                unsafe { parts.get(range) }.iter_mut().for_each(|m| *m += 1);
            });
            assert!(marks.iter().all(|&m| m == 1), "{len} by {grain}");
        }
    }
}
