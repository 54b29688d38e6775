//! The parts that the families' layers are made of.

use std::sync::Arc;

use thermite_device::{AttentionShape, AttentionWeights, Device, MlpWeights, Rope};

use crate::config::{Config, RopeConfig};
use crate::loader::Loader;
use crate::names::Q;
use crate::{Options, Result};

/// A transformer layer.
#[derive(Debug)]
pub(crate) struct Layer<D: Device> {
    pub(crate) attention: AttentionWeights<D>,
    pub(crate) mlp: MlpWeights<D>,
    /// What its attention does to scores.
    pub(crate) heads: AttentionShape,
}

/// The rotation of all positions, on the device.
pub(crate) fn rope<D: Device>(
    load: &Loader<'_, D>,
    rope: &RopeConfig,
    sizes: &Config,
    options: &Options,
) -> Result<Arc<Rope<D>>> {
    // the table is as large as the config says: first the weights must bear it out
    load.layer(0).check(Q, sizes.n_head * sizes.head_dim, sizes.n_embd)?;
    let n_positions = options.context_of(sizes);
    let freqs = load.device().upload_f32(&rope.table(sizes.head_dim, n_positions)?)?;
    Ok(Arc::new(Rope { freqs, n_positions }))
}
