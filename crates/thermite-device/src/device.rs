//! The trait that every device implements: one method a kernel, memory, and the diagram's boxes.

use std::fmt;
use std::sync::Arc;

use thermite_formats::{FileBytes, quant};

use crate::boxes::{self, Activations, AttentionShape, AttentionWeights, Linear, MlpWeights, Norm};
use crate::{Error, Result, Step, WeightType};

/// The type of a buffer's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE single precision: activations, norms, logits.
    F32,
    /// IEEE half precision: weights and KV cache.
    F16,
    /// The upper half of a float32: weights.
    BF16,
    /// Token ids, positions, slots and rows.
    I32,
    /// Logits as keys that sort: what a top-k search leaves between its kernels.
    U32,
    /// Bytes: weights in quantised blocks.
    U8,
    /// 32 numbers in eight bits and a scale, as GGUF's Q8_0 has them: KV cache.
    Q8_0,
}

impl Dtype {
    /// Bytes an element.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::U8 => 1,
            Self::Q8_0 => 34,
        }
    }

    /// Values an element.
    #[must_use]
    pub const fn values(self) -> usize {
        match self {
            Self::Q8_0 => 32,
            _ => 1,
        }
    }

    /// The element type in which weights of that type are stored; none for blocks, and for what weights are not.
    #[must_use]
    pub const fn of_weights(dtype: WeightType) -> Option<Self> {
        match dtype {
            WeightType::F32 => Some(Self::F32),
            WeightType::F16 => Some(Self::F16),
            WeightType::BF16 => Some(Self::BF16),
            _ => None,
        }
    }
}

impl From<Dtype> for WeightType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::BF16,
            Dtype::I32 => Self::I32,
            Dtype::U32 => Self::U32,
            Dtype::U8 => Self::U8,
            Dtype::Q8_0 => Self::Q8_0,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::I32 => "i32",
            Self::U32 => "u32",
            Self::U8 => "u8",
            Self::Q8_0 => "q8_0",
        })
    }
}

/// How the values of a [`MatrixView`] lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[rows, cols]`, a row contiguous: `nn.Linear`, embeddings.
    RowMajor,
    /// `[cols, rows]`, a column contiguous: GPT-2's `Conv1D`.
    ColumnMajor,
}

/// A weight matrix in host memory, little-endian, of any alignment. A row is one output of
/// [`Device::matmul`], or one entry of an embedding table.
#[derive(Debug, Clone, Copy)]
pub struct MatrixView<'a> {
    /// Type of the values: `F32`, `F16`, `BF16`, or blocks of one of GGUF's quantised types.
    pub dtype: WeightType,
    /// Outputs of the product.
    pub rows: usize,
    /// Inputs of the product; of quantised types whole blocks.
    pub cols: usize,
    /// Which of the two dimensions is contiguous: of quantised types the columns of a row.
    pub layout: Layout,
    /// `rows * cols` values.
    pub bytes: &'a [u8],
}

/// What matrices become when they are stacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stacked {
    /// Rows of all parts.
    pub(crate) rows: usize,
    /// Columns of each part.
    pub(crate) cols: usize,
    /// The type of all parts, if they have one in common.
    pub(crate) dtype: Option<WeightType>,
}

impl MatrixView<'_> {
    /// Rows, columns and type of `parts` stacked.
    ///
    /// # Errors
    /// No parts, parts of different widths, one whose bytes are not as many as its shape says, a type that weights do
    /// not have, or blocks that lie across rows.
    pub(crate) fn stacked(parts: &[Self]) -> Result<Stacked> {
        let [first, ..] = parts else {
            return Err(Error::shape("matrix", "number of parts", 0, "at least 1"));
        };
        let cols = first.cols;
        for part in parts {
            let dtype = part.dtype;
            if Dtype::of_weights(dtype).is_none() && !dtype.is_quantized() {
                return Err(Error::shape("matrix", "dtype", dtype, "F32, F16, BF16 or a block type"));
            }
            if part.cols != cols {
                let have = format!("{dtype} [{}, {}]", part.rows, part.cols);
                return Err(Error::shape("matrix", "a part", have, format!("{cols} columns wide")));
            }
            if dtype.is_quantized() && part.layout == Layout::ColumnMajor {
                return Err(Error::shape("matrix", "layout", "column-major", "row-major in blocks"));
            }
            let Some(need) = dtype.bytes_of(&[part.rows, cols]) else {
                let need = format!("a multiple of {} for {dtype}", dtype.block_len());
                return Err(Error::shape("matrix", "columns", cols, need));
            };
            if part.bytes.len() != need {
                return Err(Error::Size { kernel: "matrix", operand: "bytes", have: part.bytes.len(), need });
            }
        }
        let dtype = Some(first.dtype).filter(|&dtype| parts.iter().all(|part| part.dtype == dtype));
        Ok(Stacked { rows: parts.iter().map(|part| part.rows).sum(), cols, dtype })
    }

    /// The values as floats, in the order in which they lie.
    pub(crate) fn to_f32(self) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.rows * self.cols];
        quant::dequantize(self.dtype, self.bytes, &mut values)
            .map_err(|e| Error::shape("matrix", "dtype", self.dtype, e.to_string()))?;
        Ok(values)
    }
}

/// The geometry of one layer's paged KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Blocks in the pool.
    pub n_blocks: usize,
    /// Tokens a block.
    pub block_size: usize,
    /// Key and value heads.
    pub n_kv_head: usize,
    /// Channels a head.
    pub head_dim: usize,
    /// Type of the stored keys and values: `F32`, `F16`, or on the CPU `Q8_0`, whose elements lie along a head.
    pub dtype: Dtype,
}

impl KvShape {
    /// Bytes of the keys and values of one layer.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        let values = 2 * self.n_blocks * self.block_size * self.n_kv_head * self.head_dim;
        values / self.dtype.values() * self.dtype.bytes()
    }
}

/// One layer's keys and values, in pages. The layout within a block is the device's own: only
/// [`Device::cache_write`], [`Device::cache_gather`] and the attention boxes look inside.
#[derive(Debug)]
pub struct KvLayer<D: Device> {
    /// Geometry.
    pub shape: KvShape,
    /// Keys.
    pub k: D::Buffer,
    /// Values.
    pub v: D::Buffer,
}

/// A machine that runs the kernels.
///
/// Notation: `n` rows (tokens), `c` channels, `nh` heads, `hs` head size, `t` sequence length, `v` vocabulary.
/// Buffers come in the kernel's order; a buffer may be larger than the shape asks for, never smaller.
/// All float buffers are `f32` unless said otherwise; index buffers are `i32`.
///
/// Work may be queued: errors of the device itself surface at the latest in [`Device::submit`] or a read.
pub trait Device: Send + Sync + Sized + 'static {
    /// A linear piece of device memory.
    type Buffer: fmt::Debug + Send + Sync;
    /// A weight matrix in the layout that suits the device.
    type Matrix: fmt::Debug + Send + Sync;
    /// Launches recorded once, to be started together.
    type Recording: fmt::Debug + Send + Sync;
    /// A place in the queue.
    type Mark: Send + Sync;

    /// A line for people: which machine, with what.
    fn describe(&self) -> String;

    // ---- memory

    /// A new buffer of `len` zeros.
    fn alloc(&self, dtype: Dtype, len: usize) -> Result<Self::Buffer>;
    /// Copies `data` to the start of `dst`.
    fn write_f32(&self, dst: &mut Self::Buffer, data: &[f32]) -> Result<()>;
    /// Copies `data` to the start of `dst`.
    fn write_i32(&self, dst: &mut Self::Buffer, data: &[i32]) -> Result<()>;
    /// Copies `out.len()` elements of `src`, from element `first` on, after all work queued before.
    fn read_f32(&self, src: &Self::Buffer, first: usize, out: &mut [f32]) -> Result<()>;
    /// As [`Device::read_f32`].
    fn read_i32(&self, src: &Self::Buffer, first: usize, out: &mut [i32]) -> Result<()>;
    /// Tells the device of a file in whose bytes the weights of coming matrices lie. A device that can use them there keeps
    /// the file.
    fn adopt(&self, _file: &Arc<FileBytes>) -> Result<()> {
        Ok(())
    }
    /// The matrices `parts`, stacked: all of one width, their rows one after another. Their types may differ.
    fn matrix(&self, parts: &[MatrixView<'_>]) -> Result<Self::Matrix>;
    /// Bytes of memory that a matrix takes beside the file it came from: none where it lies in the file's own pages.
    fn matrix_bytes(&self, matrix: &Self::Matrix) -> usize;
    /// The type in which keys and values are kept where nobody says: the one that the device's quickest kernels read.
    fn kv_dtype(&self) -> Dtype {
        Dtype::F32
    }
    /// Rows at most whose attention a decoding step splits into pieces of the cache; none where it never does.
    fn split_rows(&self) -> usize {
        0
    }
    /// An empty cache of `shape`.
    fn kv_layer(&self, shape: KvShape) -> Result<KvLayer<Self>>;
    /// Starts what is queued and waits for it.
    fn submit(&self) -> Result<()>;
    /// Bytes a second in one pass over the floats of `buffer`: the limit of decode, where the buffer is as large as the
    /// weights. It must have been written: pages that never were are all one. None where the device does not measure it.
    fn read_bandwidth(&self, _buffer: &Self::Buffer) -> Result<Option<f64>> {
        Ok(None)
    }

    /// Whether the launches of a step depend on nothing but its [form](crate::Step::form), so that they can be recorded.
    /// Where they cannot, nothing else of the kind is called.
    fn records(&self) -> bool {
        false
    }
    /// Records what `work` launches, to be started by [`Device::replay`]; none of it runs now. Work that allocates,
    /// writes, reads or waits is refused.
    fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Self::Recording>>;
    /// Starts what was recorded, after everything queued before.
    fn replay(&self, recording: &Self::Recording) -> Result<()>;
    /// Marks what is queued so far.
    fn mark(&self) -> Result<Self::Mark>;
    /// As [`Device::read_i32`], but after what was queued before `mark` alone: what is queued since goes on meanwhile, and
    /// must not write what is read.
    fn read_after(&self, mark: &Self::Mark, src: &Self::Buffer, first: usize, out: &mut [i32]) -> Result<()>;

    /// A new buffer that holds `data`.
    fn upload_f32(&self, data: &[f32]) -> Result<Self::Buffer> {
        let mut buffer = self.alloc(Dtype::F32, data.len())?;
        self.write_f32(&mut buffer, data)?;
        Ok(buffer)
    }

    // ---- embedding.metal

    /// `out[i] = weight[tokens[i]]`; `tokens` `[n]`, `out` `[n, c]`, `weight` `[vocab, c]`.
    fn embedding_forward(
        &self,
        weight: &Self::Matrix,
        tokens: &Self::Buffer,
        out: &mut Self::Buffer,
        n: usize,
    ) -> Result<()>;
    /// `x[i] += weight[positions[i]]`; `positions` `[n]`, `x` `[n, c]`, `weight` `[n_positions, c]`.
    fn positional_embedding_add(
        &self,
        weight: &Self::Matrix,
        positions: &Self::Buffer,
        x: &mut Self::Buffer,
        n: usize,
    ) -> Result<()>;
    /// `out[i] = x[rows[i]]`; `rows` `[m]`, `out` `[m, c]`, `x` `[*, c]`.
    fn gather_rows(
        &self,
        x: &Self::Buffer,
        rows: &Self::Buffer,
        out: &mut Self::Buffer,
        m: usize,
        c: usize,
    ) -> Result<()>;

    // ---- layernorm.metal

    /// `out = (x - mean) / sqrt(var + eps) * gamma + beta` over each of `n` rows of `c`; `mean` and `rstd`
    /// `[n]` are written where given.
    fn layernorm_forward(
        &self,
        x: &Self::Buffer,
        gamma: &Self::Buffer,
        beta: &Self::Buffer,
        out: &mut Self::Buffer,
        mean: Option<&mut Self::Buffer>,
        rstd: Option<&mut Self::Buffer>,
        n: usize,
        c: usize,
        eps: f32,
    ) -> Result<()>;
    /// `out = x / sqrt(mean(x^2) + eps) * gamma` over each of `n` rows of `c`.
    fn rmsnorm_forward(
        &self,
        x: &Self::Buffer,
        gamma: &Self::Buffer,
        out: &mut Self::Buffer,
        n: usize,
        c: usize,
        eps: f32,
    ) -> Result<()>;

    /// `rmsnorm_forward` of each head on its own, in place: the heads of `columns` in each of `n` rows of `x`; `gamma`
    /// `[hs]`.
    fn rmsnorm_heads(
        &self,
        x: &mut Self::Buffer,
        gamma: &Self::Buffer,
        columns: HeadColumns,
        n: usize,
        eps: f32,
    ) -> Result<()>;

    // ---- attention.metal

    /// `att[h, i, j] = q[h, i] . k[h, j] / sqrt(hs)`, `-inf` where `j > i`; `q`, `k` `[bh, t, hs]`,
    /// `att` `[bh, t, t]`.
    fn attention_scores(
        &self,
        q: &Self::Buffer,
        k: &Self::Buffer,
        att: &mut Self::Buffer,
        bh: usize,
        t: usize,
        hs: usize,
    ) -> Result<()>;
    /// What some models do to scores before the softmax, in place: `cap * tanh(att / cap)` where `cap` is not 0, and
    /// `-inf` where `j > i`, or where `window` is not 0 and `j + window <= i`; `att` `[bh, t, t]`.
    fn attention_mask(
        &self,
        att: &mut Self::Buffer,
        bh: usize,
        t: usize,
        window: usize,
        cap: f32,
    ) -> Result<()>;
    /// Softmax over each of `n` rows of `t`, in place. A row of `-inf` becomes zeros.
    fn softmax_inplace(&self, x: &mut Self::Buffer, n: usize, t: usize) -> Result<()>;
    /// `out[h, i] = sum over j <= i of att[h, i, j] * v[h, j]`; `v`, `out` `[bh, t, hs]`, `att` `[bh, t, t]`.
    fn attention_mix(
        &self,
        att: &Self::Buffer,
        v: &Self::Buffer,
        out: &mut Self::Buffer,
        bh: usize,
        t: usize,
        hs: usize,
    ) -> Result<()>;
    /// Rotates the pairs `(x[i], x[i + hs/2])` by the angle whose cosine and sine are
    /// `freqs[position, 2i]` and `freqs[position, 2i + 1]`; `x` `[bh, t, hs]`, `freqs` `[t, hs]`.
    fn rope_forward(
        &self,
        x: &mut Self::Buffer,
        freqs: &Self::Buffer,
        bh: usize,
        t: usize,
        hs: usize,
    ) -> Result<()>;

    // ---- activation.metal

    /// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`, for `n` values.
    fn gelu_forward(&self, x: &Self::Buffer, out: &mut Self::Buffer, n: usize) -> Result<()>;
    /// `x / (1 + e^-x)`, for `n` values.
    fn silu_forward(&self, x: &Self::Buffer, out: &mut Self::Buffer, n: usize) -> Result<()>;
    /// `silu(gate) * up`, for `n` values.
    fn swiglu_forward(
        &self,
        gate: &Self::Buffer,
        up: &Self::Buffer,
        out: &mut Self::Buffer,
        n: usize,
    ) -> Result<()>;
    /// `gelu(gate) * up`, for `n` values.
    fn geglu_forward(
        &self,
        gate: &Self::Buffer,
        up: &Self::Buffer,
        out: &mut Self::Buffer,
        n: usize,
    ) -> Result<()>;
    /// `max(0, x)`, for `n` values; NaN stays NaN.
    fn relu_forward(&self, x: &Self::Buffer, out: &mut Self::Buffer, n: usize) -> Result<()>;
    /// `1 / (1 + e^-x)`, for `n` values.
    fn sigmoid_forward(&self, x: &Self::Buffer, out: &mut Self::Buffer, n: usize) -> Result<()>;
    /// `x *= scale`, for `n` values.
    fn scale_inplace(&self, x: &mut Self::Buffer, n: usize, scale: f32) -> Result<()>;

    // ---- residual.metal

    /// `residual += x`, for `n` values.
    fn residual_add(&self, residual: &mut Self::Buffer, x: &Self::Buffer, n: usize) -> Result<()>;
    /// `residual += x; out = layernorm(residual)` over each of `n` rows of `c`.
    fn residual_layernorm(
        &self,
        residual: &mut Self::Buffer,
        x: &Self::Buffer,
        gamma: &Self::Buffer,
        beta: &Self::Buffer,
        out: &mut Self::Buffer,
        n: usize,
        c: usize,
        eps: f32,
    ) -> Result<()>;
    /// `residual += x; out = rmsnorm(residual)` over each of `n` rows of `c`.
    fn residual_rmsnorm(
        &self,
        residual: &mut Self::Buffer,
        x: &Self::Buffer,
        gamma: &Self::Buffer,
        out: &mut Self::Buffer,
        n: usize,
        c: usize,
        eps: f32,
    ) -> Result<()>;

    // ---- sampling.metal: one threadgroup a row of the vocabulary

    /// Index of the largest of each row: ties to the lowest index, NaN below everything; `out` `i32 [rows]`.
    fn argmax_sample(
        &self,
        logits: &Self::Buffer,
        out: &mut Self::Buffer,
        rows: usize,
        v: usize,
    ) -> Result<()>;
    /// Keeps exactly the `k` largest of each row (ties to the lowest index), the rest become `-inf`.
    fn topk_mask(&self, logits: &mut Self::Buffer, rows: usize, v: usize, k: usize) -> Result<()>;
    /// `cap * tanh(x / cap)`.
    fn softcap_logits(&self, logits: &mut Self::Buffer, rows: usize, v: usize, cap: f32) -> Result<()>;
    /// `x / temperature`.
    fn temperature_scale(
        &self,
        logits: &mut Self::Buffer,
        rows: usize,
        v: usize,
        temperature: f32,
    ) -> Result<()>;
    /// For each of `m` distinct `tokens`, seen `counts` times, in one row of `v` logits: a positive logit is
    /// divided by `repeat`, another multiplied; then `presence + frequency * count` is taken away.
    fn penalize_logits(
        &self,
        logits: &mut Self::Buffer,
        tokens: &Self::Buffer,
        counts: &Self::Buffer,
        v: usize,
        m: usize,
        repeat: f32,
        presence: f32,
        frequency: f32,
    ) -> Result<()>;

    // ---- draw.metal

    /// An index of each row, drawn by the row's softmax; `out` `i32 [rows]`. Only those are drawn that `top_p` keeps (the
    /// likeliest, until they have that share of the probability; all for 1) and `min_p` (those at least that fraction as
    /// likely as the likeliest; all for 0). Row `i` is drawn with the random numbers of `seeds[i]` (`i32 [rows, 2]`, see
    /// [`seed_words`](crate::draw::seed_words)) at `positions[i]`, and the same logits give the same index on every device.
    /// A NaN is never drawn; -1 stands where nothing can be: where no logit is above `-inf`, or one is `inf`. `v` is at
    /// most 2^22.
    fn draw_sample(
        &self,
        logits: &Self::Buffer,
        positions: &Self::Buffer,
        seeds: &Self::Buffer,
        out: &mut Self::Buffer,
        rows: usize,
        v: usize,
        top_p: f32,
        min_p: f32,
    ) -> Result<()>;

    // ---- flash_attention.metal

    /// Causal attention in one pass over the keys, never holding a `[t, t]` matrix; all `[bh, t, hs]`.
    fn flash_attention_forward(
        &self,
        q: &Self::Buffer,
        k: &Self::Buffer,
        v: &Self::Buffer,
        out: &mut Self::Buffer,
        bh: usize,
        t: usize,
        hs: usize,
    ) -> Result<()>;

    /// [`Device::flash_attention_forward`] with the scores of [`Device::attention_mask`].
    fn flash_attention_masked(
        &self,
        q: &Self::Buffer,
        k: &Self::Buffer,
        v: &Self::Buffer,
        out: &mut Self::Buffer,
        bh: usize,
        t: usize,
        hs: usize,
        window: usize,
        cap: f32,
    ) -> Result<()>;

    // ---- linear.metal, and the vendor's matmul

    /// `out[i, o] = sum over k of x[i, k] * weight[o, k]`; `x` `[n, cols]`, `out` `[n, rows]`. One row's sum is
    /// taken in the same order whatever `n` is.
    fn matmul(&self, x: &Self::Buffer, weight: &Self::Matrix, out: &mut Self::Buffer, n: usize)
    -> Result<()>;
    /// `x[i] += bias` over `n` rows of `c`.
    fn bias_add(&self, x: &mut Self::Buffer, bias: &Self::Buffer, n: usize, c: usize) -> Result<()>;

    // ---- paging.metal: ragged batches and the paged KV cache

    /// The queries of one span of a fused QKV row, by head: columns `column + h * hs ..` of rows
    /// `first_row .. first_row + rows` of `x` `[*, width]` go to the last `rows` rows of `out` `[nh, t, hs]`,
    /// whose other rows become zero.
    fn split_heads(
        &self,
        x: &Self::Buffer,
        out: &mut Self::Buffer,
        heads: HeadRows,
        width: usize,
        column: usize,
    ) -> Result<()>;
    /// The inverse: the last `rows` rows of `x` `[nh, t, hs]` go to rows `first_row ..` of `out` `[*, nh * hs]`.
    fn merge_heads(&self, x: &Self::Buffer, out: &mut Self::Buffer, heads: HeadRows) -> Result<()>;
    /// [`Device::rope_forward`] of the heads of `columns` in each of `n` rows of `x`, row `i` at `positions[i]`; `freqs`
    /// `[n_positions, hs]`.
    fn rope_rows(
        &self,
        x: &mut Self::Buffer,
        freqs: &Self::Buffer,
        positions: &Self::Buffer,
        columns: HeadColumns,
        n: usize,
    ) -> Result<()>;
    /// Stores the keys and values of `n` fused QKV rows (`n_head + 2 n_kv_head` heads wide) in the cache, row
    /// `i` at `slots[i]` = block * block_size + offset. A negative slot is skipped.
    fn cache_write(
        &self,
        qkv: &Self::Buffer,
        slots: &Self::Buffer,
        cache: &mut KvLayer<Self>,
        n: usize,
        n_head: usize,
    ) -> Result<()>;
    /// The first `t` keys and values of one sequence, out of its pages: `k`, `v` `[n_head, t, hs]`; head `h`
    /// reads cache head `h / (n_head / n_kv_head)`. The sequence's blocks are `block_tables[table ..]`.
    fn cache_gather(
        &self,
        cache: &KvLayer<Self>,
        block_tables: &Self::Buffer,
        table: usize,
        k: &mut Self::Buffer,
        v: &mut Self::Buffer,
        t: usize,
        n_head: usize,
    ) -> Result<()>;

    /// From one decoding step to the next, for each of its rows: `chosen[i]` becomes the row's token, one position further
    /// on, in the slot that its table says (-1 behind the table's end). It is kept in `history` `[n, kept]`, at its
    /// position modulo `kept`; a negative one, which is no token, is kept as well, and the row goes on with token 0. The
    /// host's copy of the step stays as it was.
    fn advance_rows(
        &self,
        chosen: &Self::Buffer,
        step: &mut Step<Self>,
        history: &mut Self::Buffer,
        kept: usize,
        block_size: usize,
    ) -> Result<()>;

    // ---- the boxes of the diagram

    /// `out = x W^T + b`.
    fn linear(
        &self,
        x: &Self::Buffer,
        linear: &Linear<Self>,
        out: &mut Self::Buffer,
        n: usize,
    ) -> Result<()> {
        boxes::linear(self, x, linear, out, n)
    }
    /// Two linear layers of one input: the gate of an MLP and what it lets through.
    fn linear_pair(
        &self,
        x: &Self::Buffer,
        linears: [&Linear<Self>; 2],
        outs: [&mut Self::Buffer; 2],
        n: usize,
    ) -> Result<()> {
        linears.into_iter().zip(outs).try_for_each(|(linear, out)| self.linear(x, linear, out, n))
    }
    /// Attention of the step's rows over the cache, into which their keys and values go first.
    fn attention(
        &self,
        acts: &mut Activations<Self>,
        cache: &mut KvLayer<Self>,
        step: &Step<Self>,
        shape: AttentionShape,
    ) -> Result<()> {
        boxes::attention(self, acts, cache, step, shape)
    }
    /// Norm, QKV projection, attention, output projection: reads `acts.residual`, leaves its sum's other
    /// half in `acts.branch`.
    fn attention_block(
        &self,
        weights: &AttentionWeights<Self>,
        acts: &mut Activations<Self>,
        cache: &mut KvLayer<Self>,
        step: &Step<Self>,
        shape: AttentionShape,
    ) -> Result<()> {
        boxes::attention_block(self, weights, acts, cache, step, shape)
    }
    /// Adds `acts.branch` to the residual, norm, up, activation, down, and adds that too.
    fn mlp_block(
        &self,
        weights: &MlpWeights<Self>,
        acts: &mut Activations<Self>,
        step: &Step<Self>,
    ) -> Result<()> {
        boxes::mlp_block(self, weights, acts, step)
    }
    /// A transformer layer: attention block and MLP block. Kernels that are fused across the two go here.
    fn layer(
        &self,
        attention: &AttentionWeights<Self>,
        mlp: &MlpWeights<Self>,
        acts: &mut Activations<Self>,
        cache: &mut KvLayer<Self>,
        step: &Step<Self>,
        shape: AttentionShape,
    ) -> Result<()> {
        boxes::layer(self, attention, mlp, acts, cache, step, shape)
    }
    /// The logits of the step's output rows: final norm and head.
    fn lm_head(
        &self,
        norm: &Norm<Self>,
        head: &Self::Matrix,
        acts: &mut Activations<Self>,
        step: &Step<Self>,
    ) -> Result<()> {
        boxes::lm_head(self, norm, head, acts, step)
    }
}

/// Which rows of a ragged batch are which rows of a head-major tensor `[n_head, t, hs]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadRows {
    /// Heads.
    pub n_head: usize,
    /// First row of the span in the batch.
    pub first_row: usize,
    /// Rows of the span; they are the last ones of `t`.
    pub rows: usize,
    /// Length of the head-major tensor.
    pub t: usize,
    /// Channels a head.
    pub hs: usize,
}

/// Heads side by side in the rows of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadColumns {
    /// Width of a row.
    pub width: usize,
    /// Column of the first head.
    pub column: usize,
    /// Heads.
    pub n_head: usize,
    /// Channels a head.
    pub hs: usize,
}
