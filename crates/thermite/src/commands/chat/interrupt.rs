//! Ctrl-C: stops an answer, and the program only where there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

use crate::error::Error;

const IDLE: u8 = 0;
const ANSWERING: u8 = 1;
const ASKED: u8 = 2;

/// How a shell reports a program that ended by Ctrl-C.
const INTERRUPTED: i32 = 130;

/// Whether an answer is being written, and whether the user wants it to stop.
#[derive(Debug, Clone, Default)]
pub(super) struct Interrupt {
    state: Arc<AtomicU8>,
}

impl Interrupt {
    /// Takes Ctrl-C over.
    pub(super) fn install() -> Result<Self, Error> {
        let interrupt = Self::default();
        let on_signal = interrupt.clone();
        ctrlc::set_handler(move || {
            if !on_signal.ask() {
                std::process::exit(INTERRUPTED);
            }
        })?;
        Ok(interrupt)
    }

    /// An answer begins.
    pub(super) fn arm(&self) {
        self.state.store(ANSWERING, SeqCst);
    }

    /// The answer is over.
    pub(super) fn disarm(&self) {
        self.state.store(IDLE, SeqCst);
    }

    /// Whether the answer is to stop.
    pub(super) fn asked(&self) -> bool {
        self.state.load(SeqCst) == ASKED
    }

    /// Asks the answer to stop; false if there is none, or if it was asked before and has not listened.
    fn ask(&self) -> bool {
        self.state.compare_exchange(ANSWERING, ASKED, SeqCst, SeqCst).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_stops_an_answer_and_the_second_the_program() {
        let interrupt = Interrupt::default();
        assert!(!interrupt.ask() && !interrupt.asked());
        interrupt.arm();
        assert!(!interrupt.asked());
        assert!(interrupt.ask() && interrupt.asked());
        assert!(!interrupt.ask());
        interrupt.disarm();
        assert!(!interrupt.asked() && !interrupt.ask());
        interrupt.arm();
        assert!(!interrupt.asked());
    }
}
