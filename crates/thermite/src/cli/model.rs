//! Which model, where, and how.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use thermite_device::launched::Variants;
use thermite_device::{AttentionKind, Dtype};
use thermite_engine::{BUILTIN, EngineOptions};

/// Which model, where, and how.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model and device")]
pub(crate) struct ModelArgs {
    /// A GGUF file, a Hugging Face folder, hf:OWNER/NAME, or the built-in stories-3m
    #[arg(short, long, default_value = BUILTIN, value_parser = NonEmptyStringValueParser::new(), value_name = "MODEL", env = "THERMITE_MODEL", hide_env_values = true)]
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Where, and how.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model and device")]
pub(crate) struct RunArgs {
    /// Where to compute; auto takes the best that there is here
    #[arg(long, value_enum, default_value_t = DeviceKind::Auto, value_name = "DEVICE", env = "THERMITE_DEVICE", hide_env_values = true)]
    pub(crate) device: DeviceKind,
    /// Processor threads [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), allow_negative_numbers = true)]
    pub(crate) threads: Option<u16>,
    /// On a GPU, the same bits for a text whatever the batch and the chunks, by slower kernels; the processor needs no option
    #[arg(long, conflicts_with = "attention")]
    pub(crate) batch_invariant: bool,
    #[command(flatten)]
    pub(crate) size: SizeArgs,
}

/// What the need of memory depends on.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model and device")]
pub(crate) struct SizeArgs {
    /// How attention is computed: auto is naive up to 512 tokens and flash above
    #[arg(long, value_enum, default_value_t = AttentionArg::Auto, value_name = "KIND")]
    pub(crate) attention: AttentionArg,
    /// Tokens that prompt and answers may have together [default: as many as the model can]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) context: Option<usize>,
    /// Number type of the keys and values kept for each token: f16 takes half the memory of f32, q8_0 (on the processor) a
    /// quarter [default: f32 on the processor, f16 on a GPU]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub(crate) kv_type: Option<KvArg>,
    /// Tokens of a prompt that are computed at once
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = at_least_one, allow_negative_numbers = true)]
    pub(crate) chunk: usize,
}

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    match whole(text)? {
        0 => Err("must be at least 1".to_owned()),
        n => Ok(n),
    }
}

pub(super) fn whole(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n > 1 << 20 => Err(format!("must be at most {}", 1 << 20)),
        Ok(n) => Ok(n),
        Err(e) => Err(format!("{e}")),
    }
}

impl RunArgs {
    /// The kernels of a device that has variants of them.
    pub(crate) const fn variants(&self) -> Variants {
        if self.batch_invariant { Variants::Invariant } else { Variants::Fast }
    }

    /// The arguments that say this.
    pub(crate) fn to_args(&self) -> Vec<String> {
        let Self { device, threads, batch_invariant, size } = self;
        let SizeArgs { attention, context, kv_type, chunk } = size;
        let mut args = vec![
            format!("--device={}", name(device)),
            format!("--chunk={chunk}"),
            match batch_invariant {
                true => "--batch-invariant".to_owned(),
                false => format!("--attention={}", name(attention)),
            },
        ];
        args.extend(kv_type.map(|kv_type| format!("--kv-type={}", name(&kv_type))));
        args.extend(threads.map(|n| format!("--threads={n}")));
        args.extend(context.map(|n| format!("--context={n}")));
        args
    }

    pub(crate) fn options(&self) -> EngineOptions {
        self.size.options()
    }
}

/// What an argument of this value is called.
fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

impl SizeArgs {
    pub(crate) fn options(&self) -> EngineOptions {
        EngineOptions {
            attention: self.attention.into(),
            context: self.context,
            chunk: self.chunk,
            kv_dtype: self.kv_type.map(Dtype::from),
            ..EngineOptions::default()
        }
    }
}

// The variants carry no documentation of their own: with it, clap would print every option on lines of its own.

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceKind {
    Auto,
    Cpu,
    #[cfg(all(feature = "cuda", any(target_os = "linux", target_os = "windows")))]
    Cuda,
    Emulated,
    EmulatedPlain,
    #[cfg(target_os = "macos")]
    Metal,
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
    #[value(name = "q8_0")]
    Q8_0,
}

impl From<KvArg> for Dtype {
    fn from(arg: KvArg) -> Self {
        match arg {
            KvArg::F32 => Self::F32,
            KvArg::F16 => Self::F16,
            KvArg::Q8_0 => Self::Q8_0,
        }
    }
}
