//! The sampling pipeline, on the device but for what changes logits one by one.

use std::collections::BTreeMap;

use thermite_device::draw::seed_words;
use thermite_device::{Device, Dtype};

use crate::Result;
use crate::chooser::Chooser;
use crate::sampling::{Logprobs, SamplingError, SamplingParams, logprobs};

/// Buffers of the pipeline for one row of logits.
#[derive(Debug)]
pub struct Sampler<D: Device> {
    n_vocab: usize,
    row: D::Buffer,
    logits: D::Buffer,
    position: D::Buffer,
    seed: D::Buffer,
    token: D::Buffer,
    /// Rows that `token` holds.
    rows: usize,
    seen: D::Buffer,
    counts: D::Buffer,
    /// A row of logits.
    host: Vec<f32>,
}

impl<D: Device> Sampler<D> {
    /// A pipeline over `n_vocab` tokens.
    ///
    /// # Errors
    /// The device's.
    pub fn new(d: &D, n_vocab: usize) -> Result<Self> {
        Ok(Self {
            n_vocab,
            row: d.alloc(Dtype::I32, 1)?,
            logits: d.alloc(Dtype::F32, n_vocab)?,
            position: d.alloc(Dtype::I32, 1)?,
            seed: d.alloc(Dtype::I32, 2)?,
            token: d.alloc(Dtype::I32, 1)?,
            rows: 1,
            seen: d.alloc(Dtype::I32, n_vocab)?,
            counts: d.alloc(Dtype::I32, n_vocab)?,
            host: vec![0.0; n_vocab],
        })
    }

    /// Chooses the token that follows `history`, from row `row` of `logits` `[*, n_vocab]`, which stay as they are.
    ///
    /// In the reference's order: soft cap, bias and constraint, penalties, temperature, top-k, softmax, top-p, min-p and the
    /// draw, whose random numbers the seed and the position give. At temperature 0 the largest logit is taken.
    ///
    /// # Errors
    /// The device's, the constraint's, or logits from which nothing can be drawn.
    pub fn sample(
        &mut self,
        d: &D,
        logits: &D::Buffer,
        row: usize,
        chooser: &mut Chooser,
        history: &[u32],
    ) -> Result<u32> {
        let v = self.n_vocab;
        d.write_i32(&mut self.row, &[row as i32])?;
        d.gather_rows(logits, &self.row, &mut self.logits, 1, v)?;
        if let Some(cap) = chooser.sampling.softcap {
            d.softcap_logits(&mut self.logits, 1, v, cap)?;
        }
        if chooser.edits() {
            d.read_f32(&self.logits, 0, &mut self.host)?;
            chooser.edit(&mut self.host)?;
            d.write_f32(&mut self.logits, &self.host)?;
        }
        let params = &chooser.sampling;
        if params.has_penalties() {
            self.penalize(d, params, history)?;
        }
        let Self { logits, position, seed, token, .. } = self;
        let draw = params.draw();
        match &draw {
            None => d.argmax_sample(logits, token, 1, v)?,
            Some(draw) => {
                d.write_i32(position, &[history.len() as i32 - 1])?;
                d.write_i32(seed, &seed_words(chooser.seed))?;
                draw.tokens(d, logits, position, seed, token, 1, v)?;
            }
        }
        let mut chosen = [0];
        d.read_i32(token, 0, &mut chosen)?;
        if draw.is_none() {
            return self.likeliest(d, &self.logits, 0, chosen[0]);
        }
        let nothing = |_| SamplingError::NothingToDraw { tokens: v };
        Ok(u32::try_from(chosen[0]).map_err(nothing)?)
    }

    /// `token`, which is row `row`'s of `logits` by argmax: token 0 also stands for rows without a number above -∞.
    fn likeliest(&self, d: &D, logits: &D::Buffer, row: usize, token: i32) -> Result<u32> {
        let mut first = [0.0];
        if token == 0 {
            d.read_f32(logits, row * self.n_vocab, &mut first)?;
        }
        if first[0].is_nan() || first[0] == f32::NEG_INFINITY {
            return Err(SamplingError::NothingToDraw { tokens: self.n_vocab }.into());
        }
        Ok(token as u32)
    }

    /// Log-probabilities of `token` and of the `top` likeliest in row `row` of `logits` `[*, n_vocab]`.
    ///
    /// # Errors
    /// The device's, or logits that are none: see [`logprobs`].
    pub fn logprobs(
        &mut self,
        d: &D,
        logits: &D::Buffer,
        row: usize,
        token: u32,
        top: usize,
    ) -> Result<Logprobs> {
        d.read_f32(logits, row * self.n_vocab, &mut self.host)?;
        Ok(logprobs(&self.host, token, top)?)
    }

    /// The largest logit's token in each of the first `rows` rows of `logits` `[*, n_vocab]`: what [`Sampler::sample`]
    /// gives for each where [`Chooser::is_plain_greedy`].
    ///
    /// # Errors
    /// The device's, or a row without a number above -∞.
    pub fn argmax(&mut self, d: &D, logits: &D::Buffer, rows: usize) -> Result<Vec<u32>> {
        if rows > self.rows {
            self.token = d.alloc(Dtype::I32, rows)?;
            self.rows = rows;
        }
        d.argmax_sample(logits, &mut self.token, rows, self.n_vocab)?;
        let mut tokens = vec![0; rows];
        d.read_i32(&self.token, 0, &mut tokens)?;
        tokens.into_iter().enumerate().map(|(row, token)| self.likeliest(d, logits, row, token)).collect()
    }

    fn penalize(&mut self, d: &D, params: &SamplingParams, history: &[u32]) -> Result<()> {
        let recent = &history[history.len().saturating_sub(params.repeat_last_n)..];
        let mut counts = BTreeMap::new();
        for &token in recent {
            *counts.entry(token as i32).or_insert(0) += 1;
        }
        let (seen, counts): (Vec<i32>, Vec<i32>) = counts.into_iter().unzip();
        d.write_i32(&mut self.seen, &seen)?;
        d.write_i32(&mut self.counts, &counts)?;
        d.penalize_logits(
            &mut self.logits,
            &self.seen,
            &self.counts,
            self.n_vocab,
            seen.len(),
            params.repeat_penalty,
            params.presence_penalty,
            params.frequency_penalty,
        )?;
        Ok(())
    }
}
