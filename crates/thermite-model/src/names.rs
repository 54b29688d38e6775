//! What the weights of the LLaMA and Gemma families are called: in Hugging Face folders, and in GGUF.

use crate::config::Name;

pub(crate) const EMBEDDING: Name = Name("embed_tokens", "token_embd");
pub(crate) const NORM: Name = Name("norm", "output_norm");
pub(crate) const HEAD: Name = Name("lm_head", "output");
/// What the angle of each rotated pair is divided by.
pub(crate) const ROPE_DIVISORS: Name = Name("", "rope_freqs");

// of a layer
pub(crate) const ATTENTION_NORM: Name = Name("input_layernorm", "attn_norm");
pub(crate) const Q: Name = Name("self_attn.q_proj", "attn_q");
pub(crate) const K: Name = Name("self_attn.k_proj", "attn_k");
pub(crate) const V: Name = Name("self_attn.v_proj", "attn_v");
pub(crate) const Q_NORM: Name = Name("self_attn.q_norm", "attn_q_norm");
pub(crate) const K_NORM: Name = Name("self_attn.k_norm", "attn_k_norm");
pub(crate) const PROJ: Name = Name("self_attn.o_proj", "attn_output");
pub(crate) const GATE: Name = Name("mlp.gate_proj", "ffn_gate");
pub(crate) const UP: Name = Name("mlp.up_proj", "ffn_up");
pub(crate) const DOWN: Name = Name("mlp.down_proj", "ffn_down");
