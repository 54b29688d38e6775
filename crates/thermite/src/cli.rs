//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use thermite_device::{AttentionKind, Dtype};
use thermite_engine::{BUILTIN, EngineOptions, GenerateParams, SamplingParams};

/// An LLM inference engine whose heart is a set of Metal compute kernels.
#[derive(Debug, Parser)]
#[command(name = "thermite", version, about, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write on from a prompt
    #[command(after_help = GENERATE_EXAMPLES)]
    Generate(GenerateArgs),
    /// Measure how well a model predicts a text: negative log-likelihood and perplexity
    #[command(after_help = EVAL_EXAMPLES)]
    Eval(EvalArgs),
    /// Print a model's data flow, kernel by kernel, with the shapes of a batch
    #[command(after_help = FLOW_EXAMPLES)]
    Flow(FlowArgs),
    /// Measure prefill and decode speed
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(BenchArgs),
}

const GENERATE_EXAMPLES: &str = "\
Examples:
  thermite generate \"Once upon a time\"
  thermite generate \"The dog was very\" --temperature 0 -n 40
  thermite generate -f prompt.txt --seed 7 --top-k 20 --stop \"The end\"
  echo \"Tom and Mia\" | thermite generate --json";

const EVAL_EXAMPLES: &str = "\
Examples:
  thermite eval models/stories-3m/validation.txt
  thermite eval book.txt --model ~/models/gpt2 --window 1024 --json";

const FLOW_EXAMPLES: &str = "\
Examples:
  thermite flow
  thermite flow ~/models/gpt2 --tokens 128";

const BENCH_EXAMPLES: &str = "\
Examples:
  thermite bench
  thermite bench --shape gpt2-124m --prompt 512 --tokens 64
  thermite bench --format json --svg speed.svg";

/// Which model, where, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct ModelArgs {
    /// A Hugging Face folder, a .safetensors file, or the built-in stories-3m
    #[arg(short, long, default_value = BUILTIN, value_name = "MODEL", env = "THERMITE_MODEL")]
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Where, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// Where to compute
    #[arg(long, value_enum, default_value_t = DeviceKind::Auto, env = "THERMITE_DEVICE")]
    pub(crate) device: DeviceKind,
    /// CPU threads [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Attention kernels: naive up to 512 tokens of context and flash above, or always one of them
    #[arg(long, value_enum, default_value_t = AttentionArg::Auto)]
    pub(crate) attention: AttentionArg,
    /// Tokens of context [default: all that the model has]
    #[arg(short, long, value_name = "TOKENS")]
    pub(crate) context: Option<usize>,
    /// Type of the cached keys and values
    #[arg(long, value_enum, default_value_t = KvArg::F32, value_name = "TYPE")]
    pub(crate) kv_type: KvArg,
    /// Tokens of a prompt that are computed at once
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = at_least_one)]
    pub(crate) chunk: usize,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(n) if n > 1 << 20 => Err(format!("must be at most {}", 1 << 20)),
        Ok(n) => Ok(n),
        Err(e) => Err(format!("{e}")),
    }
}

impl RunArgs {
    pub(crate) fn options(&self) -> EngineOptions {
        EngineOptions {
            attention: self.attention.into(),
            context: self.context,
            chunk: self.chunk,
            kv_dtype: self.kv_type.into(),
            ..EngineOptions::default()
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceKind {
    /// The best that there is here
    Auto,
    /// The processor
    Cpu,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AttentionArg {
    Auto,
    Naive,
    Flash,
}

impl From<AttentionArg> for AttentionKind {
    fn from(arg: AttentionArg) -> Self {
        match arg {
            AttentionArg::Auto => Self::Auto,
            AttentionArg::Naive => Self::Naive,
            AttentionArg::Flash => Self::Flash,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KvArg {
    F32,
    F16,
}

impl From<KvArg> for Dtype {
    fn from(arg: KvArg) -> Self {
        match arg {
            KvArg::F32 => Self::F32,
            KvArg::F16 => Self::F16,
        }
    }
}

/// How tokens are chosen and when to end.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Tokens to write at most [default: until the model ends, or the context is full]
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) max_tokens: Option<usize>,
    /// 0 always takes the likeliest token; higher is wilder
    #[arg(long, value_name = "T", default_value_t = SamplingParams::default().temperature)]
    temperature: f32,
    /// Only the K likeliest tokens; 0 for all
    #[arg(long, value_name = "K", default_value_t = SamplingParams::default().top_k)]
    top_k: usize,
    /// Only the likeliest tokens that together have probability P; 1 for all
    #[arg(long, value_name = "P", default_value_t = SamplingParams::default().top_p)]
    top_p: f32,
    /// Only tokens at least P times as likely as the likeliest; 0 for all
    #[arg(long, value_name = "P", default_value_t = SamplingParams::default().min_p)]
    min_p: f32,
    /// Divides the logits of tokens that were there already; 1 for no change
    #[arg(long, value_name = "X", default_value_t = SamplingParams::default().repeat_penalty)]
    repeat_penalty: f32,
    /// Tokens that the penalties look back on
    #[arg(long, value_name = "N", default_value_t = SamplingParams::default().repeat_last_n)]
    repeat_last_n: usize,
    /// Taken from the logits of tokens that were there already
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f32,
    /// Taken from the logits of tokens for each time they were there
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// Squeezes logits into (-CAP, CAP) by tanh
    #[arg(long, value_name = "CAP")]
    softcap: Option<f32>,
    /// Same seed, same text [default: another each time]
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Ends the text where this string begins; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Goes on past the model's own end of text
    #[arg(long)]
    ignore_eos: bool,
}

impl SamplingArgs {
    pub(crate) fn params(&self) -> GenerateParams {
        GenerateParams {
            sampling: SamplingParams {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repeat_penalty: self.repeat_penalty,
                repeat_last_n: self.repeat_last_n,
                presence_penalty: self.presence_penalty,
                frequency_penalty: self.frequency_penalty,
                softcap: self.softcap,
                seed: self.seed,
            },
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// What to write on from; `-` for standard input
    pub(crate) prompt: Option<String>,
    /// Read the prompt from a file
    #[arg(short, long, value_name = "FILE", conflicts_with = "prompt")]
    pub(crate) file: Option<PathBuf>,
    /// Do not repeat the prompt before the text
    #[arg(long)]
    pub(crate) no_echo: bool,
    /// Print one JSON object: text, prompt_token_ids, token_ids, finish_reason, timings
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// The text; `-` for standard input
    pub(crate) file: PathBuf,
    /// Tokens a window, each read from an empty cache
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = at_least_one)]
    pub(crate) window: usize,
    /// Print one JSON object: tokens, scored, windows, window, nll, perplexity
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, Args)]
pub(crate) struct FlowArgs {
    /// A Hugging Face folder, a .safetensors file, or the built-in stories-3m
    #[arg(default_value = BUILTIN)]
    pub(crate) model: String,
    /// Tokens of the batch
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_least_one)]
    pub(crate) tokens: usize,
    /// Attention kernels
    #[arg(long, value_enum, default_value_t = AttentionArg::Auto)]
    pub(crate) attention: AttentionArg,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// A Hugging Face folder, a .safetensors file, or the built-in stories-3m
    #[arg(short, long, default_value = BUILTIN, value_name = "MODEL", conflicts_with = "shape")]
    pub(crate) model: String,
    /// A well-known shape with random f16 weights, instead of a model
    #[arg(long, value_enum)]
    pub(crate) shape: Option<ShapeArg>,
    /// Tokens of the prompts
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [128usize, 480])]
    pub(crate) prompt: Vec<usize>,
    /// Tokens to decode
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = at_least_one)]
    pub(crate) tokens: usize,
    /// Tokens in the cache before decoding
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [8usize])]
    pub(crate) depth: Vec<usize>,
    /// Measured runs of each, after one that warms up
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = at_least_one)]
    pub(crate) runs: usize,
    /// How to print
    #[arg(long, value_enum, default_value_t = FormatArg::Markdown)]
    pub(crate) format: FormatArg,
    /// Draw a plot too
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShapeArg {
    /// GPT-2 small
    #[value(name = "gpt2-124m")]
    Gpt2Small,
    /// GPT-2 medium
    #[value(name = "gpt2-355m")]
    Gpt2Medium,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    Markdown,
    Json,
}
