//! Tokens that a device chooses on its own, read some steps behind.

use std::collections::VecDeque;

use thermite_device::{Device, Draw};
use thermite_model::{DecodingRow, KvCache, Model, Stepper};

use crate::Result;

/// Steps that are queued at a time.
const STEPS: usize = 8;
/// How many such runs are queued before the first of them is read.
const RUNS: usize = 2;

/// One sequence that the device goes on with by itself.
pub(crate) struct Lookahead<D: Device> {
    stepper: Stepper<D>,
    ready: VecDeque<u32>,
    /// Marks behind runs that are not read yet, with their steps.
    queued: VecDeque<(D::Mark, usize)>,
}

impl<D: Device> Lookahead<D> {
    /// Goes on from `row`, whose token was just chosen: with tokens that are drawn by that seed, or the likeliest.
    pub(crate) fn new(
        model: &Model<D>,
        cache: &KvCache<D>,
        row: DecodingRow<'_>,
        drawing: Option<(Draw, u64)>,
    ) -> Result<Self> {
        let mut stepper = match drawing {
            None => Stepper::new(model, 1)?,
            Some((draw, seed)) => Stepper::drawing(model, draw, &[seed])?,
        };
        stepper.start(model, &[row], cache)?;
        Ok(Self { stepper, ready: VecDeque::new(), queued: VecDeque::new() })
    }

    /// The next token; none where there is no room for one.
    pub(crate) fn next(&mut self, model: &mut Model<D>, cache: &mut KvCache<D>) -> Result<Option<u32>> {
        if let Some(token) = self.ready.pop_front() {
            return Ok(Some(token));
        }
        while self.queued.len() < RUNS && self.stepper.room() > 0 {
            let steps = STEPS.min(self.stepper.room());
            self.queued.push_back((self.stepper.run(model, cache, steps)?, steps));
        }
        let Some((mark, steps)) = self.queued.pop_front() else { return Ok(None) };
        let since = self.queued.iter().map(|(_, steps)| steps).sum();
        let mut tokens = [0; STEPS];
        let tokens = &mut tokens[..steps];
        self.stepper.read(model, &mark, 0, since, tokens)?;
        self.ready.extend(tokens.iter().map(|&token| token as u32));
        Ok(self.ready.pop_front())
    }
}
