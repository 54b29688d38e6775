//! The device that records: every call becomes a [`Record`] with the names and shapes of its operands, and nothing
//! is computed. The data-flow diagram is printed from it.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};

use crate::boxes;
use crate::{
    Activations, AttentionShape, AttentionWeights, Device, Dtype, HeadColumns, HeadRows, KvLayer, KvShape,
    MatrixView, MlpWeights, Norm, Result, Step, WeightType,
};

/// A tensor that a kernel touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operand {
    /// Its name in the kernel's signature.
    pub name: &'static str,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its type.
    pub dtype: WeightType,
}

/// One kernel call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The box of the diagram it happened in: `embedding`, `attention_block`, `mlp_block`, `lm_head`.
    pub part: &'static str,
    /// The kernel.
    pub kernel: &'static str,
    /// What it reads.
    pub reads: Vec<Operand>,
    /// What it writes, or reads and writes.
    pub writes: Vec<Operand>,
}

/// A buffer of the trace: its size.
#[derive(Debug, Clone, Copy)]
pub struct TraceBuffer {
    dtype: Dtype,
    len: usize,
}

/// A matrix of the trace: its shape.
#[derive(Debug, Clone, Copy)]
pub struct TraceMatrix {
    dtype: WeightType,
    rows: usize,
    cols: usize,
}

#[derive(Debug, Default)]
struct Log {
    part: Option<&'static str>,
    records: Vec<Record>,
}

/// The device that records.
#[derive(Debug, Default)]
pub struct Trace {
    log: Mutex<Log>,
}

/// Operand lists, written as in a signature.
macro_rules! operands {
    ($($buffer:ident [$($dim:expr),*]),* $(,)?) => {
        vec![$(Operand { name: stringify!($buffer), shape: vec![$($dim),*], dtype: $buffer.dtype.into() }),*]
    };
}

impl TraceMatrix {
    fn operand(&self) -> Operand {
        Operand { name: "weight", shape: vec![self.rows, self.cols], dtype: self.dtype }
    }
}

impl Trace {
    /// A trace without records.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What has been recorded, which is then forgotten.
    #[must_use]
    pub fn take(&self) -> Vec<Record> {
        std::mem::take(&mut self.log().records)
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, kernel: &'static str, reads: Vec<Operand>, writes: Vec<Operand>) -> Result<()> {
        let mut log = self.log();
        // a kernel outside the boxes is the embedding's, or what follows a box
        let before = log.records.last().map_or("embedding", |record| record.part);
        let part = log.part.unwrap_or(before);
        log.records.push(Record { part, kernel, reads, writes });
        Ok(())
    }

    /// Records what `f` does as part of the box `part`.
    fn within(&self, part: &'static str, f: impl FnOnce() -> Result<()>) -> Result<()> {
        let before = self.log().part.replace(part);
        let result = f();
        self.log().part = before;
        result
    }

    fn unary(&self, kernel: &'static str, x: TraceBuffer, out: TraceBuffer, n: usize) -> Result<()> {
        self.record(kernel, operands![x[n]], operands![out[n]])
    }

    fn logits(&self, kernel: &'static str, logits: TraceBuffer, rows: usize, v: usize) -> Result<()> {
        self.record(kernel, vec![], operands![logits[rows, v]])
    }
}

impl Device for Trace {
    type Buffer = TraceBuffer;
    type Matrix = TraceMatrix;
    type Recording = Infallible;
    type Mark = ();

    fn describe(&self) -> String {
        "trace (records, computes nothing)".to_owned()
    }
    fn alloc(&self, dtype: Dtype, len: usize) -> Result<TraceBuffer> {
        Ok(TraceBuffer { dtype, len })
    }
    fn write_f32(&self, _dst: &mut TraceBuffer, _data: &[f32]) -> Result<()> {
        Ok(())
    }
    fn write_i32(&self, _dst: &mut TraceBuffer, _data: &[i32]) -> Result<()> {
        Ok(())
    }
    fn read_f32(&self, _src: &TraceBuffer, _first: usize, out: &mut [f32]) -> Result<()> {
        out.fill(0.0);
        Ok(())
    }
    fn read_i32(&self, _src: &TraceBuffer, _first: usize, out: &mut [i32]) -> Result<()> {
        out.fill(0);
        Ok(())
    }
    fn matrix(&self, parts: &[MatrixView<'_>]) -> Result<TraceMatrix> {
        let rows = parts.iter().map(|part| part.rows).sum();
        let first = parts.first();
        Ok(TraceMatrix {
            dtype: first.map_or(WeightType::F32, |part| part.dtype),
            rows,
            cols: first.map_or(0, |part| part.cols),
        })
    }
    fn matrix_bytes(&self, _matrix: &TraceMatrix) -> usize {
        0
    }
    fn kv_layer(&self, shape: KvShape) -> Result<KvLayer<Self>> {
        let buffer = TraceBuffer { dtype: shape.dtype, len: shape.bytes() / 2 / shape.dtype.bytes() };
        Ok(KvLayer { shape, k: buffer, v: buffer })
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

    fn embedding_forward(
        &self,
        weight: &TraceMatrix,
        tokens: &TraceBuffer,
        out: &mut TraceBuffer,
        n: usize,
    ) -> Result<()> {
        let mut reads = vec![weight.operand()];
        reads.extend(operands![tokens[n]]);
        self.record("embedding_forward", reads, operands![out[n, weight.cols]])
    }
    fn positional_embedding_add(
        &self,
        weight: &TraceMatrix,
        positions: &TraceBuffer,
        x: &mut TraceBuffer,
        n: usize,
    ) -> Result<()> {
        let mut reads = vec![weight.operand()];
        reads.extend(operands![positions[n]]);
        self.record("positional_embedding_add", reads, operands![x[n, weight.cols]])
    }
    fn gather_rows(
        &self,
        x: &TraceBuffer,
        rows: &TraceBuffer,
        out: &mut TraceBuffer,
        m: usize,
        c: usize,
    ) -> Result<()> {
        let _ = x;
        self.record("gather_rows", operands![rows[m]], operands![out[m, c]])
    }
    fn layernorm_forward(
        &self,
        x: &TraceBuffer,
        gamma: &TraceBuffer,
        beta: &TraceBuffer,
        out: &mut TraceBuffer,
        mean: Option<&mut TraceBuffer>,
        rstd: Option<&mut TraceBuffer>,
        n: usize,
        c: usize,
        _eps: f32,
    ) -> Result<()> {
        let mut writes = operands![out[n, c]];
        if let Some(mean) = mean {
            writes.extend(operands![mean[n]]);
        }
        if let Some(rstd) = rstd {
            writes.extend(operands![rstd[n]]);
        }
        self.record("layernorm_forward", operands![x[n, c], gamma[c], beta[c]], writes)
    }
    fn rmsnorm_forward(
        &self,
        x: &TraceBuffer,
        gamma: &TraceBuffer,
        out: &mut TraceBuffer,
        n: usize,
        c: usize,
        _eps: f32,
    ) -> Result<()> {
        self.record("rmsnorm_forward", operands![x[n, c], gamma[c]], operands![out[n, c]])
    }
    fn rmsnorm_heads(
        &self,
        x: &mut TraceBuffer,
        gamma: &TraceBuffer,
        columns: HeadColumns,
        n: usize,
        _eps: f32,
    ) -> Result<()> {
        let HeadColumns { width, hs, .. } = columns;
        self.record("rmsnorm_heads", operands![gamma[hs]], operands![x[n, width]])
    }
    fn attention_scores(
        &self,
        q: &TraceBuffer,
        k: &TraceBuffer,
        att: &mut TraceBuffer,
        bh: usize,
        t: usize,
        hs: usize,
    ) -> Result<()> {
        let reads = operands![q[bh, t, hs], k[bh, t, hs]];
        self.record("attention_scores", reads, operands![att[bh, t, t]])
    }
    fn attention_mask(
        &self,
        att: &mut TraceBuffer,
        bh: usize,
        t: usize,
        _window: usize,
        _cap: f32,
    ) -> Result<()> {
        self.record("attention_mask", vec![], operands![att[bh, t, t]])
    }
    fn softmax_inplace(&self, x: &mut TraceBuffer, n: usize, t: usize) -> Result<()> {
        self.record("softmax_inplace", vec![], operands![x[n, t]])
    }
    fn attention_mix(
        &self,
        att: &TraceBuffer,
        v: &TraceBuffer,
        out: &mut TraceBuffer,
        bh: usize,
        t: usize,
        hs: usize,
    ) -> Result<()> {
        let reads = operands![att[bh, t, t], v[bh, t, hs]];
        self.record("attention_mix", reads, operands![out[bh, t, hs]])
    }
    fn rope_forward(
        &self,
        x: &mut TraceBuffer,
        freqs: &TraceBuffer,
        bh: usize,
        t: usize,
        hs: usize,
    ) -> Result<()> {
        self.record("rope_forward", operands![freqs[t, hs]], operands![x[bh, t, hs]])
    }
    fn gelu_forward(&self, x: &TraceBuffer, out: &mut TraceBuffer, n: usize) -> Result<()> {
        self.unary("gelu_forward", *x, *out, n)
    }
    fn silu_forward(&self, x: &TraceBuffer, out: &mut TraceBuffer, n: usize) -> Result<()> {
        self.unary("silu_forward", *x, *out, n)
    }
    fn swiglu_forward(
        &self,
        gate: &TraceBuffer,
        up: &TraceBuffer,
        out: &mut TraceBuffer,
        n: usize,
    ) -> Result<()> {
        self.record("swiglu_forward", operands![gate[n], up[n]], operands![out[n]])
    }
    fn geglu_forward(
        &self,
        gate: &TraceBuffer,
        up: &TraceBuffer,
        out: &mut TraceBuffer,
        n: usize,
    ) -> Result<()> {
        self.record("geglu_forward", operands![gate[n], up[n]], operands![out[n]])
    }
    fn relu_forward(&self, x: &TraceBuffer, out: &mut TraceBuffer, n: usize) -> Result<()> {
        self.unary("relu_forward", *x, *out, n)
    }
    fn sigmoid_forward(&self, x: &TraceBuffer, out: &mut TraceBuffer, n: usize) -> Result<()> {
        self.unary("sigmoid_forward", *x, *out, n)
    }
    fn scale_inplace(&self, x: &mut TraceBuffer, n: usize, _scale: f32) -> Result<()> {
        self.record("scale_inplace", vec![], operands![x[n]])
    }
    fn residual_add(&self, residual: &mut TraceBuffer, x: &TraceBuffer, n: usize) -> Result<()> {
        self.record("residual_add", operands![x[n]], operands![residual[n]])
    }
    fn residual_layernorm(
        &self,
        residual: &mut TraceBuffer,
        x: &TraceBuffer,
        gamma: &TraceBuffer,
        beta: &TraceBuffer,
        out: &mut TraceBuffer,
        n: usize,
        c: usize,
        _eps: f32,
    ) -> Result<()> {
        let reads = operands![x[n, c], gamma[c], beta[c]];
        self.record("residual_layernorm", reads, operands![residual[n, c], out[n, c]])
    }
    fn residual_rmsnorm(
        &self,
        residual: &mut TraceBuffer,
        x: &TraceBuffer,
        gamma: &TraceBuffer,
        out: &mut TraceBuffer,
        n: usize,
        c: usize,
        _eps: f32,
    ) -> Result<()> {
        let reads = operands![x[n, c], gamma[c]];
        self.record("residual_rmsnorm", reads, operands![residual[n, c], out[n, c]])
    }
    fn argmax_sample(
        &self,
        logits: &TraceBuffer,
        out: &mut TraceBuffer,
        rows: usize,
        v: usize,
    ) -> Result<()> {
        self.record("argmax_sample", operands![logits[rows, v]], operands![out[rows]])
    }
    fn topk_mask(&self, logits: &mut TraceBuffer, rows: usize, v: usize, _k: usize) -> Result<()> {
        self.logits("topk_mask", *logits, rows, v)
    }
    fn softcap_logits(&self, logits: &mut TraceBuffer, rows: usize, v: usize, _cap: f32) -> Result<()> {
        self.logits("softcap_logits", *logits, rows, v)
    }
    fn temperature_scale(
        &self,
        logits: &mut TraceBuffer,
        rows: usize,
        v: usize,
        _temperature: f32,
    ) -> Result<()> {
        self.logits("temperature_scale", *logits, rows, v)
    }
    fn penalize_logits(
        &self,
        logits: &mut TraceBuffer,
        tokens: &TraceBuffer,
        counts: &TraceBuffer,
        v: usize,
        m: usize,
        _repeat: f32,
        _presence: f32,
        _frequency: f32,
    ) -> Result<()> {
        self.record("penalize_logits", operands![tokens[m], counts[m]], operands![logits[v]])
    }
    fn draw_sample(
        &self,
        logits: &TraceBuffer,
        positions: &TraceBuffer,
        seeds: &TraceBuffer,
        out: &mut TraceBuffer,
        rows: usize,
        v: usize,
        _top_p: f32,
        _min_p: f32,
    ) -> Result<()> {
        let reads = operands![logits[rows, v], positions[rows], seeds[rows, 2]];
        self.record("draw_sample", reads, operands![out[rows]])
    }
    fn flash_attention_forward(
        &self,
        q: &TraceBuffer,
        k: &TraceBuffer,
        v: &TraceBuffer,
        out: &mut TraceBuffer,
        bh: usize,
        t: usize,
        hs: usize,
    ) -> Result<()> {
        let reads = operands![q[bh, t, hs], k[bh, t, hs], v[bh, t, hs]];
        self.record("flash_attention_forward", reads, operands![out[bh, t, hs]])
    }
    fn flash_attention_masked(
        &self,
        q: &TraceBuffer,
        k: &TraceBuffer,
        v: &TraceBuffer,
        out: &mut TraceBuffer,
        bh: usize,
        t: usize,
        hs: usize,
        _window: usize,
        _cap: f32,
    ) -> Result<()> {
        let reads = operands![q[bh, t, hs], k[bh, t, hs], v[bh, t, hs]];
        self.record("flash_attention_masked", reads, operands![out[bh, t, hs]])
    }
    fn matmul(&self, x: &TraceBuffer, weight: &TraceMatrix, out: &mut TraceBuffer, n: usize) -> Result<()> {
        let mut reads = operands![x[n, weight.cols]];
        reads.push(weight.operand());
        self.record("matmul", reads, operands![out[n, weight.rows]])
    }
    fn bias_add(&self, x: &mut TraceBuffer, bias: &TraceBuffer, n: usize, c: usize) -> Result<()> {
        self.record("bias_add", operands![bias[c]], operands![x[n, c]])
    }
    fn split_heads(
        &self,
        x: &TraceBuffer,
        out: &mut TraceBuffer,
        heads: HeadRows,
        width: usize,
        _column: usize,
    ) -> Result<()> {
        let HeadRows { n_head, rows, t, hs, .. } = heads;
        self.record("split_heads", operands![x[rows, width]], operands![out[n_head, t, hs]])
    }
    fn merge_heads(&self, x: &TraceBuffer, out: &mut TraceBuffer, heads: HeadRows) -> Result<()> {
        let HeadRows { n_head, rows, t, hs, .. } = heads;
        self.record("merge_heads", operands![x[n_head, t, hs]], operands![out[rows, n_head * hs]])
    }
    fn rope_rows(
        &self,
        x: &mut TraceBuffer,
        freqs: &TraceBuffer,
        positions: &TraceBuffer,
        columns: HeadColumns,
        n: usize,
    ) -> Result<()> {
        let HeadColumns { width, hs, .. } = columns;
        let reads = operands![freqs[freqs.len / hs.max(1), hs], positions[n]];
        self.record("rope_rows", reads, operands![x[n, width]])
    }
    fn cache_write(
        &self,
        qkv: &TraceBuffer,
        slots: &TraceBuffer,
        cache: &mut KvLayer<Self>,
        n: usize,
        n_head: usize,
    ) -> Result<()> {
        let KvShape { n_blocks, block_size, n_kv_head, head_dim, .. } = cache.shape;
        let width = (n_head + 2 * n_kv_head) * head_dim;
        let (k_cache, v_cache) = (cache.k, cache.v);
        let writes = operands![
            k_cache[n_blocks, n_kv_head, block_size, head_dim],
            v_cache[n_blocks, n_kv_head, block_size, head_dim]
        ];
        self.record("cache_write", operands![qkv[n, width], slots[n]], writes)
    }
    fn advance_rows(
        &self,
        chosen: &TraceBuffer,
        step: &mut Step<Self>,
        history: &mut TraceBuffer,
        kept: usize,
        _block_size: usize,
    ) -> Result<()> {
        let (n, width) = (step.rows(), step.max_blocks);
        let (block_table, tokens, positions) = (&step.block_tables, &step.tokens, &step.positions);
        let (slots, lengths) = (&step.slots, &step.lengths);
        let writes = operands![tokens[n], positions[n], slots[n], lengths[n], history[n, kept]];
        self.record("advance_rows", operands![chosen[n], block_table[n, width]], writes)
    }
    fn cache_gather(
        &self,
        cache: &KvLayer<Self>,
        block_tables: &TraceBuffer,
        _table: usize,
        k: &mut TraceBuffer,
        v: &mut TraceBuffer,
        t: usize,
        n_head: usize,
    ) -> Result<()> {
        let KvShape { n_blocks, block_size, n_kv_head, head_dim: hs, .. } = cache.shape;
        let (k_cache, v_cache) = (cache.k, cache.v);
        let reads = operands![
            k_cache[n_blocks, n_kv_head, block_size, hs],
            v_cache[n_blocks, n_kv_head, block_size, hs],
            block_tables[t.div_ceil(block_size)]
        ];
        self.record("cache_gather", reads, operands![k[n_head, t, hs], v[n_head, t, hs]])
    }

    fn attention_block(
        &self,
        weights: &AttentionWeights<Self>,
        acts: &mut Activations<Self>,
        cache: &mut KvLayer<Self>,
        step: &Step<Self>,
        shape: AttentionShape,
    ) -> Result<()> {
        self.within("attention_block", || boxes::attention_block(self, weights, acts, cache, step, shape))
    }
    fn mlp_block(
        &self,
        weights: &MlpWeights<Self>,
        acts: &mut Activations<Self>,
        step: &Step<Self>,
    ) -> Result<()> {
        self.within("mlp_block", || boxes::mlp_block(self, weights, acts, step))
    }
    fn lm_head(
        &self,
        norm: &Norm<Self>,
        head: &TraceMatrix,
        acts: &mut Activations<Self>,
        step: &Step<Self>,
    ) -> Result<()> {
        self.within("lm_head", || boxes::lm_head(self, norm, head, acts, step))
    }
}
