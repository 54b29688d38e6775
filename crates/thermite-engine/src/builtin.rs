//! Where models come from: the one in the program, the Hub's cache, or a path.

use thermite_formats::{EmbeddedModel, ModelFiles};

use crate::Result;
use crate::hub::{HUB, HubModel};

/// The name of the model that is part of the program.
pub const BUILTIN: &str = "stories-3m";

/// Opens the model `name`: [`BUILTIN`], `hf:OWNER/NAME` for one that was fetched from the Hub, or the path of a model
/// folder or file.
///
/// # Errors
/// Those of the files.
pub fn open_model(name: &str) -> Result<ModelFiles> {
    if let Some(model) = name.strip_prefix(HUB) {
        return Ok(ModelFiles::open(HubModel::parse(model)?.path()?)?);
    }
    if name != BUILTIN {
        return Ok(ModelFiles::open(name)?);
    }
    Ok(ModelFiles::embedded(EmbeddedModel {
        name: BUILTIN,
        config_json: thermite_stories_3m::CONFIG_JSON,
        tokenizer_json: thermite_stories_3m::TOKENIZER_JSON,
        tokenizer_config_json: None,
        generation_config_json: Some(thermite_stories_3m::GENERATION_CONFIG_JSON),
        safetensors: thermite_stories_3m::MODEL_SAFETENSORS,
    })?)
}
