//! What every device must pass: each kernel's cases from [`thermite_kernels`], against their float64 oracles, through
//! the methods of [`Device`].

use std::collections::BTreeMap;

use half::{bf16, f16};
use thermite_kernels::conformance::{self, Argument, Case, Data, Failure};
use thermite_kernels::contract::contract_of;

use crate::{Device, Dtype, Error, HeadColumns, HeadRows, KvShape, Layout, MatrixView, Result, WeightType};

/// The outcome for one kernel.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Cases that passed.
    pub passed: usize,
    /// Cases that did not.
    pub failures: Vec<Failure>,
}

impl Outcome {
    pub(crate) fn add(&mut self, result: std::result::Result<(), Failure>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(failure) => self.failures.push(failure),
        }
    }
}

/// Runs every case of every kernel that `wanted` names; one outcome a kernel.
///
/// # Errors
/// If an embedded kernel source cannot be read.
pub fn run<D: Device>(
    device: &D,
    wanted: &dyn Fn(&str) -> bool,
) -> std::result::Result<BTreeMap<String, Outcome>, thermite_kernels::syntax::SyntaxError> {
    let mut outcomes: BTreeMap<String, Outcome> = BTreeMap::new();
    let mut runner = Runner { device };
    let taken = |name: &str| wanted(name) && is_method(name);
    conformance::each_case_of(&taken, &mut |case| {
        if !fits(&case) {
            return;
        }
        let outcome = outcomes.entry(case.kernel.clone()).or_default();
        outcome.add(conformance::check(&mut runner, &case));
    })?;
    Ok(outcomes)
}

/// Kernels whose cases run through a method of [`Device`], and what their tables may be stored as. Other instances
/// (`_v4`, half-precision activations) are choices that a device makes behind the same method.
fn is_method(name: &str) -> bool {
    const TABLES: [&str; 2] = ["embedding_forward", "positional_embedding_add"];
    let Some(contract) = contract_of(name) else { return false };
    let suffix = &name[contract.kernel.len()..];
    contract.kernel == "embedding_forward_q"
        || METHODS.contains(&contract.kernel)
            && (suffix.is_empty()
                || (TABLES.contains(&contract.kernel) && matches!(suffix, "_f16" | "_bf16")))
}

/// Every kernel of the reference, and those that ragged batches add. `cache_write` stands behind `cache_gather`.
const METHODS: &[&str] = &[
    "embedding_forward",
    "positional_embedding_add",
    "gather_rows",
    "layernorm_forward",
    "rmsnorm_forward",
    "rmsnorm_heads",
    "attention_scores",
    "attention_mask",
    "softmax_inplace",
    "attention_mix",
    "rope_forward",
    "gelu_forward",
    "silu_forward",
    "swiglu_forward",
    "geglu_forward",
    "relu_forward",
    "sigmoid_forward",
    "scale_inplace",
    "residual_add",
    "residual_layernorm",
    "residual_rmsnorm",
    "argmax_sample",
    "topk_mask",
    "softcap_logits",
    "temperature_scale",
    "penalize_logits",
    "flash_attention_forward",
    "flash_attention_masked",
    "bias_add",
    "split_heads",
    "merge_heads",
    "rope_rows",
    "cache_gather",
];

/// Whether devices must take a case: blocks of a cache are a multiple of sixteen tokens.
fn fits(case: &Case) -> bool {
    case.dims.get("block_size").map_or(true, |size| size % 16 == 0)
}

struct Runner<'d, D> {
    device: &'d D,
}

impl<D: Device> conformance::Runner for Runner<'_, D> {
    type Error = Error;

    fn launch(&mut self, case: &Case) -> Result<Vec<Option<Data>>> {
        let mut bound = Bound::upload(self.device, case)?;
        bound.call()?;
        bound.download()
    }
}

/// The buffers of one case on a device.
struct Bound<'a, D: Device> {
    d: &'a D,
    case: &'a Case,
    buffers: BTreeMap<&'a str, D::Buffer>,
}

impl<'a, D: Device> Bound<'a, D> {
    fn upload(d: &'a D, case: &'a Case) -> Result<Self> {
        let mut buffers = BTreeMap::new();
        for (name, argument) in case.names.iter().zip(&case.arguments) {
            let buffer = match argument {
                Argument::Buffer(Data::F32(values)) => d.upload_f32(values)?,
                Argument::Buffer(Data::I32(values)) => {
                    let mut buffer = d.alloc(Dtype::I32, values.len())?;
                    d.write_i32(&mut buffer, values)?;
                    buffer
                }
                _ => continue,
            };
            buffers.insert(name.as_str(), buffer);
        }
        Ok(Self { d, case, buffers })
    }

    fn download(&self) -> Result<Vec<Option<Data>>> {
        let one = |(name, argument): (&String, &Argument)| {
            let Argument::Buffer(data) = argument else { return Ok(None) };
            let Some(buffer) = self.buffers.get(name.as_str()) else { return Ok(Some(data.clone())) };
            Ok(Some(match data {
                Data::I32(values) => {
                    let mut out = vec![0; values.len()];
                    self.d.read_i32(buffer, 0, &mut out)?;
                    Data::I32(out)
                }
                other => {
                    let mut out = vec![0.0; other.len()];
                    self.d.read_f32(buffer, 0, &mut out)?;
                    Data::F32(out)
                }
            }))
        };
        self.case.names.iter().zip(&self.case.arguments).map(one).collect()
    }

    fn argument(&self, name: &str) -> Option<&'a Argument> {
        let at = self.case.names.iter().position(|n| n == name)?;
        self.case.arguments.get(at)
    }

    fn dim(&self, name: &'static str) -> Result<usize> {
        let dim = self.case.dims.get(name);
        dim.map(|v| v as usize).map_err(|e| Error::shape("case", name, e, "given"))
    }

    fn float(&self, name: &'static str) -> Result<f32> {
        match self.argument(name) {
            Some(Argument::Float(x)) => Ok(*x),
            _ => Err(Error::shape("case", name, "missing", "a float")),
        }
    }

    fn read(&self, name: &'static str) -> Result<&D::Buffer> {
        self.buffers.get(name).ok_or_else(|| Error::shape("case", name, "missing", "a buffer"))
    }

    /// Takes a buffer out, lets `f` write it, and puts it back.
    fn write(
        &mut self,
        name: &'static str,
        f: impl FnOnce(&mut Self, &mut D::Buffer) -> Result<()>,
    ) -> Result<()> {
        let taken = self.buffers.remove_entry(name);
        let (key, mut buffer) = taken.ok_or_else(|| Error::shape("case", name, "missing", "a buffer"))?;
        let done = f(self, &mut buffer);
        self.buffers.insert(key, buffer);
        done
    }

    /// A table in the device's layout. The guard behind the case's table is no part of it.
    fn matrix(&self, name: &'static str, rows: usize, cols: usize) -> Result<D::Matrix> {
        let (dtype, bytes) = match self.argument(name) {
            Some(Argument::Buffer(Data::F32(v))) => (WeightType::F32, bytemuck::cast_slice::<f32, u8>(v)),
            Some(Argument::Buffer(Data::F16(v))) => (WeightType::F16, bytemuck::cast_slice::<f16, u8>(v)),
            Some(Argument::Buffer(Data::Bf16(v))) => (WeightType::BF16, bytemuck::cast_slice::<bf16, u8>(v)),
            Some(Argument::Buffer(Data::U8(v))) => (self.blocks()?, v.as_slice()),
            _ => return Err(Error::shape("case", name, "missing", "a table")),
        };
        let len = dtype.bytes_of(&[rows, cols]).filter(|&len| len <= bytes.len());
        let len = len.ok_or_else(|| Error::shape("case", name, bytes.len(), "a table of whole blocks"))?;
        let view = MatrixView { dtype, rows, cols, layout: Layout::RowMajor, bytes: &bytes[..len] };
        self.d.matrix(&[view])
    }

    /// The block type that the kernel's name says.
    fn blocks(&self) -> Result<WeightType> {
        let kernel = &self.case.kernel;
        let types = [
            ("_q8_0", WeightType::Q8_0),
            ("_q4_0", WeightType::Q4_0),
            ("_q4_1", WeightType::Q4_1),
            ("_q4_k", WeightType::Q4K),
            ("_q6_k", WeightType::Q6K),
        ];
        let found = types.into_iter().find(|(suffix, _)| kernel.ends_with(suffix));
        found.map(|found| found.1).ok_or_else(|| Error::shape("case", "kernel", kernel, "of a block type"))
    }

    fn call(&mut self) -> Result<()> {
        let kernel = contract_of(&self.case.kernel).map_or("", |contract| contract.kernel);
        let d = self.d;
        match kernel {
            "embedding_forward" | "embedding_forward_q" | "positional_embedding_add" => self.table(kernel),
            "gather_rows" => {
                let (n, c) = (self.dim("N")?, self.dim("C")?);
                self.write("out", |b, out| d.gather_rows(b.read("x")?, b.read("rows")?, out, n, c))
            }
            "layernorm_forward" => self.layernorm(),
            "rmsnorm_forward" => {
                let (n, c, eps) = (self.dim("N")?, self.dim("C")?, self.float("eps")?);
                self.write("out", |b, out| d.rmsnorm_forward(b.read("x")?, b.read("gamma")?, out, n, c, eps))
            }
            "residual_layernorm" | "residual_rmsnorm" => self.residual_norm(kernel),
            "rmsnorm_heads" => {
                let (columns, n, eps) = (self.columns()?, self.dim("N")?, self.float("eps")?);
                self.write("x", |b, x| d.rmsnorm_heads(x, b.read("gamma")?, columns, n, eps))
            }
            "rope_rows" => {
                let (columns, n) = (self.columns()?, self.dim("N")?);
                self.write("x", |b, x| d.rope_rows(x, b.read("freqs")?, b.read("positions")?, columns, n))
            }
            "attention_scores"
            | "attention_mask"
            | "attention_mix"
            | "flash_attention_forward"
            | "flash_attention_masked"
            | "rope_forward" => self.attention(kernel),
            "softmax_inplace" => {
                let (n, t) = (self.dim("N")?, self.dim("T")?);
                self.write("x", |_, x| d.softmax_inplace(x, n, t))
            }
            "swiglu_forward" => {
                let n = self.dim("N")?;
                self.write("out", |b, out| d.swiglu_forward(b.read("gate")?, b.read("up")?, out, n))
            }
            "geglu_forward" => {
                let n = self.dim("N")?;
                self.write("out", |b, out| d.geglu_forward(b.read("gate")?, b.read("up")?, out, n))
            }
            "scale_inplace" => {
                let (n, scale) = (self.dim("N")?, self.float("scale")?);
                self.write("x", |_, x| d.scale_inplace(x, n, scale))
            }
            "residual_add" => {
                let n = self.dim("N")?;
                self.write("residual", |b, residual| d.residual_add(residual, b.read("x")?, n))
            }
            "bias_add" => {
                let (n, c) = (self.dim("N")?, self.dim("C")?);
                self.write("x", |b, x| d.bias_add(x, b.read("bias")?, n, c))
            }
            "split_heads" => {
                let (heads, width, column) = (self.heads()?, self.dim("W")?, self.dim("column")?);
                self.write("out", |b, out| d.split_heads(b.read("x")?, out, heads, width, column))
            }
            "merge_heads" => {
                let heads = self.heads()?;
                self.write("out", |b, out| d.merge_heads(b.read("x")?, out, heads))
            }
            "cache_gather" => self.cache(),
            "gelu_forward" | "silu_forward" | "relu_forward" | "sigmoid_forward" => {
                let n = self.dim("N")?;
                self.write("out", |b, out| {
                    let x = b.read("x")?;
                    match kernel {
                        "gelu_forward" => d.gelu_forward(x, out, n),
                        "silu_forward" => d.silu_forward(x, out, n),
                        "relu_forward" => d.relu_forward(x, out, n),
                        _ => d.sigmoid_forward(x, out, n),
                    }
                })
            }
            _ => self.sampling(kernel),
        }
    }

    fn table(&mut self, kernel: &str) -> Result<()> {
        let (d, n, c) = (self.d, self.dim("N")?, self.dim("C")?);
        if kernel != "positional_embedding_add" {
            let weight = self.matrix("weight", self.dim("vocab")?, c)?;
            self.write("out", |b, out| d.embedding_forward(&weight, b.read("tokens")?, out, n))
        } else {
            let weight = self.matrix("weight", self.dim("n_positions")?, c)?;
            self.write("x", |b, x| d.positional_embedding_add(&weight, b.read("positions")?, x, n))
        }
    }

    fn layernorm(&mut self) -> Result<()> {
        let (d, n, c, eps) = (self.d, self.dim("N")?, self.dim("C")?, self.float("eps")?);
        let mut statistics = [self.buffers.remove_entry("mean"), self.buffers.remove_entry("rstd")];
        let [mean, rstd] = &mut statistics;
        let (mean, rstd) = (mean.as_mut().map(|m| &mut m.1), rstd.as_mut().map(|r| &mut r.1));
        let done = self.write("out", |b, out| {
            let (x, gamma, beta) = (b.read("x")?, b.read("gamma")?, b.read("beta")?);
            d.layernorm_forward(x, gamma, beta, out, mean, rstd, n, c, eps)
        });
        self.buffers.extend(statistics.into_iter().flatten());
        done
    }

    fn residual_norm(&mut self, kernel: &str) -> Result<()> {
        let (d, n, c, eps) = (self.d, self.dim("N")?, self.dim("C")?, self.float("eps")?);
        self.write("residual", |b, residual| {
            b.write("out", |b, out| {
                let (x, gamma) = (b.read("x")?, b.read("gamma")?);
                if kernel == "residual_rmsnorm" {
                    return d.residual_rmsnorm(residual, x, gamma, out, n, c, eps);
                }
                d.residual_layernorm(residual, x, gamma, b.read("beta")?, out, n, c, eps)
            })
        })
    }

    fn attention(&mut self, kernel: &str) -> Result<()> {
        let (d, bh, t) = (self.d, self.dim("heads")?, self.dim("T")?);
        if kernel == "attention_mask" {
            let (window, cap) = (self.dim("window")?, self.float("cap")?);
            return self.write("att", |_, att| d.attention_mask(att, bh, t, window, cap));
        }
        let hs = self.dim("hs")?;
        match kernel {
            "attention_scores" => {
                self.write("att", |b, att| d.attention_scores(b.read("Q")?, b.read("K")?, att, bh, t, hs))
            }
            "attention_mix" => {
                self.write("out", |b, out| d.attention_mix(b.read("att")?, b.read("V")?, out, bh, t, hs))
            }
            "rope_forward" => self.write("x", |b, x| d.rope_forward(x, b.read("freqs")?, bh, t, hs)),
            "flash_attention_masked" => {
                let (window, cap) = (self.dim("window")?, self.float("cap")?);
                self.write("out", |b, out| {
                    let (q, k, v) = (b.read("Q")?, b.read("K")?, b.read("V")?);
                    d.flash_attention_masked(q, k, v, out, bh, t, hs, window, cap)
                })
            }
            _ => self.write("out", |b, out| {
                let (q, k, v) = (b.read("Q")?, b.read("K")?, b.read("V")?);
                d.flash_attention_forward(q, k, v, out, bh, t, hs)
            }),
        }
    }

    fn columns(&self) -> Result<HeadColumns> {
        Ok(HeadColumns {
            width: self.dim("W")?,
            column: self.dim("column")?,
            n_head: self.dim("n_head")?,
            hs: self.dim("hs")?,
        })
    }

    fn heads(&self) -> Result<HeadRows> {
        Ok(HeadRows {
            n_head: self.dim("nh")?,
            first_row: self.dim("first_row")?,
            rows: self.dim("rows")?,
            t: self.dim("T")?,
            hs: self.dim("hs")?,
        })
    }

    /// Fills a cache through `cache_write`, one row a slot, and gathers from it: the layout is the device's own.
    fn cache(&mut self) -> Result<()> {
        let (d, t, nh, hs) = (self.d, self.dim("T")?, self.dim("nh")?, self.dim("hs")?);
        let (n_blocks, n_kv_head) = (self.dim("n_blocks")?, self.dim("n_kv_head")?);
        let block_size = self.dim("block_size")?;
        let shape = KvShape { n_blocks, block_size, n_kv_head, head_dim: hs, dtype: Dtype::F32 };
        let slots = n_blocks * block_size;
        let mut rows = Vec::new();
        for slot in 0..slots {
            rows.extend(std::iter::repeat_n(0.0, nh * hs));
            for cache in ["k_cache", "v_cache"] {
                let Some(Argument::Buffer(data)) = self.argument(cache) else { continue };
                for head in 0..n_kv_head {
                    let row = (slot / block_size * n_kv_head + head) * block_size + slot % block_size;
                    rows.extend((0..hs).map(|i| data.value(row * hs + i) as f32));
                }
            }
        }
        let mut cache = d.kv_layer(shape)?;
        let mut places = d.alloc(Dtype::I32, slots)?;
        d.write_i32(&mut places, &(0..slots as i32).collect::<Vec<_>>())?;
        d.cache_write(&d.upload_f32(&rows)?, &places, &mut cache, slots, nh)?;
        self.write("K", |b, k| {
            b.write("V", |b, v| d.cache_gather(&cache, b.read("block_table")?, 0, k, v, t, nh))
        })
    }

    fn sampling(&mut self, kernel: &str) -> Result<()> {
        let (d, v) = (self.d, self.dim("V")?);
        let rows = self.dim("rows").unwrap_or(1);
        match kernel {
            "argmax_sample" => self.write("out", |b, out| d.argmax_sample(b.read("logits")?, out, rows, v)),
            "topk_mask" => {
                let k = self.dim("k")?;
                self.write("logits", |_, logits| d.topk_mask(logits, rows, v, k))
            }
            "softcap_logits" => {
                let cap = self.float("cap")?;
                self.write("logits", |_, logits| d.softcap_logits(logits, rows, v, cap))
            }
            "temperature_scale" => {
                let temperature = self.float("temperature")?;
                self.write("logits", |_, logits| d.temperature_scale(logits, rows, v, temperature))
            }
            "penalize_logits" => {
                let m = self.dim("M")?;
                let penalties = (self.float("repeat")?, self.float("presence")?, self.float("frequency")?);
                let (repeat, presence, frequency) = penalties;
                self.write("logits", |b, logits| {
                    let (tokens, counts) = (b.read("tokens")?, b.read("counts")?);
                    d.penalize_logits(logits, tokens, counts, v, m, repeat, presence, frequency)
                })
            }
            _ => Err(Error::shape("case", "kernel", kernel, "a method of the device")),
        }
    }
}
