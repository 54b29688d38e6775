//! `thermite quantize`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use thermite_formats::DType;
use thermite_formats::convert::Types;

#[derive(Debug, Args)]
pub(crate) struct QuantizeArgs {
    /// What to read: a GGUF file, a Hugging Face folder, or the built-in stories-3m
    pub(crate) model: String,
    /// The GGUF file to write
    pub(crate) output: PathBuf,
    /// Type of the matrices
    #[arg(long = "type", value_enum, value_name = "TYPE", hide_possible_values = true)]
    pub(crate) matrices: TypeArg,
    /// Type of the token embedding [default: the head's where both are one]
    #[arg(long, value_enum, value_name = "TYPE", hide_possible_values = true)]
    pub(crate) embedding_type: Option<TypeArg>,
    /// Type of the output head [default: q6_k for types of fewer bits]
    #[arg(long, value_enum, value_name = "TYPE", hide_possible_values = true)]
    pub(crate) head_type: Option<TypeArg>,
    /// Replace the file if it is there
    #[arg(long)]
    pub(crate) force: bool,
    /// Processor threads [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), allow_negative_numbers = true)]
    pub(crate) threads: Option<u16>,
}

impl QuantizeArgs {
    pub(crate) fn types(&self) -> Types {
        Types {
            matrices: self.matrices.into(),
            embedding: self.embedding_type.map(DType::from),
            head: self.head_type.map(DType::from),
        }
    }
}

macro_rules! types {
    ($($variant:ident $name:literal,)*) => {
        /// A type that is written.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
        pub(crate) enum TypeArg {
            $(#[value(name = $name)] $variant,)*
        }

        impl From<TypeArg> for DType {
            fn from(arg: TypeArg) -> Self {
                match arg { $(TypeArg::$variant => Self::$variant,)* }
            }
        }
    };
}

types! {
    Q4_0 "q4_0",
    Q4_1 "q4_1",
    Q5_0 "q5_0",
    Q5_1 "q5_1",
    Q8_0 "q8_0",
    Q2K "q2_k",
    Q3K "q3_k",
    Q4K "q4_k",
    Q5K "q5_k",
    Q6K "q6_k",
    F16 "f16",
    BF16 "bf16",
    F32 "f32",
}
