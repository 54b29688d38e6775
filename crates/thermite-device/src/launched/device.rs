//! [`Device`] in launches: one line of dimensions and one of buffers a kernel.

use std::sync::Arc;

use thermite_formats::FileBytes;
use thermite_kernels::contract::attention_tiles;

use super::matrix::suffix;
use super::{
    Argument, Launched, LaunchedMatrix, Launcher, Product, Variants, attention, boxes, optional, rows, whole,
};
use crate::{
    Activations, AttentionShape, AttentionWeights, Device, Dtype, Error, HeadColumns, HeadRows, KvLayer,
    KvShape, Linear, MatrixView, MlpWeights, Norm, Result, Step,
};

impl<L: Launcher> Device for Launched<L> {
    type Buffer = L::Buffer;
    type Matrix = LaunchedMatrix<L::Buffer>;
    type Recording = L::Recording;
    type Mark = L::Mark;

    fn describe(&self) -> String {
        match self.variants {
            Variants::Plain => format!("{}, plain kernels", self.launcher.describe()),
            Variants::Fast => self.launcher.describe(),
            Variants::Invariant => format!("{}, batch-invariant kernels", self.launcher.describe()),
        }
    }

    fn alloc(&self, dtype: Dtype, len: usize) -> Result<L::Buffer> {
        self.launcher.alloc(dtype, len)
    }
    fn write_f32(&self, dst: &mut L::Buffer, data: &[f32]) -> Result<()> {
        self.launcher.write(dst, bytemuck::cast_slice(data))
    }
    fn write_i32(&self, dst: &mut L::Buffer, data: &[i32]) -> Result<()> {
        self.launcher.write(dst, bytemuck::cast_slice(data))
    }
    fn read_f32(&self, src: &L::Buffer, first: usize, out: &mut [f32]) -> Result<()> {
        self.launcher.read(src, first * 4, bytemuck::cast_slice_mut(out))
    }
    fn read_i32(&self, src: &L::Buffer, first: usize, out: &mut [i32]) -> Result<()> {
        self.launcher.read(src, first * 4, bytemuck::cast_slice_mut(out))
    }
    fn adopt(&self, file: &Arc<FileBytes>) -> Result<()> {
        self.launcher.adopt(file)
    }
    fn matrix(&self, parts: &[MatrixView<'_>]) -> Result<Self::Matrix> {
        LaunchedMatrix::upload(&self.launcher, parts)
    }
    fn matrix_bytes(&self, matrix: &Self::Matrix) -> usize {
        matrix.own_bytes()
    }
    fn kv_dtype(&self) -> Dtype {
        match self.variants {
            Variants::Plain => Dtype::F32,
            Variants::Fast | Variants::Invariant => Dtype::F16,
        }
    }
    fn split_rows(&self) -> usize {
        attention::SPLIT_ROWS
    }
    fn kv_layer(&self, shape: KvShape) -> Result<KvLayer<Self>> {
        if shape.block_size == 0 {
            return Err(Error::shape("kv_layer", "block_size", 0, "at least 1"));
        }
        if shape.dtype == Dtype::Q8_0 {
            return Err(Error::KvType { device: self.describe(), have: shape.dtype });
        }
        let len = shape.n_blocks * shape.n_kv_head * shape.block_size * shape.head_dim;
        Ok(KvLayer { shape, k: self.alloc(shape.dtype, len)?, v: self.alloc(shape.dtype, len)? })
    }
    fn submit(&self) -> Result<()> {
        self.launcher.submit()
    }
    fn records(&self) -> bool {
        self.is_fast() && self.launcher.records()
    }
    fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<L::Recording>> {
        self.launcher.record(work)
    }
    fn replay(&self, recording: &L::Recording) -> Result<()> {
        self.launcher.replay(recording)
    }
    fn mark(&self) -> Result<L::Mark> {
        self.launcher.mark()
    }
    fn read_after(&self, mark: &L::Mark, src: &L::Buffer, first: usize, out: &mut [i32]) -> Result<()> {
        self.launcher.read_after(mark, src, first * 4, bytemuck::cast_slice_mut(out))
    }

    fn embedding_forward(
        &self,
        weight: &Self::Matrix,
        tokens: &L::Buffer,
        out: &mut L::Buffer,
        n: usize,
    ) -> Result<()> {
        let name = format!("embedding_forward{}", weight.suffix());
        let name = if weight.is_quantized() { name } else { self.vectored(&name, weight.cols) };
        let dims = [("N", n), ("C", weight.cols), ("vocab", weight.rows)];
        self.run(&name, &dims, &[whole(&weight.buffer), whole(tokens), whole(out)], &[])
    }
    fn positional_embedding_add(
        &self,
        weight: &Self::Matrix,
        positions: &L::Buffer,
        x: &mut L::Buffer,
        n: usize,
    ) -> Result<()> {
        let name = format!("positional_embedding_add{}", weight.suffix());
        let dims = [("N", n), ("C", weight.cols), ("n_positions", weight.rows)];
        self.run(&name, &dims, &[whole(&weight.buffer), whole(positions), whole(x)], &[])
    }
    fn gather_rows(
        &self,
        x: &L::Buffer,
        rows: &L::Buffer,
        out: &mut L::Buffer,
        m: usize,
        c: usize,
    ) -> Result<()> {
        let n_rows = L::shape(x).1.checked_div(c).unwrap_or(0);
        let dims = [("N", m), ("C", c), ("n_rows", n_rows)];
        self.run("gather_rows", &dims, &[whole(x), whole(rows), whole(out)], &[])
    }

    fn layernorm_forward(
        &self,
        x: &L::Buffer,
        gamma: &L::Buffer,
        beta: &L::Buffer,
        out: &mut L::Buffer,
        mean: Option<&mut L::Buffer>,
        rstd: Option<&mut L::Buffer>,
        n: usize,
        c: usize,
        eps: f32,
    ) -> Result<()> {
        let statistics = [optional(mean.as_deref()), optional(rstd.as_deref())];
        let buffers = [whole(x), whole(gamma), whole(beta), whole(out), statistics[0], statistics[1]];
        self.run(&self.vectored("layernorm_forward", c), &[("N", n), ("C", c)], &buffers, &[eps])
    }
    fn rmsnorm_forward(
        &self,
        x: &L::Buffer,
        gamma: &L::Buffer,
        out: &mut L::Buffer,
        n: usize,
        c: usize,
        eps: f32,
    ) -> Result<()> {
        let buffers = [whole(x), whole(gamma), whole(out)];
        self.run(&self.vectored("rmsnorm_forward", c), &[("N", n), ("C", c)], &buffers, &[eps])
    }

    fn rmsnorm_heads(
        &self,
        x: &mut L::Buffer,
        gamma: &L::Buffer,
        columns: HeadColumns,
        n: usize,
        eps: f32,
    ) -> Result<()> {
        self.run("rmsnorm_heads", &in_columns(columns, n), &[whole(x), whole(gamma)], &[eps])
    }
    fn attention_scores(
        &self,
        q: &L::Buffer,
        k: &L::Buffer,
        att: &mut L::Buffer,
        bh: usize,
        t: usize,
        hs: usize,
    ) -> Result<()> {
        let dims = [("heads", bh), ("T", t), ("hs", hs)];
        self.run(&self.vectored("attention_scores", hs), &dims, &[whole(q), whole(k), whole(att)], &[])
    }
    fn attention_mask(
        &self,
        att: &mut L::Buffer,
        bh: usize,
        t: usize,
        window: usize,
        cap: f32,
    ) -> Result<()> {
        let dims = [("heads", bh), ("T", t), ("window", window)];
        self.run("attention_mask", &dims, &[whole(att)], &[cap])
    }
    fn softmax_inplace(&self, x: &mut L::Buffer, n: usize, t: usize) -> Result<()> {
        self.run(&self.vectored("softmax_inplace", t), &[("N", n), ("T", t)], &[whole(x)], &[])
    }
    fn attention_mix(
        &self,
        att: &L::Buffer,
        v: &L::Buffer,
        out: &mut L::Buffer,
        bh: usize,
        t: usize,
        hs: usize,
    ) -> Result<()> {
        let dims = [("heads", bh), ("T", t), ("hs", hs)];
        self.run(&self.vectored("attention_mix", hs), &dims, &[whole(att), whole(v), whole(out)], &[])
    }
    fn rope_forward(
        &self,
        x: &mut L::Buffer,
        freqs: &L::Buffer,
        bh: usize,
        t: usize,
        hs: usize,
    ) -> Result<()> {
        self.run("rope_forward", &[("heads", bh), ("T", t), ("hs", hs)], &[whole(x), whole(freqs)], &[])
    }

    fn gelu_forward(&self, x: &L::Buffer, out: &mut L::Buffer, n: usize) -> Result<()> {
        self.elementwise("gelu_forward", &[whole(x), whole(out)], n)
    }
    fn silu_forward(&self, x: &L::Buffer, out: &mut L::Buffer, n: usize) -> Result<()> {
        self.elementwise("silu_forward", &[whole(x), whole(out)], n)
    }
    fn swiglu_forward(&self, gate: &L::Buffer, up: &L::Buffer, out: &mut L::Buffer, n: usize) -> Result<()> {
        self.elementwise("swiglu_forward", &[whole(gate), whole(up), whole(out)], n)
    }
    fn geglu_forward(&self, gate: &L::Buffer, up: &L::Buffer, out: &mut L::Buffer, n: usize) -> Result<()> {
        self.elementwise("geglu_forward", &[whole(gate), whole(up), whole(out)], n)
    }
    fn relu_forward(&self, x: &L::Buffer, out: &mut L::Buffer, n: usize) -> Result<()> {
        self.elementwise("relu_forward", &[whole(x), whole(out)], n)
    }
    fn sigmoid_forward(&self, x: &L::Buffer, out: &mut L::Buffer, n: usize) -> Result<()> {
        self.elementwise("sigmoid_forward", &[whole(x), whole(out)], n)
    }

    fn scale_inplace(&self, x: &mut L::Buffer, n: usize, scale: f32) -> Result<()> {
        self.run(&self.vectored("scale_inplace", 4), &[("N", n)], &[whole(x)], &[scale])
    }
    fn residual_add(&self, residual: &mut L::Buffer, x: &L::Buffer, n: usize) -> Result<()> {
        self.elementwise("residual_add", &[whole(residual), whole(x)], n)
    }
    fn residual_layernorm(
        &self,
        residual: &mut L::Buffer,
        x: &L::Buffer,
        gamma: &L::Buffer,
        beta: &L::Buffer,
        out: &mut L::Buffer,
        n: usize,
        c: usize,
        eps: f32,
    ) -> Result<()> {
        let buffers = [whole(residual), whole(x), whole(gamma), whole(beta), whole(out)];
        self.run(&self.vectored("residual_layernorm", c), &[("N", n), ("C", c)], &buffers, &[eps])
    }
    fn residual_rmsnorm(
        &self,
        residual: &mut L::Buffer,
        x: &L::Buffer,
        gamma: &L::Buffer,
        out: &mut L::Buffer,
        n: usize,
        c: usize,
        eps: f32,
    ) -> Result<()> {
        let buffers = [whole(residual), whole(x), whole(gamma), whole(out)];
        self.run(&self.vectored("residual_rmsnorm", c), &[("N", n), ("C", c)], &buffers, &[eps])
    }

    fn argmax_sample(&self, logits: &L::Buffer, out: &mut L::Buffer, rows: usize, v: usize) -> Result<()> {
        let Some((values, indices, parts)) = self.argmax_parts(rows, v)? else {
            return self.run("argmax_sample", &[("rows", rows), ("V", v)], &[whole(logits), whole(out)], &[]);
        };
        let dims = [("rows", rows), ("V", v), ("P", parts)];
        self.run("argmax_parts", &dims, &[whole(logits), whole(values), whole(indices)], &[])?;
        self.run("argmax_final", &dims, &[whole(values), whole(indices), whole(out)], &[])
    }
    fn topk_mask(&self, logits: &mut L::Buffer, rows: usize, v: usize, k: usize) -> Result<()> {
        self.run("topk_mask", &[("rows", rows), ("V", v), ("k", k)], &[whole(logits)], &[])
    }
    fn softcap_logits(&self, logits: &mut L::Buffer, rows: usize, v: usize, cap: f32) -> Result<()> {
        self.run("softcap_logits", &[("rows", rows), ("V", v)], &[whole(logits)], &[cap])
    }
    fn temperature_scale(
        &self,
        logits: &mut L::Buffer,
        rows: usize,
        v: usize,
        temperature: f32,
    ) -> Result<()> {
        self.run("temperature_scale", &[("rows", rows), ("V", v)], &[whole(logits)], &[temperature])
    }
    fn penalize_logits(
        &self,
        logits: &mut L::Buffer,
        tokens: &L::Buffer,
        counts: &L::Buffer,
        v: usize,
        m: usize,
        repeat: f32,
        presence: f32,
        frequency: f32,
    ) -> Result<()> {
        let buffers = [whole(logits), whole(tokens), whole(counts)];
        self.run("penalize_logits", &[("V", v), ("M", m)], &buffers, &[repeat, presence, frequency])
    }

    fn draw_sample(
        &self,
        logits: &L::Buffer,
        positions: &L::Buffer,
        seeds: &L::Buffer,
        out: &mut L::Buffer,
        rows: usize,
        v: usize,
        top_p: f32,
        min_p: f32,
    ) -> Result<()> {
        let buffers = [whole(logits), whole(positions), whole(seeds), whole(out)];
        self.run("draw_sample", &[("rows", rows), ("V", v)], &buffers, &[top_p, min_p])
    }

    fn flash_attention_forward(
        &self,
        q: &L::Buffer,
        k: &L::Buffer,
        v: &L::Buffer,
        out: &mut L::Buffer,
        bh: usize,
        t: usize,
        hs: usize,
    ) -> Result<()> {
        let (br, bc) = self.tiles("flash_attention_forward", hs)?;
        let dims = [("heads", bh), ("T", t), ("hs", hs), ("Br", br), ("Bc", bc)];
        self.run("flash_attention_forward", &dims, &[whole(q), whole(k), whole(v), whole(out)], &[])
    }

    fn flash_attention_masked(
        &self,
        q: &L::Buffer,
        k: &L::Buffer,
        v: &L::Buffer,
        out: &mut L::Buffer,
        bh: usize,
        t: usize,
        hs: usize,
        window: usize,
        cap: f32,
    ) -> Result<()> {
        let (br, bc) = self.tiles("flash_attention_masked", hs)?;
        let dims = [("heads", bh), ("T", t), ("hs", hs), ("Br", br), ("Bc", bc), ("window", window)];
        self.run("flash_attention_masked", &dims, &[whole(q), whole(k), whole(v), whole(out)], &[cap])
    }

    fn matmul(&self, x: &L::Buffer, weight: &Self::Matrix, out: &mut L::Buffer, n: usize) -> Result<()> {
        if self.is_fast() || weight.is_quantized() {
            let product = Product { x, weight, bias: None, accumulates: false, out, n };
            return rows::product(self, &product);
        }
        let dims = [("N", n), ("K", weight.cols), ("M", weight.rows)];
        let buffers = [whole(x), whole(&weight.buffer), whole(out)];
        self.run(&format!("linear_forward{}", weight.suffix()), &dims, &buffers, &[])
    }
    fn bias_add(&self, x: &mut L::Buffer, bias: &L::Buffer, n: usize, c: usize) -> Result<()> {
        self.run("bias_add", &[("N", n), ("C", c)], &[whole(x), whole(bias)], &[])
    }

    fn split_heads(
        &self,
        x: &L::Buffer,
        out: &mut L::Buffer,
        heads: HeadRows,
        width: usize,
        column: usize,
    ) -> Result<()> {
        let HeadRows { n_head, first_row, rows, t, hs } = heads;
        let dims = [
            ("N", first_row + rows),
            ("W", width),
            ("nh", n_head),
            ("T", t),
            ("hs", hs),
            ("first_row", first_row),
            ("rows", rows),
            ("column", column),
        ];
        self.run("split_heads", &dims, &[whole(x), whole(out)], &[])
    }
    fn merge_heads(&self, x: &L::Buffer, out: &mut L::Buffer, heads: HeadRows) -> Result<()> {
        let HeadRows { n_head, first_row, rows, t, hs } = heads;
        let dims = [
            ("N", first_row + rows),
            ("nh", n_head),
            ("T", t),
            ("hs", hs),
            ("first_row", first_row),
            ("rows", rows),
        ];
        self.run("merge_heads", &dims, &[whole(x), whole(out)], &[])
    }
    fn rope_rows(
        &self,
        x: &mut L::Buffer,
        freqs: &L::Buffer,
        positions: &L::Buffer,
        columns: HeadColumns,
        n: usize,
    ) -> Result<()> {
        let mut dims = in_columns(columns, n).to_vec();
        dims.push(("n_positions", L::shape(freqs).1 / columns.hs.max(1)));
        self.run("rope_rows", &dims, &[whole(x), whole(freqs), whole(positions)], &[])
    }
    fn cache_write(
        &self,
        qkv: &L::Buffer,
        slots: &L::Buffer,
        cache: &mut KvLayer<Self>,
        n: usize,
        n_head: usize,
    ) -> Result<()> {
        let KvShape { n_blocks, block_size, n_kv_head, head_dim: hs, dtype } = cache.shape;
        let dims = [
            ("N", n),
            ("W", (n_head + 2 * n_kv_head) * hs),
            ("k_column", n_head * hs),
            ("v_column", (n_head + n_kv_head) * hs),
            ("n_kv_head", n_kv_head),
            ("hs", hs),
            ("block_size", block_size),
            ("n_blocks", n_blocks),
        ];
        let buffers = [whole(qkv), whole(slots), whole(&cache.k), whole(&cache.v)];
        self.run(&format!("cache_write{}", suffix(dtype)), &dims, &buffers, &[])
    }
    fn cache_gather(
        &self,
        cache: &KvLayer<Self>,
        block_tables: &L::Buffer,
        table: usize,
        k: &mut L::Buffer,
        v: &mut L::Buffer,
        t: usize,
        n_head: usize,
    ) -> Result<()> {
        let KvShape { n_blocks, block_size, n_kv_head, head_dim: hs, dtype } = cache.shape;
        let dims = [
            ("T", t),
            ("hs", hs),
            ("nh", n_head),
            ("n_kv_head", n_kv_head),
            ("block_size", block_size),
            ("n_blocks", n_blocks),
        ];
        let table = Argument::Buffer { buffer: block_tables, first: table };
        let buffers = [whole(&cache.k), whole(&cache.v), table, whole(k), whole(v)];
        self.run(&format!("cache_gather{}", suffix(dtype)), &dims, &buffers, &[])
    }

    fn advance_rows(
        &self,
        chosen: &L::Buffer,
        step: &mut Step<Self>,
        history: &mut L::Buffer,
        kept: usize,
        block_size: usize,
    ) -> Result<()> {
        let dims =
            [("N", step.rows()), ("kept", kept), ("block_size", block_size), ("max_blocks", step.max_blocks)];
        let buffers = [
            whole(chosen),
            whole(&step.block_tables),
            whole(&step.tokens),
            whole(&step.positions),
            whole(&step.slots),
            whole(&step.lengths),
            whole(history),
        ];
        self.run("advance_rows", &dims, &buffers, &[])
    }
    fn attention(
        &self,
        acts: &mut Activations<Self>,
        cache: &mut KvLayer<Self>,
        step: &Step<Self>,
        shape: AttentionShape,
    ) -> Result<()> {
        attention::attention(self, acts, cache, step, shape)
    }
    fn linear(&self, x: &L::Buffer, linear: &Linear<Self>, out: &mut L::Buffer, n: usize) -> Result<()> {
        rows::linear(self, x, linear, out, n)
    }
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

/// Values, indices, and how many there are a row.
type ArgmaxParts<'a, L> = (&'a <L as Launcher>::Buffer, &'a <L as Launcher>::Buffer, usize);

/// Logits that a threadgroup looks through when a row is shared out.
const ARGMAX_PART: usize = 512;
/// Threadgroups at most that share a row.
const MOST_ARGMAX_PARTS: usize = 128;
/// Parts of all rows together, at most.
const ARGMAX_ROOM: usize = 64 * MOST_ARGMAX_PARTS;

/// Rows from which simdgroup matrices are faster than reading the weights for each row, where results may depend on it.
const MATRIX_ROWS: usize = 5;
/// Rows up to which products of simdgroup matrices take the kernel for few rows.
const FEW_ROWS: usize = 64;
/// Multiply-adds up to which that kernel is faster than the vendor's: its rows' reads then come from the cache.
const SMALL_PRODUCT: usize = 1 << 26;

/// The dimensions of heads in `n` rows.
fn in_columns(columns: HeadColumns, n: usize) -> [(&'static str, usize); 5] {
    let HeadColumns { width, column, n_head, hs } = columns;
    [("N", n), ("W", width), ("column", column), ("n_head", n_head), ("hs", hs)]
}

impl<L: Launcher> Launched<L> {
    /// Rows of queries and of keys in the tiles of the plain flash kernels.
    fn tiles(&self, kernel: &str, hs: usize) -> Result<(usize, usize)> {
        let tiles = attention_tiles(hs as u64, &self.launcher.limits());
        let failed = |reason: String| Error::Launch { kernel: kernel.to_owned(), reason };
        tiles.map(|(br, bc)| (br as usize, bc as usize)).map_err(|e| failed(e.to_string()))
    }

    pub(super) fn elementwise(
        &self,
        name: &str,
        buffers: &[Argument<'_, L::Buffer>],
        n: usize,
    ) -> Result<()> {
        // the vector variants cover the tail themselves
        self.run(&self.vectored(name, 4), &[("N", n)], buffers, &[])
    }

    /// Where the parts of rows of `v` logits leave their best, and how many parts; none where a row is not worth it.
    fn argmax_parts(&self, rows: usize, v: usize) -> Result<Option<ArgmaxParts<'_, L>>> {
        let parts = (v / ARGMAX_PART).min(MOST_ARGMAX_PARTS);
        if !self.is_fast() || parts < 4 || rows * parts > ARGMAX_ROOM {
            return Ok(None);
        }
        let (values, indices) = match self.argmax_room.get() {
            Some(room) => room,
            None => {
                let room = (self.alloc(Dtype::F32, ARGMAX_ROOM)?, self.alloc(Dtype::I32, ARGMAX_ROOM)?);
                self.argmax_room.get_or_init(|| room)
            }
        };
        Ok(Some((values, indices, parts)))
    }

    /// Whether a product of `n` rows goes to the kernel for few, whatever the vendor has.
    pub(super) fn takes_few(&self, weight: &LaunchedMatrix<L::Buffer>, n: usize) -> bool {
        let is_small = n >= MATRIX_ROWS && n * weight.rows * weight.cols <= SMALL_PRODUCT;
        weight.is_narrow() && n <= FEW_ROWS && (self.is_invariant() || self.is_fast() && is_small)
    }

    /// Whether a product of `n` rows that no vendor takes is one of simdgroup matrices.
    pub(super) fn takes_matrices(&self, weight: &LaunchedMatrix<L::Buffer>, n: usize) -> bool {
        weight.is_narrow() && (self.is_invariant() || self.is_fast() && n >= MATRIX_ROWS)
    }

    /// A product over simdgroup matrices, x rounded to the weights' type; those are narrow. A row's sum is the same whatever
    /// `n`.
    pub(super) fn matmul_simd(&self, product: &Product<'_, L::Buffer>) -> Result<()> {
        let &Product { x, weight, bias, accumulates, out, n } = product;
        let dims = [("N", n), ("K", weight.cols), ("M", weight.rows)];
        let residual = accumulates.then_some(out);
        let buffers = [whole(x), whole(&weight.buffer), whole(out), optional(bias), optional(residual)];
        let kernel = if n <= FEW_ROWS { "matmul_few" } else { "matmul_simd" };
        self.run(&format!("{kernel}{}", weight.suffix()), &dims, &buffers, &[])
    }

    /// `out = x W^T + bias + residual`, a simdgroup a row of `W`; `residual` may be `out`.
    pub(super) fn matvec(
        &self,
        x: &L::Buffer,
        weight: &LaunchedMatrix<L::Buffer>,
        bias: Option<&L::Buffer>,
        residual: Option<&L::Buffer>,
        out: &L::Buffer,
        n: usize,
    ) -> Result<()> {
        let dims = [("N", n), ("K", weight.cols), ("M", weight.rows)];
        let buffers = [whole(x), whole(&weight.buffer), whole(out), optional(bias), optional(residual)];
        let rows = if weight.is_quantized() { "" } else { rows_together(weight.rows) };
        self.run(&format!("matvec{}{rows}", weight.storage()), &dims, &buffers, &[])
    }
}

/// What the name of a matrix-vector kernel says of how many rows of the matrix a simdgroup takes: several where that leaves
/// enough simdgroups, since they share the reads of the vector. A row's sum is the same either way.
#[must_use]
pub const fn rows_together(rows: usize) -> &'static str {
    if rows >= 4096 { "_rows4" } else { "" }
}
