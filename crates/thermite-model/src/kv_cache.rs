//! The paged keys and values of all layers.

use std::sync::atomic::{AtomicU64, Ordering};

use thermite_device::{Device, Dtype, KvLayer};

use crate::{Config, Result};

/// A pool of blocks in every layer; block `i` of a sequence is the same number in each.
#[derive(Debug)]
pub struct KvCache<D: Device> {
    pub(crate) layers: Vec<KvLayer<D>>,
    /// No other cache of this process has the same.
    id: u64,
    n_blocks: usize,
    block_size: usize,
}

impl<D: Device> KvCache<D> {
    /// A pool of `n_blocks` blocks of `block_size` tokens, stored as `dtype`.
    ///
    /// # Errors
    /// If the device has no memory for it, or cannot hold such blocks.
    pub fn new(
        device: &D,
        config: &Config,
        n_blocks: usize,
        block_size: usize,
        dtype: Dtype,
    ) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let shape = config.kv_shape(n_blocks, block_size, dtype);
        let layers = (0..config.n_layer).map(|_| device.kv_layer(shape));
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self { layers: layers.collect::<Result<_, _>>()?, id, n_blocks, block_size })
    }

    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    /// Blocks in the pool.
    #[must_use]
    pub const fn n_blocks(&self) -> usize {
        self.n_blocks
    }

    /// Tokens a block.
    #[must_use]
    pub const fn block_size(&self) -> usize {
        self.block_size
    }
}
