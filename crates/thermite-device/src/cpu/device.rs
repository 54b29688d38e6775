//! [`Device`] for the CPU: each kernel checks its operands and hands them to the code that computes.

use std::convert::Infallible;

use super::attention::{Attention, Cached, Pages, Rows, Scoring, Strides, with_cached};
use super::matrix::Product;
use super::memory::Operands;
use super::pool::Parts;
use super::rows::NormArgs;
use super::simd::Isa;
use super::square::{self, Square};
use super::tile::PANEL;
use super::{Cpu, CpuBuffer, CpuMatrix, GRAIN, activation, draw, rows, sampling};
use crate::draw::seed_of;
use crate::{
    Activations, AttentionShape, Device, Dtype, Error, HeadColumns, HeadRows, KvLayer, KvShape, Linear,
    MatrixView, Result, Step,
};

/// Rows from which the cache is written by all threads.
const WRITE_GRAIN: usize = 16;
/// Tokens at most that one is drawn from: the sum of their weights stays below 2^64.
const MOST_DRAWN_FROM: usize = 1 << 22;

impl Device for Cpu {
    type Buffer = CpuBuffer;
    type Matrix = CpuMatrix;
    type Recording = Infallible;
    type Mark = ();

    fn describe(&self) -> String {
        format!("cpu ({}, {} threads)", self.isa.name(), self.threads())
    }

    fn alloc(&self, dtype: Dtype, len: usize) -> Result<CpuBuffer> {
        CpuBuffer::new(dtype, len)
    }

    fn write_f32(&self, dst: &mut CpuBuffer, data: &[f32]) -> Result<()> {
        Operands("write").f32_mut(dst, "dst", data.len())?.copy_from_slice(data);
        Ok(())
    }

    fn write_i32(&self, dst: &mut CpuBuffer, data: &[i32]) -> Result<()> {
        Operands("write").i32_mut(dst, "dst", data.len())?.copy_from_slice(data);
        Ok(())
    }

    fn read_f32(&self, src: &CpuBuffer, first: usize, out: &mut [f32]) -> Result<()> {
        out.copy_from_slice(&Operands("read").f32(src, "src", first + out.len())?[first..]);
        Ok(())
    }

    fn read_i32(&self, src: &CpuBuffer, first: usize, out: &mut [i32]) -> Result<()> {
        out.copy_from_slice(&Operands("read").i32(src, "src", first + out.len())?[first..]);
        Ok(())
    }

    fn matrix(&self, parts: &[MatrixView<'_>]) -> Result<CpuMatrix> {
        CpuMatrix::pack(parts, &self.pool)
    }

    fn matrix_bytes(&self, matrix: &CpuMatrix) -> usize {
        matrix.bytes()
    }

    fn kv_layer(&self, shape: KvShape) -> Result<KvLayer<Self>> {
        if shape.block_size == 0 || !shape.block_size.is_multiple_of(PANEL) {
            return Err(Error::shape(
                "kv_layer",
                "block_size",
                shape.block_size,
                "a positive multiple of 16",
            ));
        }
        let KvShape { dtype, head_dim, .. } = shape;
        if !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::Q8_0) {
            return Err(Error::shape("kv_layer", "dtype", dtype, "f32, f16 or q8_0"));
        }
        if !head_dim.is_multiple_of(dtype.values()) {
            let need = format!("a multiple of {} for keys and values of type {dtype}", dtype.values());
            return Err(Error::shape("kv_layer", "head size", head_dim, need));
        }
        let heads = shape.n_blocks * shape.block_size * shape.n_kv_head;
        let buffer = |dim: usize| self.alloc(dtype, heads * dim / dtype.values());
        Ok(KvLayer { k: buffer(head_dim)?, v: buffer(Pages::of(&shape).value_dim())?, shape })
    }

    fn submit(&self) -> Result<()> {
        Ok(())
    }
    fn record(&self, _work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Infallible>> {
        Ok(None)
    }
    fn replay(&self, recording: &Infallible) -> Result<()> {
        match *recording {}
    }
    fn mark(&self) -> Result<()> {
        Ok(())
    }
    fn read_after(&self, _mark: &(), src: &Self::Buffer, first: usize, out: &mut [i32]) -> Result<()> {
        self.read_i32(src, first, out)
    }

    fn read_bandwidth(&self, buffer: &CpuBuffer) -> Result<Option<f64>> {
        let values = Operands("read_bandwidth").f32(buffer, "buffer", buffer.len())?;
        let begin = std::time::Instant::now();
        self.pool.run_ranges(values.len(), GRAIN, |range| {
            std::hint::black_box(rows::sum(self.isa, &values[range]));
        });
        Ok(Some(size_of_val(values) as f64 / begin.elapsed().as_secs_f64()))
    }

    fn embedding_forward(
        &self,
        weight: &CpuMatrix,
        tokens: &CpuBuffer,
        out: &mut CpuBuffer,
        n: usize,
    ) -> Result<()> {
        let ops = Operands("embedding_forward");
        let tokens = ops.indices(tokens, "tokens", n, weight.rows)?;
        let out = ops.f32_mut(out, "out", n * weight.cols)?;
        self.each_row(out, weight.cols, |i, row| {
            weight.row(tokens[i] as usize, row);
        });
        Ok(())
    }

    fn positional_embedding_add(
        &self,
        weight: &CpuMatrix,
        positions: &CpuBuffer,
        x: &mut CpuBuffer,
        n: usize,
    ) -> Result<()> {
        let ops = Operands("positional_embedding_add");
        let positions = ops.indices(positions, "positions", n, weight.rows)?;
        let x = ops.f32_mut(x, "x", n * weight.cols)?;
        self.each_row(x, weight.cols, |i, row| {
            let mut position = vec![0.0; weight.cols];
            weight.row(positions[i] as usize, &mut position);
            rows::add(self.isa, row, &position);
        });
        Ok(())
    }

    fn gather_rows(
        &self,
        x: &CpuBuffer,
        rows: &CpuBuffer,
        out: &mut CpuBuffer,
        m: usize,
        c: usize,
    ) -> Result<()> {
        let ops = Operands("gather_rows");
        let x = ops.f32(x, "x", 0).and(Ok(x.all::<f32>()))?;
        let rows = ops.indices(rows, "rows", m, x.len().checked_div(c).unwrap_or(0))?;
        let out = ops.f32_mut(out, "out", m * c)?;
        self.each_row(out, c, |i, row| {
            row.copy_from_slice(&x[rows[i] as usize * c..][..c]);
        });
        Ok(())
    }

    fn layernorm_forward(
        &self,
        x: &CpuBuffer,
        gamma: &CpuBuffer,
        beta: &CpuBuffer,
        out: &mut CpuBuffer,
        mean: Option<&mut CpuBuffer>,
        rstd: Option<&mut CpuBuffer>,
        n: usize,
        c: usize,
        eps: f32,
    ) -> Result<()> {
        let ops = Operands("layernorm_forward");
        let x = ops.f32(x, "x", n * c)?;
        let args =
            NormArgs { gamma: ops.f32(gamma, "gamma", c)?, beta: Some(ops.f32(beta, "beta", c)?), eps };
        let out = ops.f32_mut(out, "out", n * c)?;
        let statistic = |buffer: Option<_>, operand| match buffer {
            Some(buffer) => ops.f32_mut(buffer, operand, n).map(Parts::new).map(Some),
            None => Ok(None),
        };
        let (mean, rstd) = (statistic(mean, "mean")?, statistic(rstd, "rstd")?);
        self.each_row(out, c, |i, row| {
            let (m, r) = rows::norm(self.isa, &x[i * c..][..c], args, row);
            for (statistic, value) in [(&mean, m), (&rstd, r)] {
                if let Some(parts) = statistic {
                    // SAFETY: row `i` belongs to one thread.
                    #[allow(unsafe_code)]
                    unsafe { parts.get(i..i + 1) }.fill(value);
                }
            }
        });
        Ok(())
    }

    fn rmsnorm_forward(
        &self,
        x: &CpuBuffer,
        gamma: &CpuBuffer,
        out: &mut CpuBuffer,
        n: usize,
        c: usize,
        eps: f32,
    ) -> Result<()> {
        let ops = Operands("rmsnorm_forward");
        let x = ops.f32(x, "x", n * c)?;
        let args = NormArgs { gamma: ops.f32(gamma, "gamma", c)?, beta: None, eps };
        let out = ops.f32_mut(out, "out", n * c)?;
        self.each_row(out, c, |i, row| {
            rows::norm(self.isa, &x[i * c..][..c], args, row);
        });
        Ok(())
    }

    fn rmsnorm_heads(
        &self,
        x: &mut CpuBuffer,
        gamma: &CpuBuffer,
        columns: HeadColumns,
        n: usize,
        eps: f32,
    ) -> Result<()> {
        let ops = Operands("rmsnorm_heads");
        let gamma = ops.f32(gamma, "gamma", columns.hs)?;
        self.each_head(ops, x, columns, n, |_, head| rows::rmsnorm_inplace(self.isa, head, gamma, eps))
    }

    fn attention_scores(
        &self,
        q: &CpuBuffer,
        k: &CpuBuffer,
        att: &mut CpuBuffer,
        bh: usize,
        t: usize,
        hs: usize,
    ) -> Result<()> {
        let (ops, square) = (Operands("attention_scores"), Square { bh, t, hs });
        let (q, k) = (ops.f32(q, "Q", square.len())?, ops.f32(k, "K", square.len())?);
        square.scores(self.isa, &self.pool, q, k, ops.f32_mut(att, "att", bh * t * t)?)
    }

    fn attention_mask(
        &self,
        att: &mut CpuBuffer,
        bh: usize,
        t: usize,
        window: usize,
        cap: f32,
    ) -> Result<()> {
        let att = Operands("attention_mask").f32_mut(att, "att", bh * t * t)?;
        self.each_row(att, t, |row, scores| square::mask(self.isa, scores, row % t, window, cap));
        Ok(())
    }

    fn softmax_inplace(&self, x: &mut CpuBuffer, n: usize, t: usize) -> Result<()> {
        let x = Operands("softmax_inplace").f32_mut(x, "x", n * t)?;
        self.each_row(x, t, |_, row| rows::softmax(self.isa, row));
        Ok(())
    }

    fn attention_mix(
        &self,
        att: &CpuBuffer,
        v: &CpuBuffer,
        out: &mut CpuBuffer,
        bh: usize,
        t: usize,
        hs: usize,
    ) -> Result<()> {
        let (ops, square) = (Operands("attention_mix"), Square { bh, t, hs });
        let (att, v) = (ops.f32(att, "att", bh * t * t)?, ops.f32(v, "V", square.len())?);
        square.mix(self.isa, &self.pool, att, v, ops.f32_mut(out, "out", square.len())?)
    }

    fn rope_forward(
        &self,
        x: &mut CpuBuffer,
        freqs: &CpuBuffer,
        bh: usize,
        t: usize,
        hs: usize,
    ) -> Result<()> {
        let ops = Operands("rope_forward");
        if !hs.is_multiple_of(2) {
            return Err(Error::shape("rope_forward", "hs", hs, "even"));
        }
        let x = ops.f32_mut(x, "x", bh * t * hs)?;
        let freqs = ops.f32(freqs, "freqs", t * hs)?;
        self.each_row(x, hs, |i, row| {
            rows::rotate(row, &freqs[i % t * hs..][..hs]);
        });
        Ok(())
    }

    fn gelu_forward(&self, x: &CpuBuffer, out: &mut CpuBuffer, n: usize) -> Result<()> {
        self.unary("gelu_forward", activation::gelu_forward, x, out, n)
    }

    fn silu_forward(&self, x: &CpuBuffer, out: &mut CpuBuffer, n: usize) -> Result<()> {
        self.unary("silu_forward", activation::silu_forward, x, out, n)
    }

    fn swiglu_forward(&self, gate: &CpuBuffer, up: &CpuBuffer, out: &mut CpuBuffer, n: usize) -> Result<()> {
        let ops = Operands("swiglu_forward");
        let (gate, up) = (ops.f32(gate, "gate", n)?, ops.f32(up, "up", n)?);
        self.each_part(ops.f32_mut(out, "out", n)?, |range, out| {
            activation::swiglu_forward(self.isa, &gate[range.clone()], &up[range], out);
        });
        Ok(())
    }

    fn geglu_forward(&self, gate: &CpuBuffer, up: &CpuBuffer, out: &mut CpuBuffer, n: usize) -> Result<()> {
        let ops = Operands("geglu_forward");
        let (gate, up) = (ops.f32(gate, "gate", n)?, ops.f32(up, "up", n)?);
        self.each_part(ops.f32_mut(out, "out", n)?, |range, out| {
            activation::geglu_forward(self.isa, &gate[range.clone()], &up[range], out);
        });
        Ok(())
    }

    fn relu_forward(&self, x: &CpuBuffer, out: &mut CpuBuffer, n: usize) -> Result<()> {
        self.unary("relu_forward", activation::relu_forward, x, out, n)
    }

    fn sigmoid_forward(&self, x: &CpuBuffer, out: &mut CpuBuffer, n: usize) -> Result<()> {
        self.unary("sigmoid_forward", activation::sigmoid_forward, x, out, n)
    }

    fn scale_inplace(&self, x: &mut CpuBuffer, n: usize, scale: f32) -> Result<()> {
        let x = Operands("scale_inplace").f32_mut(x, "x", n)?;
        self.each_part(x, |_, part| part.iter_mut().for_each(|x| *x *= scale));
        Ok(())
    }

    fn residual_add(&self, residual: &mut CpuBuffer, x: &CpuBuffer, n: usize) -> Result<()> {
        let ops = Operands("residual_add");
        let x = ops.f32(x, "x", n)?;
        self.each_part(ops.f32_mut(residual, "residual", n)?, |range, part| {
            rows::add(self.isa, part, &x[range]);
        });
        Ok(())
    }

    fn residual_layernorm(
        &self,
        residual: &mut CpuBuffer,
        x: &CpuBuffer,
        gamma: &CpuBuffer,
        beta: &CpuBuffer,
        out: &mut CpuBuffer,
        n: usize,
        c: usize,
        eps: f32,
    ) -> Result<()> {
        let ops = Operands("residual_layernorm");
        let (gamma, beta) = (ops.f32(gamma, "gamma", c)?, ops.f32(beta, "beta", c)?);
        let args = NormArgs { gamma, beta: Some(beta), eps };
        self.residual_norm(ops, residual, x, args, out, n, c)
    }

    fn residual_rmsnorm(
        &self,
        residual: &mut CpuBuffer,
        x: &CpuBuffer,
        gamma: &CpuBuffer,
        out: &mut CpuBuffer,
        n: usize,
        c: usize,
        eps: f32,
    ) -> Result<()> {
        let ops = Operands("residual_rmsnorm");
        let args = NormArgs { gamma: ops.f32(gamma, "gamma", c)?, beta: None, eps };
        self.residual_norm(ops, residual, x, args, out, n, c)
    }

    fn argmax_sample(&self, logits: &CpuBuffer, out: &mut CpuBuffer, rows: usize, v: usize) -> Result<()> {
        let ops = Operands("argmax_sample");
        let logits = ops.f32(logits, "logits", rows * v)?;
        let out = ops.i32_mut(out, "out", rows)?;
        let out = Parts::new(out);
        self.pool.run_ranges(rows, GRAIN.div_ceil(v.max(1)), |range| {
            for row in range {
                // SAFETY: the ranges are disjoint.
                #[allow(unsafe_code)]
                let out = unsafe { out.get(row..row + 1) };
                out[0] = sampling::argmax(self.isa, &logits[row * v..][..v]) as i32;
            }
        });
        Ok(())
    }

    fn topk_mask(&self, logits: &mut CpuBuffer, rows: usize, v: usize, k: usize) -> Result<()> {
        let logits = Operands("topk_mask").f32_mut(logits, "logits", rows * v)?;
        self.each_row(logits, v, |_, row| sampling::topk(row, k));
        Ok(())
    }

    fn softcap_logits(&self, logits: &mut CpuBuffer, rows: usize, v: usize, cap: f32) -> Result<()> {
        let logits = Operands("softcap_logits").f32_mut(logits, "logits", rows * v)?;
        self.each_part(logits, |_, part| sampling::softcap(self.isa, part, cap));
        Ok(())
    }

    fn temperature_scale(
        &self,
        logits: &mut CpuBuffer,
        rows: usize,
        v: usize,
        temperature: f32,
    ) -> Result<()> {
        let logits = Operands("temperature_scale").f32_mut(logits, "logits", rows * v)?;
        self.each_part(logits, |_, part| {
            sampling::divide(self.isa, part, temperature);
        });
        Ok(())
    }

    fn penalize_logits(
        &self,
        logits: &mut CpuBuffer,
        tokens: &CpuBuffer,
        counts: &CpuBuffer,
        v: usize,
        m: usize,
        repeat: f32,
        presence: f32,
        frequency: f32,
    ) -> Result<()> {
        let ops = Operands("penalize_logits");
        let tokens = ops.indices(tokens, "tokens", m, v)?;
        let counts = ops.i32(counts, "counts", m)?;
        let logits = ops.f32_mut(logits, "logits", v)?;
        for (&token, &count) in tokens.iter().zip(counts) {
            let x = &mut logits[token as usize];
            *x = sampling::penalized(*x, count, repeat, presence, frequency);
        }
        Ok(())
    }

    fn draw_sample(
        &self,
        logits: &CpuBuffer,
        positions: &CpuBuffer,
        seeds: &CpuBuffer,
        out: &mut CpuBuffer,
        rows: usize,
        v: usize,
        top_p: f32,
        min_p: f32,
    ) -> Result<()> {
        let ops = Operands("draw_sample");
        if !(1..=MOST_DRAWN_FROM).contains(&v) {
            return Err(Error::shape(ops.0, "V", v, format!("1 to {MOST_DRAWN_FROM}")));
        }
        let logits = ops.f32(logits, "logits", rows * v)?;
        let positions = ops.i32(positions, "positions", rows)?;
        let seeds = ops.i32(seeds, "seeds", 2 * rows)?.as_chunks().0;
        let out = ops.i32_mut(out, "out", rows)?;
        let rows = logits.chunks_exact(v).zip(positions).zip(seeds).zip(out);
        for (((x, &position), &seed), out) in rows {
            let point = draw::Point { seed: seed_of(seed), position, top_p, min_p };
            *out = draw::draw(self.isa, x, draw::top_of(self.isa, x), point);
        }
        Ok(())
    }

    fn flash_attention_forward(
        &self,
        q: &CpuBuffer,
        k: &CpuBuffer,
        v: &CpuBuffer,
        out: &mut CpuBuffer,
        bh: usize,
        t: usize,
        hs: usize,
    ) -> Result<()> {
        self.flash("flash_attention_forward", [q, k, v], out, Square { bh, t, hs }, 0, 0.0)
    }

    fn flash_attention_masked(
        &self,
        q: &CpuBuffer,
        k: &CpuBuffer,
        v: &CpuBuffer,
        out: &mut CpuBuffer,
        bh: usize,
        t: usize,
        hs: usize,
        window: usize,
        cap: f32,
    ) -> Result<()> {
        self.flash("flash_attention_masked", [q, k, v], out, Square { bh, t, hs }, window, cap)
    }

    fn matmul(&self, x: &CpuBuffer, weight: &CpuMatrix, out: &mut CpuBuffer, n: usize) -> Result<()> {
        let ops = Operands("matmul");
        let x = ops.f32(x, "x", n * weight.cols)?;
        let out = ops.f32_mut(out, "out", n * weight.rows)?;
        self.products(x, n, [Product { weight, bias: None, out }]);
        Ok(())
    }

    fn bias_add(&self, x: &mut CpuBuffer, bias: &CpuBuffer, n: usize, c: usize) -> Result<()> {
        let ops = Operands("bias_add");
        let bias = ops.f32(bias, "bias", c)?;
        self.each_row(ops.f32_mut(x, "x", n * c)?, c, |_, row| {
            rows::add(self.isa, row, bias);
        });
        Ok(())
    }

    fn split_heads(
        &self,
        x: &CpuBuffer,
        out: &mut CpuBuffer,
        heads: HeadRows,
        width: usize,
        column: usize,
    ) -> Result<()> {
        let ops = Operands("split_heads");
        let HeadRows { n_head, first_row, rows, t, hs } = heads;
        let x = ops.f32(x, "x", (first_row + rows) * width)?;
        let out = ops.f32_mut(out, "out", n_head * t * hs)?;
        self.each_row(out, hs, |i, to| match (i % t + rows).checked_sub(t) {
            Some(row) => {
                let at = (first_row + row) * width + column + i / t * hs;
                to.copy_from_slice(&x[at..][..hs]);
            }
            None => to.fill(0.0),
        });
        Ok(())
    }

    fn merge_heads(&self, x: &CpuBuffer, out: &mut CpuBuffer, heads: HeadRows) -> Result<()> {
        let ops = Operands("merge_heads");
        let HeadRows { n_head, first_row, rows, t, hs } = heads;
        let width = n_head * hs;
        let x = ops.f32(x, "x", n_head * t * hs)?;
        let out = ops.f32_mut(out, "out", (first_row + rows) * width)?;
        self.each_row(&mut out[first_row * width..], width, |row, to| {
            for (head, to) in to.chunks_exact_mut(hs).enumerate() {
                to.copy_from_slice(&x[(head * t + t - rows + row) * hs..][..hs]);
            }
        });
        Ok(())
    }

    fn rope_rows(
        &self,
        x: &mut CpuBuffer,
        freqs: &CpuBuffer,
        positions: &CpuBuffer,
        columns: HeadColumns,
        n: usize,
    ) -> Result<()> {
        let ops = Operands("rope_rows");
        let hs = columns.hs;
        if hs == 0 || !hs.is_multiple_of(2) {
            return Err(Error::shape("rope_rows", "hs", hs, "even"));
        }
        let freqs = ops.f32(freqs, "freqs", 0).and(Ok(freqs.all::<f32>()))?;
        let positions = ops.indices(positions, "positions", n, freqs.len() / hs)?;
        self.each_head(ops, x, columns, n, |row, head| {
            rows::rotate(head, &freqs[positions[row] as usize * hs..][..hs]);
        })
    }

    fn cache_write(
        &self,
        qkv: &CpuBuffer,
        slots: &CpuBuffer,
        cache: &mut KvLayer<Self>,
        n: usize,
        n_head: usize,
    ) -> Result<()> {
        with_cached!(cache.shape.dtype, self.write_cache(qkv, slots, cache, n, n_head))
    }

    fn cache_gather(
        &self,
        cache: &KvLayer<Self>,
        block_tables: &CpuBuffer,
        table: usize,
        k: &mut CpuBuffer,
        v: &mut CpuBuffer,
        t: usize,
        n_head: usize,
    ) -> Result<()> {
        with_cached!(cache.shape.dtype, self.gather_cache(cache, block_tables, table, k, v, t, n_head))
    }

    fn advance_rows(
        &self,
        chosen: &CpuBuffer,
        step: &mut Step<Self>,
        history: &mut CpuBuffer,
        kept: usize,
        block_size: usize,
    ) -> Result<()> {
        let ops = Operands("advance_rows");
        let (n, width) = (step.rows(), step.max_blocks);
        let chosen = ops.i32(chosen, "chosen", n)?;
        let tables = ops.i32(&step.block_tables, "block_table", n * width)?;
        let history = ops.i32_mut(history, "history", n * kept)?;
        let tokens = ops.i32_mut(&mut step.tokens, "tokens", n)?;
        let positions = ops.i32_mut(&mut step.positions, "positions", n)?;
        let slots = ops.i32_mut(&mut step.slots, "slots", n)?;
        let lengths = ops.i32_mut(&mut step.lengths, "lengths", n)?;
        for i in 0..n {
            tokens[i] = chosen[i].max(0);
            positions[i] += 1;
            lengths[i] = positions[i] + 1;
            let position = positions[i] as usize;
            let block = tables[i * width..][..width].get(position / block_size);
            slots[i] = block.map_or(-1, |block| block * block_size as i32 + (position % block_size) as i32);
            history[i * kept + position % kept] = chosen[i];
        }
        Ok(())
    }

    fn linear(&self, x: &CpuBuffer, linear: &Linear<Self>, out: &mut CpuBuffer, n: usize) -> Result<()> {
        let ops = Operands("linear");
        let x = ops.f32(x, "x", n * linear.weight.cols)?;
        self.products(x, n, [product(ops, linear, out, n)?]);
        Ok(())
    }

    /// Both in one pass over the threads, the activations quantised once.
    fn linear_pair(
        &self,
        x: &CpuBuffer,
        [a, b]: [&Linear<Self>; 2],
        [out_a, out_b]: [&mut CpuBuffer; 2],
        n: usize,
    ) -> Result<()> {
        let ops = Operands("linear_pair");
        if a.weight.cols != b.weight.cols {
            return Err(Error::shape(ops.0, "columns", b.weight.cols, a.weight.cols.to_string()));
        }
        let x = ops.f32(x, "x", n * a.weight.cols)?;
        self.products(x, n, [product(ops, a, out_a, n)?, product(ops, b, out_b, n)?]);
        Ok(())
    }

    /// Over the pages themselves, a few rows of queries at a time.
    fn attention(
        &self,
        acts: &mut Activations<Self>,
        cache: &mut KvLayer<Self>,
        step: &Step<Self>,
        shape: AttentionShape,
    ) -> Result<()> {
        let ops = Operands("attention");
        let (nh, hs, n) = (shape.n_head, shape.head_dim, step.rows());
        self.cache_write(&acts.qkv, &step.slots, cache, n, nh)?;
        let kv = cache.shape;
        let tables = ops.indices(
            &step.block_tables,
            "block_tables",
            step.batch.spans.len() * step.max_blocks,
            kv.n_blocks,
        )?;
        let spans = step.batch.spans.iter().enumerate().map(|(i, span)| Rows {
            first_row: span.first_row,
            rows: span.rows,
            start: span.start,
            table: &tables[i * step.max_blocks..][..span.blocks],
        });
        let attention = Attention {
            q: ops.f32(&acts.qkv, "qkv", n * shape.qkv_width())?,
            q_strides: Strides { row: shape.qkv_width(), head: hs },
            out_strides: Strides { row: nh * hs, head: hs },
            n_head: nh,
            keys: cache.k.bytes(),
            values: cache.v.bytes(),
            pages: Pages::of(&kv),
            dtype: kv.dtype,
            scoring: Scoring::of(&shape),
        };
        let out = ops.f32_mut(&mut acts.attn, "attn", n * nh * hs)?;
        let spans: Vec<_> = spans.collect();
        attention.run(self.isa, &self.pool, &spans, out);
        Ok(())
    }
}

/// The checked operands of a linear layer over `n` rows.
fn product<'a>(
    ops: Operands,
    linear: &'a Linear<Cpu>,
    out: &'a mut CpuBuffer,
    n: usize,
) -> Result<Product<'a>> {
    let weight = &linear.weight;
    let bias = linear.bias.as_ref().map(|(bias, _)| ops.f32(bias, "bias", weight.rows)).transpose()?;
    Ok(Product { weight, bias, out: ops.f32_mut(out, "out", n * weight.rows)? })
}

impl Cpu {
    fn unary(
        &self,
        kernel: &'static str,
        f: fn(Isa, &[f32], &mut [f32]),
        x: &CpuBuffer,
        out: &mut CpuBuffer,
        n: usize,
    ) -> Result<()> {
        let ops = Operands(kernel);
        let x = ops.f32(x, "x", n)?;
        self.each_part(ops.f32_mut(out, "out", n)?, |range, out| {
            f(self.isa, &x[range], out);
        });
        Ok(())
    }

    fn flash(
        &self,
        kernel: &'static str,
        [q, k, v]: [&CpuBuffer; 3],
        out: &mut CpuBuffer,
        square: Square,
        window: usize,
        cap: f32,
    ) -> Result<()> {
        let (ops, len) = (Operands(kernel), square.len());
        let inputs = [ops.f32(q, "Q", len)?, ops.f32(k, "K", len)?, ops.f32(v, "V", len)?];
        square.flash(self.isa, &self.pool, inputs, ops.f32_mut(out, "out", len)?, window, cap)
    }

    /// `f(row, head)` on each of the heads of `columns` in `n` rows of `x`.
    fn each_head(
        &self,
        ops: Operands,
        x: &mut CpuBuffer,
        columns: HeadColumns,
        n: usize,
        f: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<()> {
        let HeadColumns { width, column, n_head, hs } = columns;
        if column + n_head * hs > width {
            let need = format!("at least {}", column + n_head * hs);
            return Err(Error::shape(ops.0, "width", width, need));
        }
        let x = ops.f32_mut(x, "x", n * width)?;
        self.each_row(x, width, |row, values| {
            values[column..][..n_head * hs].chunks_exact_mut(hs.max(1)).for_each(|head| f(row, head));
        });
        Ok(())
    }

    fn residual_norm(
        &self,
        ops: Operands,
        residual: &mut CpuBuffer,
        x: &CpuBuffer,
        args: NormArgs<'_>,
        out: &mut CpuBuffer,
        n: usize,
        c: usize,
    ) -> Result<()> {
        let x = ops.f32(x, "x", n * c)?;
        let residual = Parts::new(ops.f32_mut(residual, "residual", n * c)?);
        self.each_row(ops.f32_mut(out, "out", n * c)?, c, |i, row| {
            // SAFETY: row `i` belongs to one thread.
            #[allow(unsafe_code)]
            let residual = unsafe { residual.get(i * c..(i + 1) * c) };
            rows::add(self.isa, residual, &x[i * c..][..c]);
            rows::norm(self.isa, residual, args, row);
        });
        Ok(())
    }

    fn write_cache<T: Cached>(
        &self,
        qkv: &CpuBuffer,
        slots: &CpuBuffer,
        cache: &mut KvLayer<Self>,
        n: usize,
        n_head: usize,
    ) -> Result<()> {
        let ops = Operands("cache_write");
        let KvShape { n_blocks, block_size, n_kv_head, head_dim: hs, .. } = cache.shape;
        let width = (n_head + 2 * n_kv_head) * hs;
        let qkv = ops.f32(qkv, "qkv", n * width)?;
        let slots = ops.i32(slots, "slots", n)?;
        let limit = n_blocks * block_size;
        if let Some(at) = slots.iter().position(|&slot| slot >= 0 && slot as usize >= limit) {
            let (kernel, operand, index) = (ops.0, "slots", i64::from(slots[at]));
            return Err(Error::Index { kernel, operand, at, index, limit });
        }
        let pages = Pages::of(&cache.shape);
        let (key_tile, value_tile) = (T::key_tile(&pages), T::value_tile(&pages));
        let keys = Parts::new(cache.k.elements_mut::<T>());
        let values = Parts::new(cache.v.elements_mut::<T>());
        // a head's keys are one task, its values another
        let write = |task: usize| {
            let (head, is_value) = (task / 2, task % 2 == 1);
            let (column, tiles, len) = if is_value {
                (n_head + n_kv_head + head, &values, value_tile)
            } else {
                (n_head + head, &keys, key_tile)
            };
            for (row, &slot) in qkv.chunks_exact(width).zip(slots) {
                let Ok(slot) = usize::try_from(slot) else {
                    continue;
                };
                let x = &row[column * hs..][..hs];
                let tile = pages.tile_of(slot, head);
                // SAFETY: the tiles of one head's keys, or of its values, are written by one task alone.
                #[allow(unsafe_code)]
                let tile = unsafe { tiles.get(tile * len..(tile + 1) * len) };
                if is_value { T::store_value(tile, slot, x) } else { T::store_key(tile, slot, x) }
            }
        };
        if n < WRITE_GRAIN {
            (0..2 * n_kv_head).for_each(write);
        } else {
            self.pool.run(2 * n_kv_head, write);
        }
        Ok(())
    }

    fn gather_cache<T: Cached>(
        &self,
        cache: &KvLayer<Self>,
        block_tables: &CpuBuffer,
        table: usize,
        k: &mut CpuBuffer,
        v: &mut CpuBuffer,
        t: usize,
        n_head: usize,
    ) -> Result<()> {
        let ops = Operands("cache_gather");
        let KvShape { n_blocks, block_size, n_kv_head, head_dim: hs, .. } = cache.shape;
        let blocks = t.div_ceil(block_size);
        let tables = ops.indices(block_tables, "block_tables", table + blocks, n_blocks)?;
        let table = &tables[table..];
        let pages = Pages::of(&cache.shape);
        let group = n_head / n_kv_head;
        let slot = |token: usize| table[token / block_size] as usize * block_size + token % block_size;
        let len = n_head * t * hs;
        let (k, v) = (ops.f32_mut(k, "K", len)?, ops.f32_mut(v, "V", len)?);
        let (keys, values) = (cache.k.elements::<T>(), cache.v.elements::<T>());
        let (key_tile, value_tile) = (T::key_tile(&pages), T::value_tile(&pages));
        self.each_row(k, hs, |i, row| {
            let (slot, head) = (slot(i % t), i / t / group);
            T::load_key(&keys[pages.tile_of(slot, head) * key_tile..][..key_tile], slot, row);
        });
        self.each_row(v, hs, |i, row| {
            let (slot, head) = (slot(i % t), i / t / group);
            T::load_value(&values[pages.tile_of(slot, head) * value_tile..][..value_tile], slot, row);
        });
        Ok(())
    }
}
