//! Which rows a step runs.

use thermite_device::Device;

use super::Scheduler;
use super::task::Task;
use crate::engine::BLOCK_SIZE;

/// Rows of one request in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// Its index among those that run.
    pub(super) task: usize,
    pub(super) rows: usize,
}

impl<D: Device> Scheduler<D> {
    /// Shares the rows of a step out, and sees to it that each has its block.
    pub(super) fn plan(&mut self) -> Vec<Share> {
        self.make_room();
        let left: Vec<usize> = self.running.iter().map(Task::rows_left).collect();
        share(&left, self.engine.model.options().max_rows)
    }

    /// A block for the next token of every request; where there is none, the one admitted last waits again, ahead of
    /// all others.
    fn make_room(&mut self) {
        let mut i = 0;
        while i < self.running.len() {
            let sequence = &mut self.running[i].sequence;
            let grown = self.engine.pool.grow(&mut sequence.blocks, sequence.tokens.len());
            if grown.is_ok() {
                i += 1;
            } else if let Some(mut last) = self.running.pop() {
                self.engine.pool.shrink(&mut last.sequence.blocks, 0);
                last.restart();
                self.waiting.push_front(last);
                self.status.preemptions += 1;
            }
        }
    }
}

/// One row for each request that has one left; what remains of `budget` goes to those that have more, in equal parts.
/// Nobody waits for a long prompt: neither who decodes, nor who came later with a short one.
fn share(left: &[usize], budget: usize) -> Vec<Share> {
    let mut rows = vec![0; left.len()];
    let mut budget = budget;
    for (rows, _) in rows.iter_mut().zip(left).filter(|(_, left)| **left == 1) {
        *rows = budget.min(1);
        budget -= *rows;
    }
    loop {
        let hungry: Vec<usize> = (0..left.len()).filter(|&i| rows[i] < left[i]).collect();
        if hungry.is_empty() || budget == 0 {
            break;
        }
        // whole blocks, so that a share is worth its launch
        let part = (budget / hungry.len()).max(BLOCK_SIZE);
        for i in hungry {
            let more = part.min(left[i] - rows[i]).min(budget);
            rows[i] += more;
            budget -= more;
        }
    }
    let shares = rows.into_iter().enumerate().map(|(task, rows)| Share { task, rows });
    shares.filter(|share| share.rows > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_short_prompt_does_not_wait_for_a_long_one() {
        let rows = |left: &[usize], budget| share(left, budget).iter().map(|s| s.rows).collect::<Vec<_>>();
        assert_eq!(rows(&[1, 4000, 20, 1], 512), [1, 490, 20, 1]);
        assert_eq!(rows(&[300, 300, 300], 64), [22, 21, 21]);
    }

    proptest! {
        #[test]
        fn the_budget_is_used_up(
            left in proptest::collection::vec(0usize..700, 0..20),
            budget in 1usize..600,
        ) {
            let shares = share(&left, budget);
            let used: usize = shares.iter().map(|s| s.rows).sum();
            prop_assert_eq!(used, budget.min(left.iter().sum()));
            prop_assert!(shares.iter().all(|s| s.rows > 0 && s.rows <= left[s.task]));
            let decoding = left.iter().filter(|&&l| l == 1).count();
            prop_assert!(shares.iter().filter(|s| left[s.task] == 1).count() >= decoding.min(budget));
        }
    }
}
