//! Panics of other crates, turned into values without a word on standard error.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`; `None` if it panicked, which nobody then hears of. Panics of other threads are reported as ever.
pub(crate) fn catch_quietly<T>(f: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let report = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                report(panic);
            }
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(f)).ok();
    QUIET.set(false);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_none_and_the_next_one_is_heard_again() {
        assert_eq!(catch_quietly(|| 3), Some(3));
        assert_eq!(catch_quietly(|| -> i32 { panic!("unheard") }), None);
        assert!(!QUIET.get());
    }
}
