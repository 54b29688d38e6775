//! `thermite quantize`.

use std::path::PathBuf;

use clap::Args;
use thermite_formats::DType;
use thermite_formats::convert::Types;

use super::shape::weight_type;

#[derive(Debug, Args)]
pub(crate) struct QuantizeArgs {
    /// What to read: a GGUF file, a Hugging Face folder, hf:OWNER/NAME, or the built-in stories-3m
    pub(crate) model: String,
    /// The GGUF file to write
    pub(crate) output: PathBuf,
    /// Type of the matrices
    #[arg(long = "type", value_name = "TYPE", value_parser = weight_type(), ignore_case = true, hide_possible_values = true)]
    pub(crate) matrices: DType,
    /// Type of the token embedding [default: the head's where both are one]
    #[arg(long, value_name = "TYPE", value_parser = weight_type(), ignore_case = true, hide_possible_values = true)]
    pub(crate) embedding_type: Option<DType>,
    /// Type of the output head [default: q6_k for types of fewer bits]
    #[arg(long, value_name = "TYPE", value_parser = weight_type(), ignore_case = true, hide_possible_values = true)]
    pub(crate) head_type: Option<DType>,
    /// Replace the file if it is there
    #[arg(long)]
    pub(crate) force: bool,
    /// Processor threads [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), allow_negative_numbers = true)]
    pub(crate) threads: Option<u16>,
}

impl QuantizeArgs {
    pub(crate) fn types(&self) -> Types {
        Types { matrices: self.matrices, embedding: self.embedding_type, head: self.head_type }
    }
}
