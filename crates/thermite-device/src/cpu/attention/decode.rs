//! Attention of sequences with one row each: every key and value is read once, by whichever thread is free.
//!
//! The work is dealt out by groups of keys, in the order in which they lie in memory. What each group gives is kept until
//! all have been computed, and is then put together in order, so that a row has the bits that it has in a prompt.

use std::cell::RefCell;
use std::ops::Range;

use super::cached::Cached;
use super::group::{Block, Softmax};
use super::{Attention, Rows};
use crate::cpu::pool::{Parts, Pool};
use crate::cpu::simd::{Isa, Simd, Wide, simd_fn};
use crate::cpu::tile::{MAX_ROWS, Panel};

/// Floats to put together that are not worth a second thread.
const ALONE: usize = 1 << 16;

thread_local! {
    /// Weighted values of each group, and their softmaxes.
    static GROUPS: RefCell<(Vec<Panel>, Vec<Softmax>)> = const { RefCell::new((Vec::new(), Vec::new())) };
    /// The queries of a row.
    static QUERIES: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// One row of a sequence, and its items: each group of each head of keys.
struct Row<'a> {
    rows: Rows<'a>,
    groups: Range<usize>,
    /// The number of its first item among those of all rows.
    first: usize,
}

/// All rows that decode.
struct Step<'a> {
    attention: &'a Attention<'a>,
    rows: &'a [Row<'a>],
    /// By item and head of the group of queries: panels of values, softmaxes.
    values: Parts<'a, Panel>,
    softmaxes: Parts<'a, Softmax>,
    out: &'a Parts<'a, f32>,
}

/// Runs over those of `spans` that have one row.
pub(super) fn run<T: Cached>(
    attention: &Attention<'_>,
    isa: Isa,
    pool: &Pool,
    spans: &[Rows<'_>],
    out: &Parts<'_, f32>,
) {
    let (mut rows, mut items) = (Vec::new(), 0);
    for span in spans.iter().filter(|span| span.decodes()) {
        let groups = attention.scoring.groups(span.start + 1);
        rows.push(Row { rows: *span, groups: groups.clone(), first: items });
        items += groups.len() * attention.pages.n_kv_head;
    }
    if items == 0 {
        return;
    }
    let (mut values, mut softmaxes) = GROUPS.take();
    let results = items * attention.group();
    if softmaxes.len() < results {
        softmaxes.resize(results, Softmax::default());
    }
    let panels = results * attention.pages.panels();
    if values.len() < panels {
        values.resize(panels, Panel::default());
    }
    let step = &Step {
        attention,
        rows: &rows,
        values: Parts::new(&mut values),
        softmaxes: Parts::new(&mut softmaxes),
        out,
    };
    let shares = pool.threads().min(items);
    pool.run(shares, |share| groups::<T>(isa, step, items * share / shares..items * (share + 1) / shares));
    let heads = rows.len() * attention.n_head;
    let shares = if panels * size_of::<Panel>() / size_of::<f32>() < ALONE { 1 } else { pool.threads() };
    pool.run(shares, |share| merge(isa, step, heads * share / shares..heads * (share + 1) / shares));
    GROUPS.set((values, softmaxes));
}

simd_fn! { fn groups<T: Cached>(step: &Step<'_>, items: Range<usize>) = groups_body::<_, T>; }

/// What a share of the groups gives.
#[inline(always)]
fn groups_body<S: Wide, T: Cached>(s: S, step: &Step<'_>, items: Range<usize>) {
    let attention = step.attention;
    let (group, n_kv_head) = (attention.group(), attention.pages.n_kv_head);
    let (panels, query_len) = (attention.pages.panels(), T::query_len(attention.pages.head_dim));
    // taken, not borrowed: a closure here would be compiled without the instructions
    let mut memory = QUERIES.take();
    let words = attention.n_head * query_len * size_of::<T::Query>() / size_of::<u32>();
    if memory.len() < words {
        memory.resize(words, 0);
    }
    let queries: &mut [T::Query] = bytemuck::cast_slice_mut(&mut memory[..words]);
    let mut scores = attention.scores();
    for row in step.rows {
        let len = row.groups.len() * n_kv_head;
        let mine = items.start.max(row.first)..items.end.min(row.first + len);
        if mine.is_empty() {
            continue;
        }
        for (head, to) in queries.chunks_exact_mut(query_len.max(1)).enumerate() {
            T::query(s, attention.query(row.rows.first_row, head), to);
        }
        let place = |item: usize| {
            let at = item - row.first;
            (attention.head::<T>(row.rows.table, at % n_kv_head), row.groups.start + at / n_kv_head)
        };
        for item in mine.clone() {
            let (head, number) = place(item);
            let mut ahead = (item + 1 < mine.end).then(
                #[inline(always)]
                || place(item + 1),
            );
            for from in (0..group).step_by(MAX_ROWS) {
                let count = MAX_ROWS.min(group - from);
                let mut rows = [[].as_slice(); MAX_ROWS];
                for (r, row) in rows.iter_mut().enumerate().take(count) {
                    *row = &queries[(head.head * group + from + r) * query_len..][..query_len];
                }
                let block = Block {
                    head,
                    queries: &rows[..count],
                    start: row.rows.start,
                    step: 0,
                    scoring: attention.scoring,
                };
                let at = item * group + from;
                // SAFETY: an item belongs to one share alone.
                #[allow(unsafe_code)]
                let (values, softmaxes) = unsafe {
                    (step.values.get(at * panels..(at + count) * panels), step.softmaxes.get(at..at + count))
                };
                let done = block.group(s, number, ahead.take(), &mut scores, values);
                softmaxes.copy_from_slice(&done[..count]);
            }
        }
    }
    QUERIES.set(memory);
}

simd_fn! { fn merge(step: &Step<'_>, heads: Range<usize>) = merge_body; }

/// The outputs of a share of the rows' heads.
#[inline(always)]
fn merge_body<S: Simd>(s: S, step: &Step<'_>, heads: Range<usize>) {
    let Attention { n_head, pages, .. } = *step.attention;
    let (group, panels) = (step.attention.group(), pages.panels());
    let mut acc = vec![Panel::default(); panels];
    for at in heads {
        let (row, head) = (&step.rows[at / n_head], at % n_head);
        let mut softmax = Softmax::default();
        acc.fill(Panel::default());
        for i in 0..row.groups.len() {
            let at = (row.first + i * pages.n_kv_head + head / group) * group + head % group;
            // SAFETY: all groups have been computed; nobody writes them now, and a head's are read by one share alone.
            #[allow(unsafe_code)]
            let (values, group) =
                unsafe { (step.values.get(at * panels..(at + 1) * panels), step.softmaxes.get(at..at + 1)) };
            softmax.merge(s, &mut acc, group[0], values);
        }
        softmax.finish(s, &mut acc);
        step.attention.write(step.out, row.rows.first_row, head, &acc);
    }
}
