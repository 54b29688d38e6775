//! The contracts, a file for each group of kernels.

mod attention;
mod linear;
mod paging;
mod quant;
mod rows;
mod sampling;

use super::table::Contract;

pub(super) static ALL: &[&[Contract]] = &[
    rows::EMBEDDING,
    rows::NORMS,
    attention::ATTENTION,
    rows::ACTIVATION,
    rows::RESIDUAL,
    sampling::SAMPLING,
    attention::FLASH_ATTENTION,
    linear::LINEAR,
    linear::DECODE,
    attention::DECODE_ATTENTION,
    paging::PAGING,
    quant::QUANT,
];

/// One float (or int) a simdgroup: what a reduction over a threadgroup needs.
const ONE_A_SIMDGROUP: &str = "4 * ceil(threads / 32)";
