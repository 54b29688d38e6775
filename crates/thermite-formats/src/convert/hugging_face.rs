//! From a Hugging Face folder to GGUF's metadata and tensors.

use super::architecture::Architecture;
use super::config::Config;
use super::rows::Rows;
use super::{ConvertFault, Plan, tokenizer};
use crate::error::{Error, Result};
use crate::source::{CONFIG, HuggingFace, TOKENIZER};
use crate::tensors::Tensors;

/// Adds everything to `plan`.
pub(super) fn add<'a>(plan: &mut Plan<'a>, folder: &HuggingFace, tensors: &'a Tensors) -> Result<()> {
    let fault_in = |file: &str| {
        let path = folder.folder.join(file);
        move |fault| Error::Convert { path: path.clone(), fault }
    };
    let config: Config = folder.config()?;
    let Some(architecture) = Architecture::of(&config.model_type) else {
        let (found, known) = (config.model_type, Architecture::known());
        return Err(fault_in(CONFIG)(ConvertFault::Architecture { found, known }));
    };
    plan.header.set("general.type", "model");
    if let Some(name) = folder.folder.file_name() {
        plan.header.set("general.name", &*name.to_string_lossy());
    }
    let factors = config.describe(architecture, &mut plan.header).map_err(fault_in(CONFIG))?;
    let (head_dim, tied) =
        (config.head_dim(architecture).map_err(fault_in(CONFIG))?, config.is_tied(architecture));
    tokenizer::describe(
        folder,
        config.vocab_size.unwrap_or_default(),
        &mut plan.header,
        fault_in(TOKENIZER),
    )?;

    if let Some(factors) = factors {
        plan.add("rope_freqs.weight".to_owned(), Rows::Given(factors), tied)?;
    }
    for tensor in tensors.iter().filter(|tensor| architecture.is_weight(tensor.name)) {
        let Some(name) = architecture.rename(tensor.name) else {
            let (path, name) = (tensor.file.to_path_buf(), tensor.name.to_owned());
            return Err(Error::Convert {
                path,
                fault: ConvertFault::Tensor { name, architecture: architecture.name },
            });
        };
        // the embedding again
        if tied && name == "output.weight" {
            continue;
        }
        let order = architecture.order(&name, head_dim);
        plan.add(name, Rows::Of(tensor, order), tied)?;
    }
    Ok(())
}
