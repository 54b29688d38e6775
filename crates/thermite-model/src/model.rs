//! A model of any architecture on a device, with what one forward pass needs around it.

use serde::Deserialize;
use thermite_device::{ActivationShape, Activations, AttentionKind, Batch, Device, Step};
use thermite_formats::ModelFiles;

use crate::gpt2::Gpt2;
use crate::{Config, Error, KvCache, Result};

/// How a model is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Which attention kernels.
    pub attention: AttentionKind,
    /// Rows of the largest batch.
    pub max_rows: usize,
    /// Rows of the largest batch that want logits.
    pub max_outputs: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { attention: AttentionKind::Auto, max_rows: 512, max_outputs: 1 }
    }
}

#[derive(Debug)]
enum Network<D: Device> {
    Gpt2(Gpt2<D>),
}

/// A model on a device.
#[derive(Debug)]
pub struct Model<D: Device> {
    device: D,
    config: Config,
    options: Options,
    network: Network<D>,
    step: Step<D>,
    acts: Activations<D>,
}

impl<D: Device> Model<D> {
    /// Loads the model that `files` hold.
    ///
    /// # Errors
    /// An unknown architecture, a config that is contradictory or asks for what is not supported, a tensor that is
    /// missing, misshapen or of an unsupported type, or a device without memory for it.
    pub fn load(files: &ModelFiles, device: D, options: Options) -> Result<Self> {
        #[derive(Deserialize)]
        struct Kind {
            model_type: String,
        }
        let kind: Kind = files.hugging_face()?.config()?;
        let (config, network) = match kind.model_type.as_str() {
            "gpt2" => {
                let (config, model) = Gpt2::load(files, &device)?;
                (config, Network::Gpt2(model))
            }
            _ => {
                return Err(Error::Architecture {
                    path: files.origin.join("config.json"),
                    found: kind.model_type,
                    supported: "gpt2",
                });
            }
        };
        let shape = ActivationShape {
            rows: options.max_rows,
            outputs: options.max_outputs,
            n_embd: config.n_embd,
            attention: config.attention(options.attention),
            n_inner: config.n_inner,
            n_vocab: config.n_vocab,
        };
        let acts = Activations::new(&device, shape, false)?;
        let step = Step::new(&device)?;
        Ok(Self { device, config, options, network, step, acts })
    }

    /// The device.
    pub const fn device(&self) -> &D {
        &self.device
    }

    /// The sizes.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// How it runs.
    pub const fn options(&self) -> Options {
        self.options
    }

    /// Runs `batch`; its keys and values go into `cache`, the logits of its output rows into
    /// [`Model::logits`].
    ///
    /// # Errors
    /// A batch larger than planned for, a token or position outside the model's tables, or the device's.
    pub fn forward(&mut self, batch: &Batch, cache: &mut KvCache<D>) -> Result<()> {
        self.check(batch)?;
        if batch.rows() == 0 {
            return Ok(());
        }
        self.step.load(&self.device, batch)?;
        let heads = self.acts.shape.attention;
        match &self.network {
            Network::Gpt2(m) => m.forward(&self.device, &self.step, cache, &mut self.acts, heads),
        }
    }

    /// Logits `[outputs, n_vocab]` of the last batch.
    pub const fn logits(&self) -> &D::Buffer {
        &self.acts.logits
    }

    /// Copies the logits of output `row` to the host.
    ///
    /// # Errors
    /// The device's, and a row that was not computed.
    pub fn read_logits(&self, row: usize, out: &mut [f32]) -> Result<()> {
        Ok(self.device.read_f32(&self.acts.logits, row * self.config.n_vocab, out)?)
    }

    fn check(&self, batch: &Batch) -> Result<()> {
        let Options { max_rows, max_outputs, .. } = self.options;
        let (have, outputs) = (batch.rows(), batch.outputs.len());
        if have > max_rows || outputs > max_outputs {
            return Err(Error::Batch { have, outputs, max_rows, max_outputs });
        }
        let (n_vocab, n_ctx) = (self.config.n_vocab, self.config.n_ctx);
        for (row, (&id, &position)) in batch.tokens.iter().zip(&batch.positions).enumerate() {
            if id as usize >= n_vocab {
                return Err(Error::Token { id, row, n_vocab });
            }
            if position as usize >= n_ctx {
                return Err(Error::Position { position, row, n_ctx });
            }
        }
        Ok(())
    }
}
