//! Which blocks of the KV cache belong to whom.

use crate::{Error, Result};

/// The free blocks of a cache.
#[derive(Debug)]
pub struct BlockPool {
    free: Vec<i32>,
    total: usize,
    block_size: usize,
}

impl BlockPool {
    /// A pool of `total` free blocks of `block_size` tokens.
    #[must_use]
    pub fn new(total: usize, block_size: usize) -> Self {
        Self { free: (0..total as i32).rev().collect(), total, block_size }
    }

    /// Tokens a block.
    #[must_use]
    pub const fn block_size(&self) -> usize {
        self.block_size
    }

    /// Blocks that nobody has.
    #[must_use]
    pub const fn free(&self) -> usize {
        self.free.len()
    }

    /// Makes `table` long enough for `tokens` tokens.
    ///
    /// # Errors
    /// If there are not enough free blocks; `table` is then as it was.
    pub fn grow(&mut self, table: &mut Vec<i32>, tokens: usize) -> Result<()> {
        let need = tokens.div_ceil(self.block_size).saturating_sub(table.len());
        if need > self.free.len() {
            return Err(Error::CacheFull {
                need,
                free: self.free.len(),
                total: self.total,
                block_size: self.block_size,
            });
        }
        table.extend(self.free.drain(self.free.len() - need..).rev());
        Ok(())
    }

    /// Takes back what `table` has beyond `tokens` tokens.
    pub fn shrink(&mut self, table: &mut Vec<i32>, tokens: usize) {
        let keep = tokens.div_ceil(self.block_size).min(table.len());
        self.free.extend(table.drain(keep..).rev());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_pool_says_so() {
        let mut pool = BlockPool::new(2, 16);
        let mut table = Vec::new();
        pool.grow(&mut table, 17).unwrap();
        let error = pool.grow(&mut table, 33).unwrap_err().to_string();
        assert!(error.contains("1 blocks of 16 tokens are needed, 0 of 2"), "{error}");
        assert_eq!(table.len(), 2);
    }

    proptest! {
        #[test]
        fn no_block_has_two_owners(sizes in proptest::collection::vec((0usize..4, 0usize..200), 1..60)) {
            let mut pool = BlockPool::new(30, 16);
            let mut tables: [Vec<i32>; 4] = Default::default();
            for (who, tokens) in sizes {
                let table = &mut tables[who];
                if tokens.div_ceil(16) < table.len() {
                    pool.shrink(table, tokens);
                } else if pool.grow(table, tokens).is_ok() {
                    prop_assert_eq!(table.len(), tokens.div_ceil(16));
                }
                let mut all: Vec<i32> = tables.iter().flatten().copied().chain(pool.free.iter().copied()).collect();
                all.sort_unstable();
                prop_assert_eq!(all, (0..30).collect::<Vec<_>>());
            }
        }
    }
}
