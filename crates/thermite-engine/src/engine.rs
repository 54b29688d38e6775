//! A model with its tokenizer, cache and sampler: text in, text out.

use std::ops::ControlFlow;

use thermite_device::{AttentionKind, Batch, Device, Dtype, Outputs};
use thermite_formats::ModelFiles;
use thermite_model::{Config, KvCache, Model, Options};

use crate::blocks::{BlockPool, BlockTable};
use crate::chat::{ChatTemplates, Conversation};
use crate::chooser::Chooser;
use crate::files::load_tokenizer;
use crate::grammar::Grammars;
use crate::sampler::Sampler;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Tokens a block of the cache.
pub const BLOCK_SIZE: usize = 16;

/// How an engine is set up.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    /// Which attention kernels.
    pub attention: AttentionKind,
    /// Tokens of the context; all that the model has if none is given.
    pub context: Option<usize>,
    /// Rows of the largest batch: prompts are computed in chunks of so many tokens.
    pub chunk: usize,
    /// Rows of the largest batch that want logits.
    pub max_outputs: usize,
    /// Type of the cached keys and values; [`Device::kv_dtype`] if none is given.
    pub kv_dtype: Option<Dtype>,
    /// Tokens that the cache holds, of all sequences together; one context if none is given, and never less.
    pub cache_tokens: Option<usize>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            attention: AttentionKind::Auto,
            context: None,
            chunk: 512,
            max_outputs: 1,
            kv_dtype: None,
            cache_tokens: None,
        }
    }
}

impl EngineOptions {
    /// Rows of the largest batch: no chunk of a prompt is longer than the context.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.context.map_or(self.chunk, |context| self.chunk.min(context.max(1)))
    }

    /// Blocks of the cache for contexts of `context` tokens.
    #[must_use]
    pub fn blocks(&self, context: usize) -> usize {
        self.cache_tokens.unwrap_or(0).max(context).div_ceil(BLOCK_SIZE)
    }

    /// Tokens of the context that these options ask of a model.
    ///
    /// # Errors
    /// [`Error::Context`] for one that the model does not have.
    pub fn context_of(&self, config: &Config) -> Result<usize> {
        let n_ctx = config.n_ctx;
        match self.context.unwrap_or(n_ctx) {
            asked if asked == 0 || asked > n_ctx => Err(Error::Context { asked, n_ctx }),
            context => Ok(context),
        }
    }
}

/// A sequence in the cache.
#[derive(Debug, Default)]
pub struct Sequence {
    /// Its tokens, prompt and answers alike.
    pub(crate) tokens: Vec<u32>,
    /// How many of them are in the cache: a token that was just chosen is not, until the next step runs it.
    pub(crate) cached: usize,
    pub(crate) blocks: BlockTable,
}

impl Sequence {
    /// Its tokens, prompt and answers alike.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Adds a chosen token, to be run by the next [`Engine::extend`].
    pub(crate) fn push(&mut self, token: u32) {
        self.tokens.push(token);
    }
}

/// A model with its tokenizer, cache and sampler.
#[derive(Debug)]
pub struct Engine<D: Device> {
    pub(crate) model: Model<D>,
    pub(crate) tokenizer: Tokenizer,
    grammars: Grammars,
    pub(crate) cache: KvCache<D>,
    pub(crate) pool: BlockPool,
    pub(crate) sampler: Sampler<D>,
    pub(crate) batch: Batch,
    context: usize,
}

impl<D: Device> Engine<D> {
    /// Loads a model and makes room for one context.
    ///
    /// # Errors
    /// Those of the files, the model and the device; a context that the model does not have.
    pub fn load(files: &ModelFiles, device: D, options: &EngineOptions) -> Result<Self> {
        let tokenizer = load_tokenizer(files)?;
        let model_options = Options {
            attention: options.attention,
            context: options.context,
            max_rows: options.rows(),
            max_outputs: options.max_outputs,
            ..Options::default()
        };
        let model = Model::load(files, device, model_options)?;
        let context = options.context_of(model.config())?;
        let blocks = options.blocks(context);
        let (device, config) = (model.device(), model.config());
        let kv_dtype = options.kv_dtype.unwrap_or_else(|| device.kv_dtype());
        let cache = KvCache::new(device, config, blocks, BLOCK_SIZE, kv_dtype)?;
        let sampler = Sampler::new(device, config.n_vocab)?;
        let pool = BlockPool::new(blocks, BLOCK_SIZE);
        let grammars = Grammars::new(tokenizer.clone(), config.n_vocab);
        Ok(Self { model, tokenizer, grammars, cache, pool, sampler, batch: Batch::default(), context })
    }

    /// The device.
    pub const fn device(&self) -> &D {
        self.model.device()
    }

    /// The model's sizes.
    pub const fn config(&self) -> &Config {
        self.model.config()
    }

    /// The tokenizer.
    pub const fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Compiles grammars over the model's vocabulary.
    pub const fn grammars(&self) -> &Grammars {
        &self.grammars
    }

    /// Tokens that a sequence may have.
    pub const fn context(&self) -> usize {
        self.context
    }

    /// Token ids of `text`, each one checked against the model's vocabulary.
    ///
    /// # Errors
    /// The tokenizer's, or an id that the model does not have.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.known(self.tokenizer.encode(text, true, true)?)
    }

    /// As [`Engine::encode`], for a text that stands behind another: what begins a text is not added.
    ///
    /// # Errors
    /// As [`Engine::encode`].
    pub fn encode_more(&self, text: &str) -> Result<Vec<u32>> {
        self.known(self.tokenizer.encode(text, false, true)?)
    }

    /// Token ids of a conversation, as the model's chat template writes it. What messages say spells no special
    /// token: see [`Prompt`](crate::chat::Prompt).
    ///
    /// # Errors
    /// A template that fails or refuses the conversation; as [`Engine::encode`].
    pub fn encode_chat(&self, templates: &ChatTemplates, conversation: &Conversation) -> Result<Vec<u32>> {
        let prompt = templates.of(conversation).prompt(conversation, self.tokenizer.special_tokens())?;
        self.known(self.tokenizer.encode_prompt(&prompt)?)
    }

    fn known(&self, ids: Vec<u32>) -> Result<Vec<u32>> {
        let n_vocab = self.config().n_vocab;
        match ids.iter().find(|&&id| id as usize >= n_vocab) {
            None => Ok(ids),
            Some(&id) => {
                let piece = self.tokenizer.token_piece(id).unwrap_or_default();
                Err(Error::TokenId { id, piece, n_vocab })
            }
        }
    }

    /// Adds `tokens` to a sequence and runs all of it that is not yet in the cache, in chunks. Afterwards the logits
    /// of its last token are there to sample from; a sequence without news has its last token run again for that.
    ///
    /// # Errors
    /// An empty sequence; more tokens than the context holds; those of the model. The sequence is then as it was.
    pub fn extend(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<()> {
        self.extend_while(sequence, tokens, || ControlFlow::Continue(())).map(drop)
    }

    /// As [`Engine::extend`]; asks before every chunk after the first whether to go on. If not, what is left to run is
    /// run by the next call, and there are no logits yet.
    ///
    /// # Errors
    /// As [`Engine::extend`].
    pub fn extend_while(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[u32],
        go_on: impl FnMut() -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let (before, total) = (sequence.tokens.len(), sequence.tokens.len() + tokens.len());
        if total == 0 {
            return Err(Error::EmptyPrompt);
        }
        if total > self.context {
            return Err(Error::PromptTooLong { tokens: total, context: self.context });
        }
        self.pool.grow(&mut sequence.blocks, total)?;
        sequence.cached = sequence.cached.min(total - 1);
        sequence.tokens.extend_from_slice(tokens);
        let done = self.run(sequence, go_on);
        if done.is_err() {
            sequence.tokens.truncate(before);
            sequence.cached = sequence.cached.min(before);
        }
        done
    }

    fn run(
        &mut self,
        sequence: &mut Sequence,
        mut go_on: impl FnMut() -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let total = sequence.tokens.len();
        let first = sequence.cached;
        let mut start = first;
        while start < total {
            if start > first && go_on().is_break() {
                return Ok(ControlFlow::Break(()));
            }
            let end = total.min(start + self.model.options().max_rows);
            let outputs = if end == total { Outputs::Last } else { Outputs::None };
            let tokens = &sequence.tokens[start..end];
            self.batch.clear();
            self.batch.push(tokens, start, sequence.blocks.blocks(), BLOCK_SIZE, outputs)?;
            self.model.forward(&self.batch, &mut self.cache)?;
            start = end;
            sequence.cached = end;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Chooses the token that follows the sequence last extended.
    ///
    /// # Errors
    /// The device's, the constraint's, or logits from which nothing can be drawn.
    pub fn sample(&mut self, sequence: &Sequence, chooser: &mut Chooser) -> Result<u32> {
        let (device, logits) = (self.model.device(), self.model.logits());
        self.sampler.sample(device, logits, 0, chooser, &sequence.tokens)
    }

    /// The token of the largest logit in each of the last batch's first `rows` rows of logits.
    pub(crate) fn likeliest(&mut self, rows: usize) -> Result<Vec<u32>> {
        let (device, logits) = (self.model.device(), self.model.logits());
        self.sampler.argmax(device, logits, rows)
    }

    /// Forgets all of a sequence but its first `tokens` tokens, and gives back the blocks beyond them.
    pub fn truncate(&mut self, sequence: &mut Sequence, tokens: usize) {
        sequence.tokens.truncate(tokens);
        let cached = self.pool.shrink(&mut sequence.blocks, tokens);
        sequence.cached = sequence.cached.min(cached);
    }

    /// Log-probabilities (natural) of `targets`, target `i` being the token that follows `tokens[..= i]`.
    ///
    /// # Errors
    /// More tokens than the context holds; those of the model.
    pub fn score(&mut self, tokens: &[u32], targets: &[u32]) -> Result<Vec<f64>> {
        let mut sequence = Sequence::default();
        if tokens.len() > self.context {
            return Err(Error::PromptTooLong { tokens: tokens.len(), context: self.context });
        }
        self.pool.grow(&mut sequence.blocks, tokens.len())?;
        let scores = self.score_in(&sequence, tokens, targets);
        self.truncate(&mut sequence, 0);
        scores
    }

    fn score_in(&mut self, sequence: &Sequence, tokens: &[u32], targets: &[u32]) -> Result<Vec<f64>> {
        let options = self.model.options();
        let chunk = options.max_rows.min(options.max_outputs);
        let v = self.config().n_vocab;
        let mut scores = Vec::with_capacity(targets.len());
        let mut logits = Vec::new();
        for (i, rows) in tokens.chunks(chunk).enumerate() {
            self.batch.clear();
            self.batch.push(rows, i * chunk, sequence.blocks.blocks(), BLOCK_SIZE, Outputs::All)?;
            self.model.forward(&self.batch, &mut self.cache)?;
            logits.resize(rows.len() * v, 0.0);
            self.device().read_f32(self.model.logits(), 0, &mut logits)?;
            let targets = targets.iter().skip(i * chunk);
            let rows: Vec<_> = logits.chunks_exact(v).zip(targets).collect();
            scores.extend(log_probabilities(&rows));
        }
        Ok(scores)
    }
}

/// The log-probability of each row's target, the rows shared out over the machine's threads.
fn log_probabilities(rows: &[(&[f32], &u32)]) -> Vec<f64> {
    let one = |&(logits, &target): &(&[f32], &u32)| {
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&x| f64::from((x - top).exp())).sum();
        f64::from(logits[target as usize]) - f64::from(top) - sum.ln()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = rows.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = rows
            .chunks(share)
            .map(|part| scope.spawn(move || part.iter().map(one).collect::<Vec<_>>()))
            .collect();
        parts.into_iter().flat_map(|part| part.join().unwrap_or_default()).collect()
    })
}
