//! The LLaMA and Gemma families by their formulas, in float64: plain loops, one token after the other, nothing shared
//! with the forward passes that are held against it.

/// A model: its shape, and its weights by their names in a Hugging Face folder.
pub(crate) struct Oracle<'a> {
    pub(crate) n_embd: usize,
    pub(crate) n_head: usize,
    pub(crate) n_kv_head: usize,
    pub(crate) head_dim: usize,
    pub(crate) eps: f64,
    /// What the product of query and key is multiplied by.
    pub(crate) scale: f64,
    /// Caps of scores and logits; none at 0.
    pub(crate) score_cap: f64,
    pub(crate) logit_cap: f64,
    pub(crate) embedding_scale: f64,
    /// Added to each norm's scale.
    pub(crate) scale_offset: f64,
    pub(crate) gate: Gate,
    /// Whether there are norms after the blocks: Gemma.
    pub(crate) post_norms: bool,
    pub(crate) layers: Vec<LayerOf>,
    /// The weight of a name, row by row; none if there is no such weight.
    pub(crate) weight: Weight<'a>,
}

/// What one layer has of its own.
#[derive(Clone)]
pub(crate) struct LayerOf {
    /// Tokens that a query sees; all at 0.
    pub(crate) window: usize,
    /// Radians a token of each pair.
    pub(crate) frequencies: Vec<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Silu,
    Gelu,
}

type Row = Vec<f64>;
type Weight<'a> = Box<dyn Fn(&str) -> Option<Vec<f32>> + 'a>;

impl Oracle<'_> {
    /// The logits after each token.
    pub(crate) fn logits(&self, tokens: &[u32]) -> Vec<Row> {
        let tied = || self.get("model.embed_tokens.weight");
        let head = (self.weight)("lm_head.weight").unwrap_or_else(tied);
        let cap = |logit: f64| {
            if self.logit_cap > 0.0 { self.logit_cap * (logit / self.logit_cap).tanh() } else { logit }
        };
        self.hidden(tokens).iter().map(|x| matvec(&head, x).into_iter().map(cap).collect()).collect()
    }

    /// The hidden state of each token, after the last norm.
    pub(crate) fn hidden(&self, tokens: &[u32]) -> Vec<Row> {
        let c = self.n_embd;
        let embedding = self.get("model.embed_tokens.weight");
        let mut x: Vec<Row> = tokens
            .iter()
            .map(|&t| embedding[t as usize * c..][..c].iter().map(|&e| f64::from(e) * self.embedding_scale))
            .map(Iterator::collect)
            .collect();
        for i in 0..self.layers.len() {
            self.layer(i, &mut x);
        }
        let norm = self.get("model.norm.weight");
        x.iter().map(|x| self.rms(x, &norm)).collect()
    }

    fn get(&self, name: &str) -> Vec<f32> {
        (self.weight)(name).unwrap_or_else(|| panic!("no {name}"))
    }

    fn layer(&self, i: usize, x: &mut [Row]) {
        let prefix = format!("model.layers.{i}.");
        let w = |name: &str| self.get(&format!("{prefix}{name}.weight"));
        let linear = |name: &str, x: &[Row]| -> Vec<Row> {
            let weight = w(name);
            let bias = (self.weight)(&format!("{prefix}{name}.bias"));
            x.iter()
                .map(|x| {
                    let mut y = matvec(&weight, x);
                    for (y, b) in y.iter_mut().zip(bias.iter().flatten()) {
                        *y += f64::from(*b);
                    }
                    y
                })
                .collect()
        };
        let norm = |name: &str, x: &[Row]| -> Vec<Row> {
            let gamma = w(name);
            x.iter().map(|x| self.rms(x, &gamma)).collect()
        };
        let add = |x: &mut [Row], y: Vec<Row>| {
            for (x, y) in x.iter_mut().flatten().zip(y.into_iter().flatten()) {
                *x += y;
            }
        };

        let normed = norm("input_layernorm", x);
        let mut q = linear("self_attn.q_proj", &normed);
        let mut k = linear("self_attn.k_proj", &normed);
        let v = linear("self_attn.v_proj", &normed);
        for (name, rows) in [("q", &mut q), ("k", &mut k)] {
            let gamma = (self.weight)(&format!("{prefix}self_attn.{name}_norm.weight"));
            for (position, row) in rows.iter_mut().enumerate() {
                for head in row.chunks_mut(self.head_dim) {
                    if let Some(gamma) = &gamma {
                        head.copy_from_slice(&self.rms(head, gamma));
                    }
                    rotate(head, position, &self.layers[i].frequencies);
                }
            }
        }
        let mixed: Vec<Row> =
            (0..x.len()).map(|t| self.attend(&q[t], &k, &v, t, self.layers[i].window)).collect();
        let mut out = linear("self_attn.o_proj", &mixed);
        if self.post_norms {
            out = norm("post_attention_layernorm", &out);
        }
        add(x, out);

        let before = if self.post_norms { "pre_feedforward_layernorm" } else { "post_attention_layernorm" };
        let normed = norm(before, x);
        let (gate, up) = (linear("mlp.gate_proj", &normed), linear("mlp.up_proj", &normed));
        let act =
            |(gate, up): (&Row, &Row)| gate.iter().zip(up).map(|(g, u)| self.gate.apply(*g) * u).collect();
        let act: Vec<Row> = gate.iter().zip(&up).map(act).collect();
        let mut out = linear("mlp.down_proj", &act);
        if self.post_norms {
            out = norm("post_feedforward_layernorm", &out);
        }
        add(x, out);
    }

    /// The heads of the query at position `t` over the keys and values up to it.
    fn attend(&self, q: &[f64], k: &[Row], v: &[Row], t: usize, window: usize) -> Row {
        let hs = self.head_dim;
        let first = if window == 0 { 0 } else { (t + 1).saturating_sub(window) };
        let mut out = Vec::new();
        for (h, q) in q.chunks(hs).enumerate() {
            let at = h / (self.n_head / self.n_kv_head) * hs;
            let scores: Row = (first..=t)
                .map(|j| {
                    let score = self.scale * dot(q, &k[j][at..][..hs]);
                    if self.score_cap > 0.0 {
                        self.score_cap * (score / self.score_cap).tanh()
                    } else {
                        score
                    }
                })
                .collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Row = scores.iter().map(|s| (s - max).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let channel =
                |c: usize| weights.iter().zip(&v[first..]).map(|(w, v)| w * v[at + c]).sum::<f64>() / sum;
            out.extend((0..hs).map(channel));
        }
        out
    }

    fn rms(&self, x: &[f64], gamma: &[f32]) -> Row {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let r = (mean + self.eps).sqrt().recip();
        x.iter().zip(gamma).map(|(x, &g)| x * r * (f64::from(g) + self.scale_offset)).collect()
    }
}

impl Gate {
    fn apply(self, x: f64) -> f64 {
        let gelu = |x: f64| 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044_715 * x * x * x)).tanh());
        match self {
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::Gelu => gelu(x),
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn matvec(weight: &[f32], x: &[f64]) -> Row {
    weight.chunks(x.len()).map(|row| row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum()).collect()
}

/// Turns the halves of a head against each other.
fn rotate(head: &mut [f64], position: usize, frequencies: &[f64]) {
    let half = head.len() / 2;
    for (i, frequency) in frequencies.iter().enumerate() {
        let (sin, cos) = (position as f64 * frequency).sin_cos();
        let (a, b) = (head[i], head[i + half]);
        head[i] = a * cos - b * sin;
        head[i + half] = b * cos + a * sin;
    }
}

/// `base^(-2i / head_dim)`.
pub(crate) fn frequencies(base: f64, head_dim: usize) -> Vec<f64> {
    (0..head_dim / 2).map(|i| 1.0 / base.powf(2.0 * i as f64 / head_dim as f64)).collect()
}
