//! What every device must pass: inputs, float64 oracles and tolerances for every kernel and instance.
//!
//! A device implements [`Runner`]; [`each_case`] hands out the cases, and [`check`] runs one and compares. The oracles
//! are written from the formulas, not from the kernels.

mod activation;
mod attention;
mod case;
mod data;
mod decode;
mod draw;
mod heads;
mod linear;
mod paged_attention;
mod paging;
mod quant;
mod rows;
mod sampling;

pub use case::{Argument, Case, Expectation, Tolerance};
pub use data::Data;

use crate::catalogue;
use crate::contract::contract_of;
use crate::syntax::{Kernel, SyntaxError};

/// Something that launches kernels.
pub trait Runner {
    /// Why a launch fails.
    type Error: std::error::Error;

    /// Elements that the suite adds behind every buffer, to see that they stay as they were. Zero for a runner that
    /// guards its buffers itself.
    fn guard_elements(&self) -> usize {
        64
    }

    /// Uploads the case's arguments, launches its kernel at its dimensions and limits, and downloads every buffer: one
    /// entry an argument, none for constants and nil.
    ///
    /// # Errors
    /// Whatever the device reports.
    fn launch(&mut self, case: &Case) -> Result<Vec<Option<Data>>, Self::Error>;
}

/// A case that did not pass.
#[derive(Debug, thiserror::Error)]
#[error("{case}: {message}")]
pub struct Failure {
    /// Kernel, dimensions and limits.
    pub case: String,
    /// What differs, where, and by how much.
    pub message: String,
}

/// Runs one case and compares every buffer.
///
/// # Errors
/// [`Failure`] names the case and the first difference.
pub fn check<R: Runner>(runner: &mut R, case: &Case) -> Result<(), Failure> {
    let failure = |message: String| Failure { case: case.label(), message };
    let guard = runner.guard_elements();
    let guarded = case.clone().with_guards(guard);
    let buffers = runner.launch(&guarded).map_err(|e| failure(e.to_string()))?;
    if buffers.len() != case.arguments.len() {
        return Err(failure(format!("{} buffers came back", buffers.len())));
    }
    for (i, after) in buffers.into_iter().enumerate() {
        let Argument::Buffer(before) = &guarded.arguments[i] else {
            continue;
        };
        let name = &case.names[i];
        let after = after.ok_or_else(|| failure(format!("{name} did not come back")))?;
        case.compare(i, before, &after, guard)
            .map_err(|difference| failure(format!("{name}{difference}")))?;
    }
    Ok(())
}

/// Hands every case of every kernel and instance to `visit`; a case lives only as long as its visit.
///
/// # Errors
/// [`SyntaxError`] when an embedded source cannot be read.
pub fn each_case(visit: &mut dyn FnMut(Case)) -> Result<(), SyntaxError> {
    each_case_of(&|_| true, visit)
}

/// As [`each_case`], for the kernels and instances that `wanted` names.
///
/// # Errors
/// As [`each_case`].
pub fn each_case_of(wanted: &dyn Fn(&str) -> bool, visit: &mut dyn FnMut(Case)) -> Result<(), SyntaxError> {
    for entry in catalogue::kernels()? {
        let kernel = &entry.kernel;
        let Some(contract) = contract_of(&kernel.name).filter(|_| wanted(&kernel.name)) else {
            continue;
        };
        if let Some((_, family)) = FAMILIES.iter().find(|(name, _)| *name == contract.kernel) {
            family(kernel, visit);
        }
    }
    Ok(())
}

/// Writes the cases of one kernel or instance.
type Family = fn(&Kernel, &mut dyn FnMut(Case));

static FAMILIES: &[(&str, Family)] = &[
    ("embedding_forward", rows::embedding),
    ("positional_embedding_add", rows::positional_embedding),
    ("gather_rows", rows::gather),
    ("layernorm_forward", rows::layernorm),
    ("rmsnorm_forward", rows::rmsnorm),
    ("rmsnorm_heads", heads::rmsnorm),
    ("residual_layernorm", rows::residual_layernorm),
    ("residual_rmsnorm", rows::residual_rmsnorm),
    ("rmsnorm_add", rows::rmsnorm_add),
    ("gelu_forward", activation::gelu),
    ("silu_forward", activation::silu),
    ("relu_forward", activation::relu),
    ("sigmoid_forward", activation::sigmoid),
    ("swiglu_forward", activation::swiglu),
    ("geglu_forward", activation::geglu),
    ("scale_inplace", activation::scale),
    ("residual_add", activation::residual_add),
    ("attention_scores", attention::scores),
    ("attention_mask", attention::mask),
    ("softmax_inplace", attention::softmax),
    ("attention_mix", attention::mix),
    ("rope_forward", attention::rope),
    ("flash_attention_forward", attention::flash),
    ("flash_attention_masked", attention::flash_masked),
    ("flash_attention_simd", attention::flash_simd),
    ("flash_attention_paged", paged_attention::flash),
    ("flash_attention_pieces", paged_attention::flash_pieces),
    ("attention_decode", paged_attention::decode),
    ("attention_paged", paged_attention::ragged),
    ("attention_decode_hs", paged_attention::decode_grouped),
    ("attention_decode_split_hs", paged_attention::split),
    ("attention_decode_combine", paged_attention::combine),
    ("bias_add", linear::bias_add),
    ("narrow", linear::narrow),
    ("linear_forward", linear::linear),
    ("matvec", linear::matvec),
    ("matmul_simd", linear::matmul),
    ("matmul_few", linear::matmul),
    ("matmul_few_swiglu", linear::few_swiglu),
    ("matmul_few_geglu", linear::few_geglu),
    ("decode_qkv", decode::qkv),
    ("decode_swiglu", decode::swiglu),
    ("decode_geglu", decode::geglu),
    ("decode_up_gelu", decode::up_gelu),
    ("decode_head", decode::head),
    ("decode_attend", paged_attention::decode_attend),
    ("decode_output", decode::output),
    ("decode_down", decode::down),
    ("argmax_sample", sampling::argmax),
    ("topk_mask", sampling::topk),
    ("softcap_logits", sampling::softcap),
    ("temperature_scale", sampling::temperature),
    ("penalize_logits", sampling::penalize),
    ("draw_sample", draw::draw),
    ("argmax_parts", sampling::argmax_parts),
    ("argmax_final", sampling::argmax_final),
    ("topk_parts", sampling::topk_parts),
    ("topk_threshold", sampling::topk_threshold),
    ("topk_apply", sampling::topk_apply),
    ("split_heads", paging::split_heads),
    ("merge_heads", paging::merge_heads),
    ("rope_rows", paging::rope_rows),
    ("cache_write", paging::cache_write),
    ("place_heads", heads::place),
    ("advance_rows", paging::advance_rows),
    ("cache_gather", paging::cache_gather),
    ("embedding_forward_q", quant::embedding),
    ("positional_embedding_add_q", quant::positional_embedding),
    ("dequantize_q", quant::dequantize),
    ("matvec_q", quant::matvec),
    ("decode_head_q", quant::head),
    ("decode_up_gelu_q", quant::up_gelu),
    ("decode_swiglu_q", quant::swiglu),
    ("decode_geglu_q", quant::geglu),
];
