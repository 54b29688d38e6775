//! Attention on the CPU over pages of keys and values.
//!
//! Keys and values lie in tiles of sixteen tokens, of floats or of eight bits: what a type of them does is [`Cached`]. The
//! softmax runs over groups of 128 keys, each with a maximum of its own, which are then put together in order. Tiles and
//! groups sit at fixed positions of the sequence, so a row's result depends neither on how its prompt was cut into
//! chunks nor on who computes what. Without a matrix of scores, this serves for naive attention as for flash.
//!
//! Sequences that have one row, as decoding has them, are [`decode`]'s: there the keys and values are what costs, and
//! each is read once. Sequences of more rows are dealt out by heads and rows, a [`Block`] at a time.

mod bytes;
mod cached;
mod decode;
mod floats;
mod group;
mod pages;

use std::cell::RefCell;

pub(super) use self::bytes::Block as Bytes;
pub(super) use self::cached::Cached;
use self::cached::{GROUP, Scores};
use self::group::{Block, Softmax};
use self::pages::Head;
pub(super) use self::pages::Pages;
use super::pool::{Parts, Pool};
use super::simd::{Isa, Wide, simd_fn};
use super::tile::{MAX_ROWS, Panel};
use crate::{AttentionShape, Dtype};

/// Rows of queries that one task takes.
const TASK_ROWS: usize = 4 * MAX_ROWS;

/// Calls a method that is generic over what a cache stores, for a type of keys and values.
macro_rules! with_cached {
    ($dtype:expr, $this:ident.$f:ident($($arg:expr),*)) => {
        match $dtype {
            $crate::Dtype::F16 => $this.$f::<$crate::cpu::tile::Panel<half::f16>>($($arg),*),
            $crate::Dtype::Q8_0 => $this.$f::<$crate::cpu::attention::Bytes>($($arg),*),
            _ => $this.$f::<$crate::cpu::tile::Panel>($($arg),*),
        }
    };
}
pub(super) use with_cached;

/// Attention of the rows of several sequences.
pub(super) struct Attention<'a> {
    pub(super) q: &'a [f32],
    pub(super) q_strides: Strides,
    pub(super) out_strides: Strides,
    pub(super) n_head: usize,
    /// The cache's memory, of `dtype`.
    pub(super) keys: &'a [u8],
    pub(super) values: &'a [u8],
    pub(super) pages: Pages,
    pub(super) dtype: Dtype,
    pub(super) scoring: Scoring,
}

/// What becomes of the product of a query and a key.
#[derive(Clone, Copy)]
pub(super) struct Scoring {
    pub(super) scale: f32,
    /// Tokens that a query sees, its own among them; all at 0.
    pub(super) window: usize,
    /// `cap * tanh(score / cap)`; not at 0.
    pub(super) cap: f32,
}

impl Scoring {
    pub(super) const fn of(shape: &AttentionShape) -> Self {
        Self { scale: shape.scale, window: shape.window, cap: shape.cap }
    }
}

/// From one row, and from one head, to the next.
#[derive(Clone, Copy)]
pub(super) struct Strides {
    pub(super) row: usize,
    pub(super) head: usize,
}

impl Strides {
    const fn at(self, row: usize, head: usize) -> usize {
        row * self.row + head * self.head
    }
}

/// Rows of one sequence: row `first_row + i` is at position `start + i`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) first_row: usize,
    pub(super) rows: usize,
    pub(super) start: usize,
    pub(super) table: &'a [i32],
}

impl Rows<'_> {
    /// Whether this is one row: a step of decoding.
    const fn decodes(&self) -> bool {
        self.rows == 1
    }
}

/// Some rows of one head.
struct Task<'a> {
    attention: &'a Attention<'a>,
    rows: Rows<'a>,
    head: usize,
    out: &'a Parts<'a, f32>,
}

impl Attention<'_> {
    /// Runs over all `spans`. No result depends on how the work is dealt out.
    pub(super) fn run(&self, isa: Isa, pool: &Pool, spans: &[Rows<'_>], out: &mut [f32]) {
        let out = &Parts::new(out);
        with_cached!(self.dtype, self.run_on(isa, pool, spans, out));
    }

    fn run_on<T: Cached>(&self, isa: Isa, pool: &Pool, spans: &[Rows<'_>], out: &Parts<'_, f32>) {
        decode::run::<T>(self, isa, pool, spans, out);
        let tasks = self.tasks(spans, out);
        pool.run(tasks.len(), |i| attend::<T>(isa, &tasks[i]));
    }

    /// The rows of sequences that have several.
    fn tasks<'s>(&'s self, spans: &[Rows<'s>], out: &'s Parts<'s, f32>) -> Vec<Task<'s>> {
        let mut tasks = Vec::new();
        for span in spans.iter().filter(|span| !span.decodes()) {
            for from in (0..span.rows).step_by(TASK_ROWS) {
                let rows = Rows {
                    first_row: span.first_row + from,
                    rows: TASK_ROWS.min(span.rows - from),
                    start: span.start + from,
                    ..*span
                };
                tasks.extend((0..self.n_head).map(|head| Task { attention: self, rows, head, out }));
            }
        }
        // the longest contexts come last in a prompt: begin with them
        tasks.reverse();
        tasks
    }

    /// Heads of queries that share keys and values.
    const fn group(&self) -> usize {
        self.n_head / self.pages.n_kv_head
    }

    /// Head `head` of keys and values.
    #[inline(always)]
    fn head<'s, T: Cached>(&'s self, table: &'s [i32], head: usize) -> Head<'s, T> {
        let (keys, values) = (bytemuck::cast_slice(self.keys), bytemuck::cast_slice(self.values));
        Head { keys, values, pages: self.pages, table, head }
    }

    #[inline(always)]
    fn query(&self, row: usize, head: usize) -> &[f32] {
        &self.q[self.q_strides.at(row, head)..][..self.pages.head_dim]
    }

    /// The output of one head of one row, which nobody else writes.
    #[inline(always)]
    fn write(&self, out: &Parts<'_, f32>, row: usize, head: usize, values: &[Panel]) {
        let (at, dim) = (self.out_strides.at(row, head), self.pages.head_dim);
        // SAFETY: one head of one row belongs to one task alone.
        #[allow(unsafe_code)]
        let out = unsafe { out.get(at..at + dim) };
        out.copy_from_slice(&values.as_flattened().as_flattened()[..dim]);
    }

    #[inline(always)]
    const fn scores(&self) -> Scores {
        [[0.0; GROUP]; MAX_ROWS]
    }
}

/// What a task works in.
#[derive(Default)]
struct Scratch {
    /// Queries as the cache's type has them, in words.
    queries: Vec<u32>,
    /// The values of a group, and of all groups so far.
    values: [Vec<Panel>; 2],
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

simd_fn! { fn attend<T: Cached>(task: &Task<'_>) = attend_body::<_, T>; }

#[inline(always)]
fn attend_body<S: Wide, T: Cached>(s: S, task: &Task<'_>) {
    let Task { attention, rows: Rows { first_row, rows, start, table }, head, out } = *task;
    let (panels, query_len) = (attention.pages.panels(), T::query_len(attention.pages.head_dim));
    // taken, not borrowed: a closure here would be compiled without the instructions
    let mut scratch = SCRATCH.take();
    let words = MAX_ROWS * query_len * size_of::<T::Query>() / size_of::<u32>();
    scratch.queries.resize(words.max(scratch.queries.len()), 0);
    let queries: &mut [T::Query] = bytemuck::cast_slice_mut(&mut scratch.queries[..words]);
    let [values, acc] = &mut scratch.values;
    let mut scores = attention.scores();
    for from in (0..rows).step_by(MAX_ROWS) {
        let count = MAX_ROWS.min(rows - from);
        for (r, to) in queries.chunks_exact_mut(query_len.max(1)).enumerate().take(count) {
            T::query(s, attention.query(first_row + from + r, head), to);
        }
        let mut x = [[].as_slice(); MAX_ROWS];
        for (r, x) in x.iter_mut().enumerate().take(count) {
            *x = &queries[r * query_len..][..query_len];
        }
        let block = Block {
            head: attention.head::<T>(table, head / attention.group()),
            queries: &x[..count],
            start: start + from,
            step: 1,
            scoring: attention.scoring,
        };
        values.resize(count * panels, Panel::default());
        acc.clear();
        acc.resize(count * panels, Panel::default());
        let mut softmax = [Softmax::default(); MAX_ROWS];
        for group in block.groups() {
            let done = block.group(s, group, None, &mut scores, values);
            for r in 0..count {
                let rows = r * panels..(r + 1) * panels;
                softmax[r].merge(s, &mut acc[rows.clone()], done[r], &values[rows]);
            }
        }
        for r in 0..count {
            let acc = &mut acc[r * panels..][..panels];
            softmax[r].finish(s, acc);
            attention.write(out, first_row + from + r, head, acc);
        }
    }
    SCRATCH.set(scratch);
}
