//! A vocabulary's spellings: by id, and back.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::hash::{BuildHasher, RandomState};

/// Spellings by id, one behind the other in one text.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    text: String,
    ends: Vec<usize>,
}

impl Pieces {
    pub(super) fn new(pieces: &[&str]) -> Self {
        let mut text = String::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
        let ends = pieces.iter().map(|piece| {
            text.push_str(piece);
            text.len()
        });
        Self { ends: ends.collect(), text }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn get(&self, id: u32) -> Option<&str> {
        let id = id as usize;
        let end = *self.ends.get(id)?;
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.text[start..end])
    }
}

/// Ids by spelling, of some of the pieces. Where several are spelled alike, it is the last of them.
#[derive(Debug)]
pub(super) struct Ids {
    table: HashTable<u32>,
    hasher: RandomState,
}

impl Ids {
    pub(super) fn new(pieces: &Pieces, ids: impl Iterator<Item = u32>) -> Self {
        let hasher = RandomState::new();
        let spelling = |id: u32| pieces.get(id).unwrap_or_default();
        let hash = |id: &u32| hasher.hash_one(spelling(*id));
        let mut table = HashTable::with_capacity(pieces.len());
        for id in ids {
            match table.entry(hash(&id), |&other| spelling(other) == spelling(id), hash) {
                Entry::Occupied(mut entry) => *entry.get_mut() = id,
                Entry::Vacant(entry) => {
                    entry.insert(id);
                }
            }
        }
        Self { table, hasher }
    }

    pub(super) fn get(&self, pieces: &Pieces, piece: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(piece);
        self.table.find(hash, |&id| pieces.get(id) == Some(piece)).copied()
    }
}
