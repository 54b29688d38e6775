//! A model of any architecture on a device, with what one forward pass needs around it.

use thermite_device::{
    ActivationShape, Activations, AttentionKind, Batch, Device, Norm, Step, StepForm, boxes,
};
use thermite_formats::ModelFiles;

use crate::config::architecture;
use crate::gemma::{self, Gemma, GemmaConfig};
use crate::gpt2::{self, Gpt2, Gpt2Config};
use crate::llama::{self, Llama, LlamaConfig};
use crate::loader::{Loader, Packing};
use crate::recordings::Recordings;
use crate::{Architecture, Config, Error, KvCache, Result};

/// The type in which a device is given weight matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weights {
    /// As the files have them.
    #[default]
    Stored,
    /// As float32, whatever the files have: no faster, and the plain version of arithmetic on blocks.
    F32,
}

/// How a model is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Which attention kernels.
    pub attention: AttentionKind,
    /// How weights are held.
    pub weights: Weights,
    /// Tokens of the longest context that will be asked for; all that the model has if none is given.
    pub context: Option<usize>,
    /// Rows of the largest batch.
    pub max_rows: usize,
    /// Rows of the largest batch that want logits.
    pub max_outputs: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            attention: AttentionKind::Auto,
            weights: Weights::Stored,
            context: None,
            max_rows: 512,
            max_outputs: 1,
        }
    }
}

impl Options {
    /// Tokens of the longest context.
    pub(crate) fn context_of(&self, config: &Config) -> usize {
        self.context.map_or(config.n_ctx, |context| context.min(config.n_ctx))
    }
}

/// The layers of an architecture.
#[derive(Debug)]
pub(crate) enum Network<D: Device> {
    Gpt2(Gpt2<D>),
    Llama(Llama<D>),
    Gemma(Gemma<D>),
}

impl<D: Device> Network<D> {
    /// Logits of the step's output rows, into `acts.logits`.
    pub(crate) fn forward(
        &self,
        device: &D,
        step: &Step<D>,
        cache: &mut KvCache<D>,
        acts: &mut Activations<D>,
    ) -> Result<()> {
        match self {
            Self::Gpt2(network) => network.forward(device, step, cache, acts),
            Self::Llama(network) => network.forward(device, step, cache, acts),
            Self::Gemma(network) => network.forward(device, step, cache, acts),
        }
    }

    /// The norm before the head.
    const fn final_norm(&self) -> &Norm<D> {
        match self {
            Self::Gpt2(network) => &network.ln_f,
            Self::Llama(network) => &network.norm,
            Self::Gemma(network) => &network.norm,
        }
    }
}

/// A model on a device.
#[derive(Debug)]
pub struct Model<D: Device> {
    device: D,
    config: Config,
    options: Options,
    network: Network<D>,
    packing: Packing,
    step: Step<D>,
    acts: Activations<D>,
    recordings: Recordings<(StepForm, u64), D::Recording>,
}

impl<D: Device> Model<D> {
    /// Loads the model that `files` hold.
    ///
    /// # Errors
    /// An unknown architecture, a config that is contradictory or asks for what is not supported, a tensor that is
    /// missing, misshapen or of an unsupported type, or a device without memory for it.
    pub fn load(files: &ModelFiles, device: D, options: Options) -> Result<Self> {
        let (architecture, fields) = architecture(files)?;
        let loader = |folder| Loader::new(files, folder, fields.format(), &device, options.weights);
        let (config, network, packing) = match architecture {
            Architecture::Gpt2 => {
                let config = Gpt2Config::read(&fields, files)?;
                let load = loader(gpt2::FOLDER);
                let network = Network::Gpt2(Gpt2::load(&config, &load, &options)?);
                load.finish(|tensor| gpt2::is_mask(tensor) || config.sizes.is_second_head(tensor.name))?;
                (config.sizes, network, load.packing())
            }
            Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 | Architecture::Qwen3 => {
                let config = LlamaConfig::read(architecture, &fields, files)?;
                let load = loader(llama::FOLDER);
                let network = Network::Llama(Llama::load(&config, &load, &options)?);
                load.finish(|tensor| llama::is_angle(tensor) || config.sizes.is_second_head(tensor.name))?;
                (config.sizes, network, load.packing())
            }
            Architecture::Gemma2 | Architecture::Gemma3 => {
                let config = GemmaConfig::read(architecture, &fields, files)?;
                let load = loader(gemma::FOLDER);
                let network = Network::Gemma(Gemma::load(&config, &load, &options)?);
                load.finish(|tensor| {
                    gemma::is_of_images(tensor) || config.sizes.is_second_head(tensor.name)
                })?;
                (config.sizes, network, load.packing())
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
        let acts = Activations::new(&device, shape, config.is_gated())?;
        let step = Step::new(&device)?;
        Ok(Self { device, config, options, network, packing, step, acts, recordings: Recordings::default() })
    }

    /// The device.
    pub const fn device(&self) -> &D {
        &self.device
    }

    /// The sizes.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What it took to lay out its matrices for the device.
    pub const fn packing(&self) -> Packing {
        self.packing
    }

    /// How it runs.
    pub const fn options(&self) -> Options {
        self.options
    }

    /// Tokens of the longest context.
    pub fn context(&self) -> usize {
        self.options.context_of(&self.config)
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
        let Self { device, network, step, acts, recordings, .. } = self;
        recordings.run(device, (step.form(), cache.id()), || network.forward(device, step, cache, acts))
    }

    /// What a step runs on and through.
    pub(crate) const fn parts(&mut self) -> (&D, &Network<D>, &mut Activations<D>) {
        (&self.device, &self.network, &mut self.acts)
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

    /// Copies the final hidden states `[rows, n_embd]` of the first `rows` rows of the last batch to the host: what the
    /// head would make logits from, for rows that want none too.
    ///
    /// # Errors
    /// The device's, and rows that were not computed.
    pub fn read_hidden(&mut self, rows: usize, out: &mut [f32]) -> Result<()> {
        let Self { device, network, acts, step, options, .. } = self;
        if rows > step.rows() {
            let (max_rows, max_outputs) = (step.rows(), options.max_outputs);
            return Err(Error::Batch { have: rows, outputs: 0, max_rows, max_outputs });
        }
        let (x, normed, n_embd) = (&acts.residual, &mut acts.normed, acts.shape.n_embd);
        boxes::norm(device, network.final_norm(), x, normed, rows, n_embd)?;
        Ok(device.read_f32(&acts.normed, 0, out)?)
    }

    pub(crate) fn check(&self, batch: &Batch) -> Result<()> {
        let Options { max_rows, max_outputs, .. } = self.options;
        let (have, outputs) = (batch.rows(), batch.outputs.len());
        if have > max_rows || outputs > max_outputs {
            return Err(Error::Batch { have, outputs, max_rows, max_outputs });
        }
        let (n_vocab, n_ctx) = (self.config.n_vocab, self.context());
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
