//! Decoding on the device alone: each step's token, position and length come from the step before, and the host reads what
//! was chosen some steps behind.

use thermite_device::draw::seed_words;
use thermite_device::{Batch, Device, Draw, Dtype, Outputs, Step, StepForm};

use crate::recordings::Recordings;
use crate::{Error, KvCache, Model, Result};

/// Tokens of each row that are kept for the host to read.
pub const KEPT: usize = 1024;
/// Steps in a recording: those between are recorded one by one.
const TOGETHER: usize = 8;

/// A sequence that decodes.
#[derive(Debug, Clone, Copy)]
pub struct DecodingRow<'a> {
    /// The token that is run first; it is not in the cache yet.
    pub token: u32,
    /// Its position.
    pub position: usize,
    /// The sequence's blocks: all that the steps to come need.
    pub blocks: &'a [i32],
}

/// Steps that follow each other on the device.
#[derive(Debug)]
pub struct Stepper<D: Device> {
    step: Step<D>,
    /// None takes the likeliest token.
    drawing: Option<Drawing<D>>,
    chosen: D::Buffer,
    history: D::Buffer,
    recordings: Recordings<Form, D::Recording>,
    /// Position that the next step runs, and the first that the blocks do not hold, of the row that is nearest to it.
    positions: Vec<usize>,
    room: usize,
}

/// How tokens are drawn, and the seed of each row `[rows, 2]`.
#[derive(Debug)]
struct Drawing<D: Device> {
    draw: Draw,
    seeds: D::Buffer,
}

/// What the launches of some steps depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Form {
    step: StepForm,
    cache: u64,
    steps: usize,
}

impl<D: Device> Stepper<D> {
    /// Of up to `rows` sequences on `model`'s device, whose likeliest tokens are chosen.
    ///
    /// # Errors
    /// The device's.
    pub fn new(model: &Model<D>, rows: usize) -> Result<Self> {
        let device = model.device();
        Ok(Self {
            step: Step::new(device)?,
            drawing: None,
            chosen: device.alloc(Dtype::I32, rows)?,
            history: device.alloc(Dtype::I32, rows * KEPT)?,
            recordings: Recordings::default(),
            positions: Vec::new(),
            room: 0,
        })
    }

    /// Of sequences whose tokens are drawn, those of row `i` with the random numbers of `seeds[i]`. Logits are not kept.
    ///
    /// # Errors
    /// The device's.
    pub fn drawing(model: &Model<D>, draw: Draw, seeds: &[u64]) -> Result<Self> {
        let device = model.device();
        let words = seeds.iter().flat_map(|&seed| seed_words(seed)).collect::<Vec<_>>();
        let mut buffer = device.alloc(Dtype::I32, words.len())?;
        device.write_i32(&mut buffer, &words)?;
        let drawing = Some(Drawing { draw, seeds: buffer });
        Ok(Self { drawing, ..Self::new(model, seeds.len())? })
    }

    /// Takes over `rows`.
    ///
    /// # Errors
    /// Rows that the model does not take (as [`Model::forward`]); the device's.
    pub fn start(&mut self, model: &Model<D>, rows: &[DecodingRow<'_>], cache: &KvCache<D>) -> Result<()> {
        let block_size = cache.block_size();
        let mut batch = Batch::default();
        self.positions.clear();
        self.room = usize::MAX;
        for row in rows {
            batch.push_with_room(&[row.token], row.position, row.blocks, block_size, Outputs::Last)?;
            self.positions.push(row.position);
            let end = (row.blocks.len() * block_size).min(model.context());
            self.room = self.room.min(end.saturating_sub(row.position));
        }
        model.check(&batch)?;
        Ok(self.step.load(model.device(), &batch)?)
    }

    /// Steps that can still be run.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.room
    }

    /// Queues `count` steps of all rows, and marks their end.
    ///
    /// # Errors
    /// More steps than there is room for; the device's.
    pub fn run(&mut self, model: &mut Model<D>, cache: &mut KvCache<D>, count: usize) -> Result<D::Mark> {
        if count > self.room {
            return Err(Error::Steps { asked: count, room: self.room });
        }
        let mut left = count;
        while left > 0 {
            let steps = if left >= TOGETHER { TOGETHER } else { 1 };
            let form = Form { step: self.step.form(), cache: cache.id(), steps };
            let (device, network, acts) = model.parts();
            let Self { step, drawing, chosen, history, recordings, .. } = self;
            recordings.run(device, form, || {
                for _ in 0..steps {
                    network.forward(device, step, cache, acts)?;
                    let (rows, v, logits) = (step.rows(), acts.shape.n_vocab, &mut acts.logits);
                    match drawing {
                        None => device.argmax_sample(logits, chosen, rows, v)?,
                        Some(Drawing { draw, seeds }) => {
                            draw.tokens(device, logits, &step.positions, seeds, chosen, rows, v)?;
                        }
                    }
                    device.advance_rows(chosen, step, history, KEPT, cache.block_size())?;
                }
                Ok(())
            })?;
            left -= steps;
        }
        self.room -= count;
        self.positions.iter_mut().for_each(|position| *position += count);
        Ok(model.device().mark()?)
    }

    /// The last `out.len()` tokens that `row` had chosen at `mark`, after which `since` more steps were queued.
    ///
    /// # Errors
    /// The device's; more tokens than are kept; logits from which none could be drawn.
    pub fn read(
        &self,
        model: &Model<D>,
        mark: &D::Mark,
        row: usize,
        since: usize,
        out: &mut [i32],
    ) -> Result<()> {
        if out.len() + since > KEPT {
            return Err(Error::Steps { asked: out.len() + since, room: KEPT });
        }
        let Some(&position) = self.positions.get(row) else {
            return Err(Error::Steps { asked: row, room: self.positions.len() });
        };
        // what position p chose lies at p + 1
        let mut at = position + 1 - since - out.len();
        let mut rest = out;
        while !rest.is_empty() {
            let first = at % KEPT;
            let (piece, after) = rest.split_at_mut(rest.len().min(KEPT - first));
            model.device().read_after(mark, &self.history, row * KEPT + first, piece)?;
            if let Some(i) = piece.iter().position(|&token| token < 0) {
                return Err(Error::NothingToDraw { position: at + i });
            }
            at += piece.len();
            rest = after;
        }
        Ok(())
    }
}
