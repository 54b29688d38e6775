//! The command line.

mod help;
mod kernels;
mod load;
mod model;
mod quantize;
mod sampling;
mod serve;
mod shape;

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use thermite_engine::BUILTIN;
use thermite_formats::DType;
use thermite_model::random::Shape;

pub(crate) use self::kernels::{
    BenchKernelsArgs, CheckArgs, CheckDevice, KernelsArgs, KernelsCommand, ShowArgs,
};
use self::load::LoadArgs;
pub(crate) use self::model::{AttentionArg, DeviceKind, ModelArgs, RunArgs, SizeArgs};
use self::model::{at_least_one, whole};
pub(crate) use self::quantize::QuantizeArgs;
pub(crate) use self::sampling::SamplingArgs;
pub(crate) use self::serve::{LogFormat, ServeArgs};
use self::shape::{shape, weight_type};

// What it is called and what it is comes from Cargo.toml.
#[derive(Debug, Parser)]
#[command(name = "thermite", version, about, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = help::THERMITE)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write on from a prompt
    #[command(after_help = help::GENERATE)]
    Generate(GenerateArgs),
    /// Talk with a model, or write a text in turns with it
    #[command(after_help = help::CHAT)]
    Chat(ChatArgs),
    /// Serve models over HTTP, with OpenAI's API and a page to talk on
    #[command(after_help = help::SERVE)]
    Serve(ServeArgs),
    /// Measure how well a model predicts a text
    #[command(after_help = help::EVAL)]
    Eval(EvalArgs),
    /// Fetch a model from the Hugging Face Hub
    #[command(after_help = help::PULL)]
    Pull(PullArgs),
    /// Show the tokens of a text
    #[command(after_help = help::TOKENIZE)]
    Tokenize(TokenizeArgs),
    /// Show a model's sizes, tensors and need of memory
    #[command(after_help = help::INSPECT)]
    Inspect(InspectArgs),
    /// Write a model as a GGUF file, in numbers of fewer bits
    #[command(after_help = help::QUANTIZE)]
    Quantize(QuantizeArgs),
    /// Show a model's computation, kernel by kernel
    #[command(after_help = help::FLOW)]
    Flow(FlowArgs),
    /// Measure how fast prompts are read and texts are written
    #[command(after_help = help::BENCH)]
    Bench(BenchArgs),
    /// Read and check the Metal kernels
    #[command(after_help = help::KERNELS)]
    Kernels(KernelsArgs),
    /// Print a script that completes this command in a shell
    #[command(after_help = help::COMPLETIONS)]
    Completions(CompletionsArgs),
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
    /// The prompt is a message to an assistant: it is put into the model's chat template
    #[arg(long)]
    pub(crate) chat: bool,
    /// What the assistant is to know or to be, said before the prompt
    #[arg(long, value_name = "TEXT", requires = "chat")]
    pub(crate) system: Option<String>,
    /// Write a JSON text that is valid under the schema in FILE, and nothing else
    #[arg(long, value_name = "FILE", conflicts_with = "grammar")]
    pub(crate) json_schema: Option<PathBuf>,
    /// Write a text of the Lark grammar in FILE, and nothing else
    #[arg(long, value_name = "FILE")]
    pub(crate) grammar: Option<PathBuf>,
    /// Print one JSON object: text, prompt_token_ids, token_ids, finish_reason, timings
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// What the assistant is to know or to be, said before the conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// No chat template: what is typed is added to a text, and the model goes on from there
    #[arg(long, conflicts_with = "system")]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// The text; `-` for standard input
    pub(crate) file: PathBuf,
    /// Tokens of a window, read without what stands before it [default: 512, or a shorter context]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    pub(crate) window: Option<usize>,
    /// Print one JSON object: tokens, scored, windows, window, nll, perplexity
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TokenizeArgs {
    /// The text; `-` for standard input
    pub(crate) text: Option<String>,
    /// Read the text from a file
    #[arg(short, long, value_name = "FILE", conflicts_with = "text")]
    pub(crate) file: Option<PathBuf>,
    /// Take the text as it stands: nothing is added around it, <|endoftext|> and the like are plain text
    #[arg(long)]
    pub(crate) no_special: bool,
    /// Print one JSON object: ids, pieces
    #[arg(long)]
    pub(crate) json: bool,
    /// A GGUF file, a Hugging Face folder, hf:OWNER/NAME, or the built-in stories-3m
    #[arg(short, long, default_value = BUILTIN, value_parser = NonEmptyStringValueParser::new(), value_name = "MODEL", env = "THERMITE_MODEL", hide_env_values = true)]
    pub(crate) model: String,
}

#[derive(Debug, Args)]
#[cfg_attr(not(feature = "pull"), allow(dead_code))] // who reads it is a feature
pub(crate) struct PullArgs {
    /// The model: OWNER/NAME
    #[arg(value_name = "REPO")]
    pub(crate) repo: String,
    /// A branch, a tag or a commit
    #[arg(long, value_name = "REVISION", default_value = "main")]
    pub(crate) revision: String,
    /// Only this file; may be given several times
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A GGUF file, a Hugging Face folder, hf:OWNER/NAME, or the built-in stories-3m
    #[arg(default_value = BUILTIN, value_parser = NonEmptyStringValueParser::new(), env = "THERMITE_MODEL", hide_env_values = true)]
    pub(crate) model: String,
    /// Print one JSON object: model, config, parameters, totals, memory, tensors
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) size: SizeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct FlowArgs {
    /// A GGUF file, a Hugging Face folder, hf:OWNER/NAME, or the built-in stories-3m
    #[arg(default_value = BUILTIN, value_parser = NonEmptyStringValueParser::new(), env = "THERMITE_MODEL", hide_env_values = true)]
    pub(crate) model: String,
    /// Tokens of the prompt that is computed
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_least_one)]
    pub(crate) tokens: usize,
    /// How attention is computed: auto is naive up to 512 tokens and flash above
    #[arg(long, value_enum, default_value_t = AttentionArg::Auto, value_name = "KIND")]
    pub(crate) attention: AttentionArg,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// A GGUF file, a Hugging Face folder, hf:OWNER/NAME, or the built-in stories-3m
    #[arg(short, long, default_value = BUILTIN, value_parser = NonEmptyStringValueParser::new(), value_name = "MODEL", conflicts_with = "shape")]
    pub(crate) model: String,
    /// A well-known shape with random weights, instead of a model
    #[arg(long, value_name = "NAME", value_parser = shape())]
    pub(crate) shape: Option<Shape>,
    /// Type of such a shape's matrices
    #[arg(long, value_name = "TYPE", default_value = "F16", value_parser = weight_type(), ignore_case = true, requires = "shape")]
    pub(crate) weights: DType,
    /// Tokens of the prompts; with --serve [default: 128], one of these, by chance, for each request
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [128usize, 480], value_parser = at_least_one, default_value_if("serve", "true", "128"))]
    pub(crate) prompt: Vec<usize>,
    /// Tokens to decode
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = at_least_one)]
    pub(crate) tokens: usize,
    /// Tokens that were read before decoding
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [8usize], value_parser = whole)]
    pub(crate) depth: Vec<usize>,
    /// Sequences that decode together
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1u16], value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) sequences: Vec<u16>,
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
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

impl BenchArgs {
    /// Tokens of the longest context that is measured.
    pub(crate) fn longest(&self) -> usize {
        let decoded = self.depth.iter().map(|depth| depth + self.tokens);
        self.prompt.iter().copied().chain(decoded).max().unwrap_or(1)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    Markdown,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}
