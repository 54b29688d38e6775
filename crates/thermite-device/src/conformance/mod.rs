//! What every device must pass: each kernel's cases from [`thermite_kernels`], against their float64 oracles, through
//! the methods of [`Device`].

use std::collections::BTreeMap;

use thermite_kernels::conformance::{self, Case, Data, Failure};
use thermite_kernels::contract::contract_of;

use self::bound::Bound;
use crate::{Device, Error, Result};

mod bound;
mod calls;

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
    "draw_sample",
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
