//! Which blocks of the KV cache belong to whom, and what those hold that nobody has.
//!
//! A full block whose tokens are known is found again by what it holds: its own tokens, and the block before it. So
//! sequences that begin alike share their first blocks (Kwon et al., arXiv:2309.06180), and what a sequence leaves
//! behind serves the next one until its memory is needed.

use std::collections::{BTreeMap, HashMap};

use crate::{Error, Result};

/// What a full block holds: its tokens, after those of the content before it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Content {
    /// The number of the content before it; 0 at the beginning of a sequence.
    parent: u64,
    tokens: Box<[u32]>,
}

/// A content that is in the cache.
#[derive(Debug, Clone, Copy)]
struct Known {
    block: i32,
    /// Its number, never used again.
    number: u64,
}

/// A block of the cache.
#[derive(Debug, Clone, Default)]
struct Block {
    /// Tables that it is in.
    owners: u32,
    /// Under which content it is known.
    content: Option<Content>,
    /// When it was last let go.
    idle_since: u64,
}

/// The blocks of one sequence, from its beginning.
#[derive(Debug, Default)]
pub struct BlockTable {
    blocks: Vec<i32>,
    /// Numbers of the contents of the first blocks, as far as the pool was told.
    contents: Vec<u64>,
}

impl BlockTable {
    /// The blocks.
    #[must_use]
    pub fn blocks(&self) -> &[i32] {
        &self.blocks
    }
}

/// The blocks of a cache.
#[derive(Debug)]
pub struct BlockPool {
    block_size: usize,
    blocks: Vec<Block>,
    /// Blocks that hold nothing worth keeping.
    free: Vec<i32>,
    known: HashMap<Content, Known>,
    /// Known blocks in no table, by when they were let go.
    idle: BTreeMap<u64, i32>,
    clock: u64,
}

impl BlockPool {
    /// A pool of `total` free blocks of `block_size` tokens.
    #[must_use]
    pub fn new(total: usize, block_size: usize) -> Self {
        Self {
            block_size,
            blocks: vec![Block::default(); total],
            free: (0..total as i32).rev().collect(),
            known: HashMap::new(),
            idle: BTreeMap::new(),
            clock: 0,
        }
    }

    /// Tokens a block.
    #[must_use]
    pub const fn block_size(&self) -> usize {
        self.block_size
    }

    /// Blocks in all.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks in no table: those that hold nothing, and those that are kept for what they hold.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Makes `table` long enough for `tokens` tokens. What is kept and was not used for the longest goes first.
    ///
    /// # Errors
    /// If there are not enough free blocks; `table` is then as it was.
    pub fn grow(&mut self, table: &mut BlockTable, tokens: usize) -> Result<()> {
        let need = tokens.div_ceil(self.block_size).saturating_sub(table.blocks.len());
        let free = self.free();
        if need > free {
            return Err(Error::CacheFull { need, free, total: self.total(), block_size: self.block_size });
        }
        for _ in 0..need {
            let block = self.free.pop().or_else(|| self.evict());
            table.blocks.extend(block.inspect(|&block| self.blocks[block as usize].owners = 1));
        }
        Ok(())
    }

    /// Forgets the content that was not used for the longest.
    fn evict(&mut self) -> Option<i32> {
        let (_, block) = self.idle.pop_first()?;
        self.forget(block);
        Some(block)
    }

    fn forget(&mut self, block: i32) {
        if let Some(content) = self.blocks[block as usize].content.take() {
            self.known.remove(&content);
        }
    }

    /// Takes back what `table` has beyond `tokens` tokens. Gives how many of them are still in the cache: a block that
    /// others read too is not left to be written on, so it goes if `tokens` ends within it.
    pub fn shrink(&mut self, table: &mut BlockTable, tokens: usize) -> usize {
        let full = tokens / self.block_size;
        let mut keep = tokens.div_ceil(self.block_size).min(table.blocks.len());
        let mut cached = tokens;
        if let Some(&partial) = table.blocks.get(full).filter(|_| full < keep) {
            if self.blocks[partial as usize].owners > 1 {
                (keep, cached) = (full, full * self.block_size);
            } else {
                self.forget(partial);
            }
        }
        // the end first: the beginnings of sequences are the last to be forgotten
        for block in table.blocks.drain(keep..).rev() {
            let state = &mut self.blocks[block as usize];
            state.owners -= 1;
            if state.owners > 0 {
                continue;
            }
            if state.content.is_some() {
                self.clock += 1;
                state.idle_since = self.clock;
                self.idle.insert(self.clock, block);
            } else {
                self.free.push(block);
            }
        }
        table.contents.truncate(full);
        cached
    }

    /// Remembers what the full blocks of `table` hold, `tokens` being the sequence as far as it is in the cache.
    pub fn remember(&mut self, table: &mut BlockTable, tokens: &[u32]) {
        let full = tokens.chunks_exact(self.block_size).zip(&table.blocks).skip(table.contents.len());
        for (tokens, &block) in full {
            let parent = table.contents.last().copied().unwrap_or(0);
            let content = Content { parent, tokens: tokens.into() };
            let known = self.known.get(&content).copied().unwrap_or_else(|| {
                self.clock += 1;
                let known = Known { block, number: self.clock };
                self.known.insert(content.clone(), known);
                self.blocks[block as usize].content = Some(content);
                known
            });
            table.contents.push(known.number);
        }
    }

    /// The blocks that already hold the beginning of `tokens`, all but its last token at most: that one is run for its
    /// logits.
    pub fn reuse(&mut self, tokens: &[u32]) -> BlockTable {
        let mut table = BlockTable::default();
        let most = tokens.len().saturating_sub(1);
        for tokens in tokens[..most].chunks_exact(self.block_size) {
            let parent = table.contents.last().copied().unwrap_or(0);
            let Some(&Known { block, number }) = self.known.get(&Content { parent, tokens: tokens.into() })
            else {
                break;
            };
            let state = &mut self.blocks[block as usize];
            if state.owners == 0 {
                self.idle.remove(&state.idle_since);
            }
            state.owners += 1;
            table.blocks.push(block);
            table.contents.push(number);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_pool_says_so() {
        let mut pool = BlockPool::new(2, 16);
        let mut table = BlockTable::default();
        pool.grow(&mut table, 17).unwrap();
        let error = pool.grow(&mut table, 33).unwrap_err().to_string();
        assert!(error.contains("1 blocks of 16 tokens are needed, 0 of 2"), "{error}");
        assert_eq!(table.blocks().len(), 2);
    }

    #[test]
    fn the_beginning_outlives_the_end() {
        let mut pool = BlockPool::new(3, 4);
        let tokens: Vec<u32> = (0..12).collect();
        let mut table = BlockTable::default();
        pool.grow(&mut table, 12).unwrap();
        pool.remember(&mut table, &tokens);
        pool.shrink(&mut table, 0);
        assert_eq!(pool.free(), 3);

        let mut other = BlockTable::default();
        pool.grow(&mut other, 4).unwrap();
        assert_eq!(pool.reuse(&tokens).blocks().len(), 2);
    }

    /// What may happen to one of a few sequences.
    #[derive(Debug, Clone)]
    enum Act {
        /// It begins anew, over what is known of its tokens.
        Begin(Vec<u32>),
        /// It is run on with tokens.
        Extend(Vec<u32>),
        /// It is cut to a part of its length.
        Cut(f64),
    }

    fn acts() -> impl Strategy<Value = Vec<(usize, Act)>> {
        // of two tokens, so that sequences begin alike
        let tokens = || proptest::collection::vec(0u32..2, 0..40);
        let act = prop_oneof![
            tokens().prop_map(Act::Begin),
            tokens().prop_map(Act::Extend),
            (0.0..=1.0).prop_map(Act::Cut),
        ];
        proptest::collection::vec((0usize..4, act), 1..80)
    }

    /// A sequence and its blocks.
    #[derive(Debug, Default)]
    struct Sequence {
        tokens: Vec<u32>,
        table: BlockTable,
    }

    /// A cache whose blocks hold tokens, as a model would write them.
    struct Cache {
        pool: BlockPool,
        /// Of each block, what was written in each place: the sequence up to there.
        written: Vec<Vec<Vec<u32>>>,
    }

    const SIZE: usize = 4;

    impl Cache {
        /// Writes what `sequence` has from `from` on.
        fn write(&mut self, sequence: &Sequence, from: usize) {
            for i in from..sequence.tokens.len() {
                let block = sequence.table.blocks[i / SIZE] as usize;
                self.written[block][i % SIZE] = sequence.tokens[..=i].to_vec();
            }
        }

        /// Checks that a sequence finds in its blocks what it is.
        fn read(&self, sequence: &Sequence) {
            for i in 0..sequence.tokens.len() {
                let block = sequence.table.blocks[i / SIZE] as usize;
                assert_eq!(self.written[block][i % SIZE], sequence.tokens[..=i], "token {i}");
            }
        }

        fn act(&mut self, sequence: &mut Sequence, act: Act) {
            match act {
                Act::Begin(tokens) => {
                    self.pool.shrink(&mut sequence.table, 0);
                    sequence.tokens.clear();
                    sequence.table = self.pool.reuse(&tokens);
                    let reused = sequence.table.blocks.len() * SIZE;
                    assert!(reused < tokens.len().max(1), "the last token is run");
                    sequence.tokens.extend(&tokens[..reused]);
                    self.extend(sequence, &tokens[reused..]);
                }
                Act::Extend(tokens) => self.extend(sequence, &tokens),
                Act::Cut(part) => {
                    let tokens = (sequence.tokens.len() as f64 * part) as usize;
                    let cached = self.pool.shrink(&mut sequence.table, tokens);
                    sequence.tokens.truncate(cached);
                }
            }
        }

        fn extend(&mut self, sequence: &mut Sequence, tokens: &[u32]) {
            let before = sequence.tokens.len();
            if self.pool.grow(&mut sequence.table, before + tokens.len()).is_ok() {
                sequence.tokens.extend(tokens);
                self.write(sequence, before);
                self.pool.remember(&mut sequence.table, &sequence.tokens);
            }
        }
    }

    proptest! {
        #[test]
        fn no_block_changes_under_its_owners(acts in acts()) {
            let pool = BlockPool::new(24, SIZE);
            let mut cache = Cache { written: vec![vec![Vec::new(); SIZE]; pool.total()], pool };
            let mut sequences: [Sequence; 4] = Default::default();
            for (who, act) in acts {
                cache.act(&mut sequences[who], act);
                sequences.iter().for_each(|sequence| cache.read(sequence));

                let pool = &cache.pool;
                let mut owners = vec![0; pool.total()];
                sequences.iter().flat_map(|s| &s.table.blocks).for_each(|&block| owners[block as usize] += 1);
                let counted: Vec<u32> = pool.blocks.iter().map(|block| block.owners).collect();
                prop_assert_eq!(&counted, &owners);
                let mut unowned: Vec<i32> = pool.free.iter().chain(pool.idle.values()).copied().collect();
                unowned.sort_unstable();
                let expected: Vec<i32> = (0..pool.total() as i32).filter(|&b| owners[b as usize] == 0).collect();
                prop_assert_eq!(unowned, expected);
            }
        }
    }
}
