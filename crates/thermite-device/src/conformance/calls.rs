//! Which method of [`Device`] a kernel is, and what it is called with.

use thermite_kernels::conformance::Argument;

use super::bound::Bound;
use crate::{Device, Dtype, Error, HeadColumns, HeadRows, KvShape, Result};

impl<D: Device> Bound<'_, D> {
    /// Calls the method that the case's kernel is.
    pub(super) fn call(&mut self) -> Result<()> {
        let kernel = self.kernel();
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
            "draw_sample" => {
                let (top_p, min_p) = (self.float("top_p")?, self.float("min_p")?);
                self.write("out", |b, out| {
                    let (logits, positions, seeds) =
                        (b.read("logits")?, b.read("positions")?, b.read("seeds")?);
                    d.draw_sample(logits, positions, seeds, out, rows, v, top_p, min_p)
                })
            }
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
