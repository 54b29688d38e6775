//! A ragged batch: rows of several sequences, each with its position and its place in the KV cache.

use crate::{Device, Dtype, Error, Result};

/// Consecutive rows of a batch that are consecutive tokens of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First row in the batch.
    pub first_row: usize,
    /// Rows.
    pub rows: usize,
    /// Position in the sequence of the first row.
    pub start: usize,
    /// Where the sequence's blocks begin in [`Batch::block_tables`].
    pub table: usize,
    /// Blocks that hold the sequence.
    pub blocks: usize,
}

impl Span {
    /// Tokens of the sequence once this span is in the cache.
    #[must_use]
    pub const fn context(&self) -> usize {
        self.start + self.rows
    }
}

/// Which rows of a span want logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outputs {
    /// None: a chunk of a prompt that goes on.
    None,
    /// The last row: what follows the span.
    Last,
    /// Every row: scoring.
    All,
}

/// What one forward pass computes: `n` rows, and the rows whose logits are wanted. Prefill in chunks and decode
/// are the same thing with other row counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token id of each row.
    pub tokens: Vec<i32>,
    /// Position of each row in its sequence.
    pub positions: Vec<i32>,
    /// Where each row's key and value go: block * block_size + offset.
    pub slots: Vec<i32>,
    /// The sequences.
    pub spans: Vec<Span>,
    /// The blocks of each span's sequence, one table after another.
    pub block_tables: Vec<i32>,
    /// Rows whose logits are wanted.
    pub outputs: Vec<i32>,
}

impl Batch {
    /// Rows.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.slots.clear();
        self.spans.clear();
        self.block_tables.clear();
        self.outputs.clear();
    }

    /// Adds the tokens of one sequence from position `start` on. `blocks` are the sequence's cache blocks from
    /// its beginning; they must hold `start + tokens.len()` tokens.
    ///
    /// # Errors
    /// If the blocks are too few, or an id or slot passes `i32`.
    pub fn push(
        &mut self,
        tokens: &[u32],
        start: usize,
        blocks: &[i32],
        block_size: usize,
        outputs: Outputs,
    ) -> Result<()> {
        let context = start + tokens.len();
        if blocks.len() * block_size < context {
            return Err(Error::shape(
                "batch",
                "tokens that the sequence's blocks hold",
                blocks.len() * block_size,
                format!("at least {context}"),
            ));
        }
        let first_row = self.rows();
        for (i, &token) in tokens.iter().enumerate() {
            let position = start + i;
            let slot =
                i64::from(blocks[position / block_size]) * block_size as i64 + (position % block_size) as i64;
            self.tokens.push(index("token id", i64::from(token))?);
            self.positions.push(index("position", position as i64)?);
            self.slots.push(index("slot", slot)?);
        }
        let (table, used) = (self.block_tables.len(), context.div_ceil(block_size));
        self.block_tables.extend_from_slice(&blocks[..used]);
        self.spans.push(Span { first_row, rows: tokens.len(), start, table, blocks: used });
        let end = self.rows();
        let wanted = match outputs {
            Outputs::None => end..end,
            Outputs::Last => end.saturating_sub(1).max(first_row)..end,
            Outputs::All => first_row..end,
        };
        self.outputs.extend(wanted.map(|row| row as i32));
        Ok(())
    }
}

impl Batch {
    /// As [`Batch::push`], with all of `blocks` in the sequence's table: steps that the device runs on its own go on to
    /// the ones that are not used yet.
    ///
    /// # Errors
    /// As [`Batch::push`].
    pub fn push_with_room(
        &mut self,
        tokens: &[u32],
        start: usize,
        blocks: &[i32],
        block_size: usize,
        outputs: Outputs,
    ) -> Result<()> {
        self.push(tokens, start, blocks, block_size, outputs)?;
        if let Some(span) = self.spans.last_mut() {
            self.block_tables.extend_from_slice(&blocks[span.blocks..]);
            span.blocks = blocks.len();
        }
        Ok(())
    }
}

fn index(what: &'static str, value: i64) -> Result<i32> {
    i32::try_from(value).map_err(|_| Error::shape("batch", what, value, "below 2^31"))
}

/// A [`Batch`] in device memory. The buffers grow to the largest batch seen and are then reused.
#[derive(Debug)]
pub struct Step<D: Device> {
    /// The host's copy, for the shapes.
    pub batch: Batch,
    /// Token ids, `i32 [n]`.
    pub tokens: D::Buffer,
    /// Positions, `i32 [n]`.
    pub positions: D::Buffer,
    /// Cache slots, `i32 [n]`.
    pub slots: D::Buffer,
    /// Block tables of the spans, `i32 [spans, max_blocks]`.
    pub block_tables: D::Buffer,
    /// Width of the block tables: the blocks of the longest sequence, rounded up to a power of two, so that steps of
    /// about the same length look the same to a recording.
    pub max_blocks: usize,
    /// First row of each span, and behind the last one the number of rows: `i32 [spans + 1]`.
    pub first_rows: D::Buffer,
    /// Tokens of each span's sequence once the step is in the cache, `i32 [spans]`.
    pub lengths: D::Buffer,
    /// Rows whose logits are wanted, `i32 [m]`.
    pub outputs: D::Buffer,
    capacity: [usize; 7],
    /// What was last written of the buffers that only the host writes: tables, first rows, outputs.
    written: [Vec<i32>; 3],
    /// How often a buffer was replaced by a larger one: what was recorded before is void.
    generation: usize,
}

/// A buffer of a step, what is to be in it, and, where only the host writes there, what is.
type Indices<'a, D> = (&'a mut <D as Device>::Buffer, &'a [i32], Option<&'a mut Vec<i32>>);

impl<D: Device> Step<D> {
    /// An empty step.
    pub fn new(device: &D) -> Result<Self> {
        let empty = || device.alloc(Dtype::I32, 1);
        Ok(Self {
            batch: Batch::default(),
            tokens: empty()?,
            positions: empty()?,
            slots: empty()?,
            block_tables: empty()?,
            max_blocks: 0,
            first_rows: empty()?,
            lengths: empty()?,
            outputs: empty()?,
            capacity: [1; 7],
            written: Default::default(),
            generation: 0,
        })
    }

    /// Takes over `batch` and copies it to the device, except for what is there already: from one step of decoding to
    /// the next, tables, first rows and outputs mostly stay.
    pub fn load(&mut self, device: &D, batch: &Batch) -> Result<()> {
        self.batch.clone_from(batch);
        let lengths: Vec<i32> = batch.spans.iter().map(|span| span.context() as i32).collect();
        self.max_blocks =
            batch.spans.iter().map(|span| span.blocks).max().map_or(0, usize::next_power_of_two);
        let mut first_rows: Vec<i32> = batch.spans.iter().map(|span| span.first_row as i32).collect();
        first_rows.push(batch.rows() as i32);
        let mut tables = vec![0; batch.spans.len() * self.max_blocks];
        for (i, span) in batch.spans.iter().enumerate() {
            let table = &batch.block_tables[span.table..][..span.blocks];
            tables[i * self.max_blocks..][..span.blocks].copy_from_slice(table);
        }
        let [old_tables, old_first_rows, old_outputs] = &mut self.written;
        let buffers: [Indices<'_, D>; 7] = [
            (&mut self.tokens, &batch.tokens, None),
            (&mut self.positions, &batch.positions, None),
            (&mut self.slots, &batch.slots, None),
            (&mut self.block_tables, &tables, Some(old_tables)),
            (&mut self.lengths, &lengths, None),
            (&mut self.outputs, &batch.outputs, Some(old_outputs)),
            (&mut self.first_rows, &first_rows, Some(old_first_rows)),
        ];
        for ((buffer, data, mut written), capacity) in buffers.into_iter().zip(&mut self.capacity) {
            if let Some(written) = &mut written {
                if written.as_slice() == data {
                    continue;
                }
                written.clear();
            }
            if data.len() > *capacity {
                *capacity = data.len().next_power_of_two();
                *buffer = device.alloc(Dtype::I32, *capacity)?;
                self.generation += 1;
            }
            device.write_i32(buffer, data)?;
            if let Some(written) = written {
                data.clone_into(written);
            }
        }
        Ok(())
    }

    /// Rows.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.batch.rows()
    }

    /// Whether every sequence has one row: a step that decodes.
    #[must_use]
    pub fn decodes(&self) -> bool {
        self.batch.spans.iter().all(|span| span.rows == 1)
    }

    /// What the launches of this step depend on, besides what lies in its buffers: steps of the same form have the same
    /// launches.
    #[must_use]
    pub fn form(&self) -> StepForm {
        let rows = self.batch.spans.iter().map(|span| span.rows);
        StepForm {
            rows: self.rows(),
            spans: self.batch.spans.len(),
            most_rows: rows.max().unwrap_or(0),
            outputs: self.batch.outputs.len(),
            max_blocks: self.max_blocks,
            generation: self.generation,
        }
    }
}

/// See [`Step::form`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StepForm {
    rows: usize,
    spans: usize,
    most_rows: usize,
    outputs: usize,
    max_blocks: usize,
    generation: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_know_their_place() {
        let mut batch = Batch::default();
        batch.push(&[7, 8, 9], 15, &[4, 2], 16, Outputs::Last).unwrap();
        batch.push(&[1], 0, &[3], 16, Outputs::All).unwrap();
        batch.push(&[5, 5], 1, &[0], 16, Outputs::None).unwrap();
        assert_eq!(batch.positions, [15, 16, 17, 0, 1, 2]);
        assert_eq!(batch.slots, [4 * 16 + 15, 2 * 16, 2 * 16 + 1, 48, 1, 2]);
        assert_eq!(batch.block_tables, [4, 2, 3, 0]);
        assert_eq!(batch.outputs, [2, 3]);
        assert_eq!(batch.spans[1], Span { first_row: 3, rows: 1, start: 0, table: 2, blocks: 1 });
    }

    #[test]
    fn too_few_blocks_are_an_error() {
        let mut batch = Batch::default();
        let error = batch.push(&[1, 2], 15, &[0], 16, Outputs::Last).unwrap_err();
        assert!(error.to_string().contains("16, must be at least 17"), "{error}");
    }
}
