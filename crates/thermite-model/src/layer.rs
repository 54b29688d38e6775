//! The parts that the families' layers are made of.

use std::sync::Arc;

use thermite_device::{AttentionShape, AttentionWeights, Device, MlpWeights, Rope};

use crate::Result;
use crate::config::RopeConfig;

/// A transformer layer.
#[derive(Debug)]
pub(crate) struct Layer<D: Device> {
    pub(crate) attention: AttentionWeights<D>,
    pub(crate) mlp: MlpWeights<D>,
    /// What its attention does to scores.
    pub(crate) heads: AttentionShape,
}

/// The rotation of `n_positions` positions, on the device.
pub(crate) fn rope<D: Device>(
    device: &D,
    config: &RopeConfig,
    head_dim: usize,
    n_positions: usize,
) -> Result<Arc<Rope<D>>> {
    let freqs = device.upload_f32(&config.table(head_dim, n_positions))?;
    Ok(Arc::new(Rope { freqs, n_positions }))
}
