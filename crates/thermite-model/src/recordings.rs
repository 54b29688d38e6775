//! Steps that were recorded on the device, by what their launches depend on.

use std::collections::HashMap;
use std::hash::Hash;

use thermite_device::Device;

use crate::{Error, Result};

/// Recordings at most; with more, all are forgotten: somebody runs steps of ever new forms.
const MOST: usize = 64;
/// Times that a form is run as it is before it is recorded: the first makes everything ready.
const RUNS_BEFORE: usize = 2;

/// What is known of one form.
#[derive(Debug)]
enum Known<R> {
    /// How often it ran.
    Runs(usize),
    Recorded(R),
    /// It allocates or reads as it runs.
    Unrecordable,
}

/// Steps by their form `K`.
#[derive(Debug)]
pub(crate) struct Recordings<K, R> {
    known: HashMap<K, Known<R>>,
}

impl<K, R> Default for Recordings<K, R> {
    fn default() -> Self {
        Self { known: HashMap::new() }
    }
}

impl<K: Hash + Eq + Copy, R> Recordings<K, R> {
    /// Runs `work`, or what was recorded of it under the same `form`.
    pub(crate) fn run<D: Device<Recording = R>>(
        &mut self,
        device: &D,
        form: K,
        mut work: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        if !device.records() {
            return work();
        }
        if self.known.len() >= MOST && !self.known.contains_key(&form) {
            self.known.clear();
        }
        let known = self.known.entry(form).or_insert(Known::Runs(0));
        match known {
            Known::Recorded(recording) => return Ok(device.replay(recording)?),
            Known::Unrecordable => return work(),
            Known::Runs(runs) if *runs < RUNS_BEFORE => {
                *runs += 1;
                return work();
            }
            Known::Runs(_) => {}
        }
        // whatever fails is run again as it is, and fails there in its own words
        let mut recorded = || {
            work().map_err(|e| match e {
                Error::Device(error) => error,
                other => thermite_device::Error::shape("record", "the step", other, "one that runs"),
            })
        };
        match device.record(&mut recorded) {
            Ok(Some(recording)) => {
                device.replay(&recording)?;
                *known = Known::Recorded(recording);
                Ok(())
            }
            Ok(None) | Err(_) => {
                *known = Known::Unrecordable;
                work()
            }
        }
    }
}
