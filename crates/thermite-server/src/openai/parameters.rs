//! What requests for text have in common.

use std::collections::BTreeMap;

use serde::Deserialize;
use thermite_engine::scheduler::Job;
use thermite_engine::{Grammar, SamplingParams};
use utoipa::ToSchema;

use super::{ApiError, Other, ResponseFormat};
use crate::limits::Limits;
use crate::worker::TextJob;

/// How each token is chosen, and when the text ends.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct Parameters {
    /// A model of `/v1/models`; the first one if none is named.
    #[schema(example = "stories-3m")]
    pub(crate) model: Option<String>,
    /// Tokens of the answer at most; until the model ends or the context is full if not given.
    #[schema(minimum = 1)]
    max_tokens: Option<usize>,
    /// The same under its newer name.
    #[schema(minimum = 1)]
    max_completion_tokens: Option<usize>,
    /// 0 always takes the likeliest token; higher is wilder.
    #[schema(minimum = 0, default = 1.0)]
    temperature: Option<f32>,
    /// Only the likeliest tokens that together have this probability.
    #[schema(minimum = 0, maximum = 1, default = 1.0)]
    top_p: Option<f32>,
    /// Only so many of the likeliest tokens; 0 for all. Not of OpenAI's API.
    #[schema(minimum = 0, default = 0)]
    top_k: Option<usize>,
    /// Only tokens at least this fraction as likely as the likeliest. Not of OpenAI's API.
    #[schema(minimum = 0, maximum = 1, default = 0.0)]
    min_p: Option<f32>,
    /// Divides the logits of tokens that were there already; 1 for no change. Not of OpenAI's API.
    #[schema(minimum = 0.01, maximum = 100, default = 1.0)]
    repeat_penalty: Option<f32>,
    /// Tokens that the three penalties look back on. Not of OpenAI's API.
    #[schema(minimum = 0, default = 64)]
    repeat_last_n: Option<usize>,
    /// Taken from the logits of tokens that were there already.
    #[schema(minimum = -100, maximum = 100, default = 0.0)]
    presence_penalty: Option<f32>,
    /// Taken from the logits of tokens as often as they were there.
    #[schema(minimum = -100, maximum = 100, default = 0.0)]
    frequency_penalty: Option<f32>,
    /// The same seed gives the same text. Answer `i` of several gets `seed + i`.
    seed: Option<i64>,
    /// Answers to each prompt.
    #[schema(minimum = 1, default = 1)]
    n: Option<usize>,
    /// Strings that end the text, and are not part of it.
    stop: Option<OneOrMany>,
    /// Added to the logits of tokens, by their ids.
    logit_bias: Option<BTreeMap<String, f32>>,
    /// What the text has to be.
    response_format: Option<ResponseFormat>,
    /// Goes on past the model's own end of text. Not of OpenAI's API.
    #[schema(default = false)]
    ignore_eos: Option<bool>,
    /// The text comes in pieces, as server-sent events.
    #[schema(default = false)]
    stream: Option<bool>,
    /// How it comes then.
    stream_options: Option<StreamOptions>,
}

/// A string, or several.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(crate) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// How a stream ends.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamOptions {
    /// One more event with the numbers of tokens, before the last.
    #[serde(default)]
    include_usage: bool,
}

impl Parameters {
    /// Their names.
    pub(crate) const FIELDS: &[&str] = &[
        "model",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "repeat_penalty",
        "repeat_last_n",
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "n",
        "stop",
        "logit_bias",
        "response_format",
        "ignore_eos",
        "stream",
        "stream_options",
    ];

    /// What OpenAI's clients send besides.
    pub(crate) const OTHERS: &[Other] = &[
        Other::Ignored("user"),
        Other::Ignored("metadata"),
        Other::Ignored("safety_identifier"),
        Other::Ignored("prompt_cache_key"),
        Other::Ignored("prompt_cache_retention"),
        Other::Only("service_tier", &["\"auto\"", "\"default\""]),
        Other::Only("store", &["false"]),
    ];

    /// Whether the text comes in pieces.
    pub(crate) fn is_stream(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    /// Whether a stream tells the numbers of tokens.
    pub(crate) fn include_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage)
    }

    /// Answers to each prompt.
    ///
    /// # Errors
    /// 400 for none, or for more than are allowed.
    pub(crate) fn n(&self, limits: &Limits) -> Result<usize, ApiError> {
        match self.n.unwrap_or(1) {
            n if n == 0 || n > limits.choices => {
                let message = format!("n is {n}; it must be from 1 to {}", limits.choices);
                Err(ApiError::invalid(message).param("n"))
            }
            n => Ok(n),
        }
    }

    /// What the text has to be, if it has to be something.
    pub(crate) fn grammar(&self) -> Result<Option<Grammar>, ApiError> {
        self.response_format.as_ref().map_or(Ok(None), ResponseFormat::grammar)
    }

    /// The strings that end the text.
    ///
    /// # Errors
    /// 400 for too many or too long ones.
    fn stop(&self, limits: &Limits) -> Result<Vec<String>, ApiError> {
        let stop = self.stop.clone().map(OneOrMany::into_vec).unwrap_or_default();
        let too_long = stop.iter().any(|stop| stop.len() > limits.stop_bytes);
        if stop.len() > limits.stops || too_long {
            let Limits { stops, stop_bytes, .. } = limits;
            let message = format!("stop may be up to {stops} strings of {stop_bytes} bytes");
            return Err(ApiError::invalid(message).param("stop"));
        }
        Ok(stop)
    }

    /// The same in the engine's terms: a job without its prompt.
    ///
    /// # Errors
    /// 400 for the first that is outside its range.
    pub(crate) fn job(&self, limits: &Limits) -> Result<TextJob, ApiError> {
        if self.stream_options.is_some() && !self.is_stream() {
            let message = "stream_options is for requests with stream: true";
            return Err(ApiError::invalid(message).param("stream_options"));
        }
        let off = SamplingParams {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            ..SamplingParams::default()
        };
        let job = Job {
            sampling: SamplingParams {
                temperature: self.temperature.unwrap_or(off.temperature),
                top_k: self.top_k.unwrap_or(off.top_k),
                top_p: self.top_p.unwrap_or(off.top_p),
                min_p: self.min_p.unwrap_or(off.min_p),
                repeat_penalty: self.repeat_penalty.unwrap_or(off.repeat_penalty),
                repeat_last_n: self.repeat_last_n.unwrap_or(off.repeat_last_n),
                presence_penalty: self.presence_penalty.unwrap_or(off.presence_penalty),
                frequency_penalty: self.frequency_penalty.unwrap_or(off.frequency_penalty),
                seed: self.seed.map(i64::cast_unsigned),
                ..off
            },
            max_tokens: self.max_tokens(limits)?,
            ignore_eos: self.ignore_eos.unwrap_or(false),
            logit_bias: self.logit_bias()?,
            ..Job::default()
        };
        Ok(TextJob { job, stop: self.stop(limits)?, shown: Vec::new() })
    }

    fn logit_bias(&self) -> Result<Vec<(u32, f32)>, ApiError> {
        let bias = self.logit_bias.iter().flatten().map(|(token, &bias)| match token.parse() {
            Ok(token) => Ok((token, bias)),
            Err(_) => {
                let message = format!("logit_bias is by token ids, and {token:?} is none");
                Err(ApiError::invalid(message).param("logit_bias"))
            }
        });
        bias.collect()
    }

    fn max_tokens(&self, limits: &Limits) -> Result<Option<usize>, ApiError> {
        let (name, asked) = match (self.max_completion_tokens, self.max_tokens) {
            (Some(a), Some(b)) if a != b => {
                let message =
                    format!("max_completion_tokens is {a}, but max_tokens is {b}: they are the same");
                return Err(ApiError::invalid(message).param("max_tokens"));
            }
            (Some(asked), _) => ("max_completion_tokens", Some(asked)),
            (None, asked) => ("max_tokens", asked),
        };
        match (asked, limits.tokens) {
            (Some(asked), Some(most)) if asked > most => {
                let message = format!("{name} is {asked}; this server allows {most}");
                Err(ApiError::invalid(message).param(name))
            }
            (Some(0), _) => Err(ApiError::invalid(format!("{name} is 0; it must be at least 1")).param(name)),
            (asked, most) => Ok(asked.or(most)),
        }
    }
}
