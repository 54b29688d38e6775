//! Byte-pair merging: of all neighbours that a vocabulary has a token for, the best become one, until none are left.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

/// A part of a text, and its token if the vocabulary has one.
#[derive(Debug, Clone)]
pub(super) struct Symbol {
    /// Its bytes in the text.
    pub(super) range: Range<usize>,
    pub(super) token: Option<u32>,
}

/// Neighbours that may become one: the lowest rank first, then the leftmost.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: usize,
    right: usize,
    /// Where the right one ends: if it has grown since, the candidate is of the past.
    end: usize,
    token: u32,
}

const NONE: usize = usize::MAX;

/// Merges `symbols`, which lie one behind the other. `merge` gives rank and token of two neighbours, if they have one.
pub(super) fn merge_all(
    mut symbols: Vec<Symbol>,
    merge: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>,
) -> Vec<Symbol> {
    let count = symbols.len();
    // neighbours of the symbols that are left; one that was merged into its left neighbour is empty
    let mut before: Vec<usize> = (0..count).map(|i| i.checked_sub(1).unwrap_or(NONE)).collect();
    let mut after: Vec<usize> = (1..=count).map(|i| if i < count { i } else { NONE }).collect();
    let candidate = |symbols: &[Symbol], left: usize, right: usize| {
        let (rank, token) = merge(&symbols[left], &symbols[right])?;
        Some(Reverse(Candidate { rank, left, right, end: symbols[right].range.end, token }))
    };
    let mut queue: BinaryHeap<_> = (1..count).filter_map(|i| candidate(&symbols, i - 1, i)).collect();
    while let Some(Reverse(Candidate { left, right, end, token, .. })) = queue.pop() {
        let current = !symbols[left].range.is_empty()
            && !symbols[right].range.is_empty()
            && after[left] == right
            && symbols[right].range.end == end;
        if !current {
            continue;
        }
        symbols[left] = Symbol { range: symbols[left].range.start..end, token: Some(token) };
        symbols[right].range = end..end;
        let next = after[right];
        after[left] = next;
        if next != NONE {
            before[next] = left;
            queue.extend(candidate(&symbols, left, next));
        }
        if before[left] != NONE {
            queue.extend(candidate(&symbols, before[left], left));
        }
    }
    symbols.retain(|symbol| !symbol.range.is_empty());
    symbols
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Merges as it is defined: find the best neighbours, merge them, begin again.
    fn plain(text: &str, rank: impl Fn(&str) -> Option<u32>) -> Vec<String> {
        let mut parts: Vec<String> = text.chars().map(String::from).collect();
        loop {
            let ranked =
                parts.windows(2).enumerate().filter_map(|(i, pair)| Some((rank(&pair.concat())?, i)));
            let Some((_, i)) = ranked.min() else { return parts };
            let right = parts.remove(i + 1);
            parts[i].push_str(&right);
        }
    }

    proptest! {
        #[test]
        fn the_queue_merges_what_a_search_would(
            text in "[abc]{0,40}",
            pieces in prop::collection::hash_map("[abc]{2,6}", 0u32..9, 0..30),
        ) {
            let rank = |piece: &str| pieces.get(piece).copied();
            let symbols = text.char_indices().map(|(i, _)| Symbol { range: i..i + 1, token: None }).collect();
            let merged = merge_all(symbols, |left, right| Some((rank(&text[left.range.start..right.range.end])?, 7)));
            let parts: Vec<&str> = merged.iter().map(|symbol| &text[symbol.range.clone()]).collect();
            prop_assert_eq!(parts, plain(&text, rank));
            prop_assert!(merged.iter().all(|s| s.token.is_some() == (s.range.len() > 1)));
        }
    }
}
