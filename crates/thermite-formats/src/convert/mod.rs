//! Any model that is read, written as GGUF: in another type, from another format.
//!
//! A [`Plan`] says what will be written: metadata, tensors, their types. [`Plan::write`] writes it.

mod architecture;
mod config;
mod fault;
mod hugging_face;
mod pre_tokenizer;
mod rows;
mod tokenizer;
mod types;
mod write;

use std::path::{Path, PathBuf};

pub use fault::ConvertFault;
pub use types::Types;

use crate::dtype::DType;
use crate::error::Result;
use crate::gguf::{HeaderWriter, Metadata, TensorInfo};
use crate::model_files::ModelFiles;
use crate::source::Source;
use crate::tensors::Tensors;
use rows::{Order, Rows};
use types::file_type;

/// Version of the quantised blocks' layout, as `general.quantization_version` states it.
const QUANTIZATION_VERSION: u32 = 2;

/// A GGUF file that is to be written.
#[derive(Debug)]
pub struct Plan<'a> {
    origin: PathBuf,
    header: HeaderWriter,
    /// In the order of the header's tensors.
    rows: Vec<Rows<'a>>,
    /// What was wanted and what it became, of tensors whose rows are not whole blocks.
    fallbacks: Vec<[DType; 2]>,
    types: Types,
}

impl<'a> Plan<'a> {
    /// Plans to write `files` with these `types`. GGUF's metadata are kept; those of a Hugging Face folder are made
    /// from its `config.json` and `tokenizer.json`.
    ///
    /// # Errors
    /// An architecture, a config field, a tensor or a tokenizer that GGUF has no place for.
    pub fn new(files: &'a ModelFiles, types: Types) -> Result<Self> {
        let mut plan = Self {
            origin: files.origin.clone(),
            header: HeaderWriter::default(),
            rows: Vec::new(),
            fallbacks: Vec::new(),
            types,
        };
        match &files.source {
            Source::Gguf(metadata) => plan.add_gguf(metadata, &files.tensors)?,
            Source::HuggingFace(folder) => hugging_face::add(&mut plan, folder, &files.tensors)?,
        }
        plan.header.set("general.file_type", &file_type(types.matrices));
        plan.header.set("general.quantization_version", &QUANTIZATION_VERSION);
        Ok(plan)
    }

    fn add_gguf(&mut self, metadata: &Metadata, tensors: &'a Tensors) -> Result<()> {
        /// Of the file that is read, not of the one that is written.
        const DROPPED: &str = "general.alignment";
        for (key, value) in metadata.iter().filter(|(key, _)| *key != DROPPED) {
            self.header.copy(key, value);
        }
        let tied = !tensors.contains("output.weight");
        for tensor in tensors.iter() {
            self.add(tensor.name.to_owned(), Rows::Of(tensor, Order::Same), tied)?;
        }
        Ok(())
    }

    /// Adds a tensor under its GGUF name.
    fn add(&mut self, name: String, rows: Rows<'a>, tied: bool) -> Result<()> {
        rows.check()?;
        let shape = rows.shape();
        let dtype = match &rows {
            // what is no number of a network stays what it is
            Rows::Of(tensor, _) if is_integer(tensor.dtype) => tensor.dtype,
            _ => {
                let wanted = self.types.choose(&name, &shape, tied);
                let fitting = types::fitting(wanted, shape.last().copied().unwrap_or(1));
                if fitting != wanted {
                    self.fallbacks.push([wanted, fitting]);
                }
                fitting
            }
        };
        self.header.tensor(TensorInfo { name, dtype, shape });
        self.rows.push(rows);
        Ok(())
    }

    /// The tensors that will be written.
    pub fn tensors(&self) -> &[TensorInfo] {
        self.header.tensors()
    }

    /// The model that it is made from.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// Of each tensor whose rows are not whole blocks of the type that it should have: that type, and the one that
    /// it gets.
    pub fn fallbacks(&self) -> &[[DType; 2]] {
        &self.fallbacks
    }
}

const fn is_integer(dtype: DType) -> bool {
    matches!(dtype, DType::I8 | DType::I16 | DType::I32 | DType::I64)
}
