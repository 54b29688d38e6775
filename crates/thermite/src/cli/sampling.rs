//! How tokens are chosen and when to end.

use clap::Args;
use thermite_engine::{GenerateParams, SamplingParams};

/// How tokens are chosen and when to end.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sampling: how each token is chosen, and when to end")]
pub(crate) struct SamplingArgs {
    /// Tokens to write at most [default: until the model ends, or the context is full]
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true)]
    max_tokens: Option<usize>,
    /// 0 always takes the likeliest token; higher is wilder
    #[arg(long, value_name = "T", default_value_t = SamplingParams::default().temperature, allow_negative_numbers = true)]
    temperature: f32,
    /// Only the K likeliest tokens; 0 for all
    #[arg(long, value_name = "K", default_value_t = SamplingParams::default().top_k, allow_negative_numbers = true)]
    top_k: usize,
    /// Only the likeliest tokens that together have probability P; 1 for all
    #[arg(long, value_name = "P", default_value_t = SamplingParams::default().top_p, allow_negative_numbers = true)]
    top_p: f32,
    /// Only tokens at least P times as likely as the likeliest; 0 for all
    #[arg(long, value_name = "P", default_value_t = SamplingParams::default().min_p, allow_negative_numbers = true)]
    min_p: f32,
    /// Makes tokens that were there already less likely: divides their scores by X; 1 for no change
    #[arg(long, value_name = "X", default_value_t = SamplingParams::default().repeat_penalty, allow_negative_numbers = true)]
    repeat_penalty: f32,
    /// Tokens that the three penalties look back on
    #[arg(long, value_name = "N", default_value_t = SamplingParams::default().repeat_last_n, allow_negative_numbers = true)]
    repeat_last_n: usize,
    /// Taken from the scores of tokens that were there already
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f32,
    /// Taken from the scores of tokens as often as they were there
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// Squeezes all scores into -CAP to CAP, as some models want it
    #[arg(long, value_name = "CAP", allow_negative_numbers = true)]
    softcap: Option<f32>,
    /// The same seed gives the same text [default: another each time]
    #[arg(long, value_name = "SEED", allow_negative_numbers = true)]
    seed: Option<u64>,
    /// Ends the text where TEXT would begin; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
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
            ..GenerateParams::default()
        }
    }
}
