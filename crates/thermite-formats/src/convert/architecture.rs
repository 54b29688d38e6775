//! The architectures that are converted: what their tensors are called, and how GGUF lays them out.

use super::rows::Order;

/// Hugging Face name, GGUF name.
type Names = &'static [(&'static str, &'static str)];

/// A model type of Hugging Face's, as GGUF has it.
#[derive(Debug)]
pub(super) struct Architecture {
    /// `model_type` in `config.json`.
    pub(super) model_type: &'static str,
    /// `general.architecture`.
    pub(super) name: &'static str,
    /// What may stand before every tensor's name.
    prefix: &'static str,
    /// What stands before a layer's number.
    layers: &'static str,
    /// Tensors that are there once.
    once: Names,
    /// Tensors of a layer, without `.weight` or `.bias`.
    parts: Names,
    /// Endings of tensors that hold no weights: masks, tables of frequencies.
    not_weights: &'static [&'static str],
    /// What differs in the tensors' layout.
    layout: Layout,
    /// The activation functions that the architecture has in GGUF; its config must name one.
    pub(super) activations: &'static [&'static str],
    /// Whether the head is the embedding where the config does not say.
    pub(super) tied: bool,
}

/// What a whole architecture has in another order than Hugging Face.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Same,
    QueryAndKeyInPairs,
    MatricesTransposed,
    NormsPlusOne,
}

const ONCE: Names = &[
    ("embed_tokens.weight", "token_embd.weight"),
    ("norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight"),
];

const PARTS: Names = &[
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// Gemma 2 and 3 have norms after attention and MLP too: the same name means another norm.
const GEMMA_PARTS: Names = &[
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];

const LLAMA: Architecture = Architecture {
    model_type: "llama",
    name: "llama",
    prefix: "model.",
    layers: "layers.",
    once: ONCE,
    parts: PARTS,
    not_weights: &["rotary_emb.inv_freq"],
    layout: Layout::QueryAndKeyInPairs,
    activations: &["silu"],
    tied: false,
};

const GEMMA: Architecture = Architecture {
    model_type: "gemma2",
    name: "gemma2",
    parts: GEMMA_PARTS,
    layout: Layout::NormsPlusOne,
    activations: &["gelu_pytorch_tanh"],
    tied: true,
    ..LLAMA
};

/// Every architecture that is converted.
const ALL: &[Architecture] = &[
    Architecture {
        model_type: "gpt2",
        name: "gpt2",
        prefix: "transformer.",
        layers: "h.",
        once: &[
            ("wte.weight", "token_embd.weight"),
            ("wpe.weight", "position_embd.weight"),
            ("ln_f.weight", "output_norm.weight"),
            ("ln_f.bias", "output_norm.bias"),
            ("lm_head.weight", "output.weight"),
        ],
        parts: &[
            ("ln_1", "attn_norm"),
            ("attn.c_attn", "attn_qkv"),
            ("attn.c_proj", "attn_output"),
            ("ln_2", "ffn_norm"),
            ("mlp.c_fc", "ffn_up"),
            ("mlp.c_proj", "ffn_down"),
        ],
        not_weights: &[".attn.bias", ".attn.masked_bias"],
        layout: Layout::MatricesTransposed,
        activations: &["gelu_new", "gelu_pytorch_tanh"],
        tied: true,
    },
    LLAMA,
    Architecture { model_type: "mistral", ..LLAMA },
    Architecture { model_type: "qwen2", name: "qwen2", layout: Layout::Same, ..LLAMA },
    Architecture { model_type: "qwen3", name: "qwen3", layout: Layout::Same, ..LLAMA },
    GEMMA,
    Architecture { model_type: "gemma3_text", name: "gemma3", ..GEMMA },
];

impl Architecture {
    /// The one of that model type.
    pub(super) fn of(model_type: &str) -> Option<&'static Self> {
        ALL.iter().find(|architecture| architecture.model_type == model_type)
    }

    /// The model types that there are, for a message.
    pub(super) fn known() -> String {
        ALL.iter().map(|architecture| architecture.model_type).collect::<Vec<_>>().join(", ")
    }

    /// Whether a tensor of the files is one of the model's.
    pub(super) fn is_weight(&self, name: &str) -> bool {
        !self.not_weights.iter().any(|ending| name.ends_with(ending))
    }

    /// The GGUF name of a tensor, if the architecture has it.
    pub(super) fn rename(&self, name: &str) -> Option<String> {
        let name = name.strip_prefix(self.prefix).unwrap_or(name);
        let find =
            |names: Names, wanted: &str| names.iter().find(|(from, _)| *from == wanted).map(|(_, to)| *to);
        if let Some(to) = find(self.once, name) {
            return Some(to.to_owned());
        }
        let (layer, rest) = name.strip_prefix(self.layers)?.split_once('.')?;
        let layer: u32 = layer.parse().ok()?;
        let (part, kind) = rest.rsplit_once('.')?;
        let part = find(self.parts, part)?;
        matches!(kind, "weight" | "bias").then(|| format!("blk.{layer}.{part}.{kind}"))
    }

    /// How the GGUF tensor of that name lies in Hugging Face's.
    pub(super) fn order(&self, gguf_name: &str, head_dim: usize) -> Order {
        let part = gguf_name.split('.').nth_back(1).unwrap_or_default();
        let matrix = matches!(part, "attn_qkv" | "attn_output" | "ffn_up" | "ffn_down");
        match self.layout {
            Layout::QueryAndKeyInPairs if matches!(part, "attn_q" | "attn_k") => Order::Pairs { head_dim },
            Layout::MatricesTransposed if matrix && gguf_name.ends_with(".weight") => Order::Transposed,
            Layout::NormsPlusOne if gguf_name.ends_with("norm.weight") => Order::PlusOne,
            _ => Order::Same,
        }
    }
}

impl Architecture {
    /// Whether positions turn queries and keys; GPT-2 has a table of positions instead.
    pub(super) fn has_rope(&self) -> bool {
        self.name != "gpt2"
    }

    /// The base of RoPE where the config does not say.
    pub(super) fn rope_theta(&self) -> f32 {
        if self.name == "gemma3" { 1e6 } else { 1e4 }
    }

    /// Whether the size of a head follows from others where the config does not say; else there is a number that a
    /// config must not leave out.
    pub(super) fn derives_head_dim(&self) -> bool {
        matches!(self.name, "gpt2" | "llama" | "qwen2")
    }

    /// Whether there are as many key heads as query heads where the config does not say.
    pub(super) fn derives_key_heads(&self) -> bool {
        matches!(self.name, "gpt2" | "llama")
    }

    /// Whether it is one of the Gemma family.
    pub(super) fn is_gemma(&self) -> bool {
        self.name.starts_with("gemma")
    }
}
