//! Which tokens begin and end a text: what a model's configuration files say.

use serde::Deserialize;

use super::error::TokenizerError;

/// The tokens that begin and end a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// The id of the token that begins a text.
    pub bos: Option<u32>,
    /// The ids that end a text, sorted.
    pub eos: Vec<u32>,
    /// The spelling of the token that begins a text (`tokenizer_config.json`).
    pub bos_token: Option<String>,
    /// The spelling of the token that ends a text (`tokenizer_config.json`).
    pub eos_token: Option<String>,
}

impl SpecialTokens {
    /// Reads them from the texts of `config.json`, `tokenizer_config.json` and
    /// `generation_config.json`. Ids in the last take precedence over those in the first.
    ///
    /// # Errors
    /// [`TokenizerError::Config`] for a text of another form.
    pub fn from_configs(
        config: &str,
        tokenizer_config: Option<&str>,
        generation_config: Option<&str>,
    ) -> Result<Self, TokenizerError> {
        let config: Ids = read("config.json", config)?;
        let generation: Ids = match generation_config {
            Some(text) => read("generation_config.json", text)?,
            None => Ids::default(),
        };
        let spelled: Spellings = match tokenizer_config {
            Some(text) => read("tokenizer_config.json", text)?,
            None => Spellings::default(),
        };
        let bos = generation.bos_token_id.or(config.bos_token_id);
        let eos = generation.eos_token_id.or(config.eos_token_id);
        let mut eos = eos.map_or_else(Vec::new, OneOrMany::into_vec);
        eos.sort_unstable();
        eos.dedup();
        Ok(Self {
            bos: bos.and_then(|ids| ids.into_vec().first().copied()),
            eos,
            bos_token: spelled.bos_token.map(Spelling::into_string),
            eos_token: spelled.eos_token.map(Spelling::into_string),
        })
    }
}

fn read<'a, T: Deserialize<'a>>(file: &'static str, text: &'a str) -> Result<T, TokenizerError> {
    serde_json::from_str(text).map_err(|source| TokenizerError::Config { file, source })
}

#[derive(Default, Deserialize)]
struct Ids {
    bos_token_id: Option<OneOrMany>,
    eos_token_id: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a token id must be an id or a list of ids")]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

#[derive(Default, Deserialize)]
struct Spellings {
    bos_token: Option<Spelling>,
    eos_token: Option<Spelling>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a token must be a string or an object with its content")]
enum Spelling {
    Plain(String),
    Added { content: String },
}

impl Spelling {
    fn into_string(self) -> String {
        match self {
            Self::Plain(content) | Self::Added { content } => content,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_config_comes_before_config() {
        let config = r#"{"bos_token_id": 1, "eos_token_id": 2}"#;
        let tokens = SpecialTokens::from_configs(config, None, None).unwrap();
        assert_eq!((tokens.bos, tokens.eos), (Some(1), vec![2]));
        let generation = r#"{"eos_token_id": [9, 7, 9]}"#;
        let tokens = SpecialTokens::from_configs(config, None, Some(generation)).unwrap();
        assert_eq!((tokens.bos, tokens.eos), (Some(1), vec![7, 9]));
    }

    #[test]
    fn spellings_in_both_forms_and_none_at_all() {
        let spelled = r#"{"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>"}"#;
        let tokens = SpecialTokens::from_configs("{}", Some(spelled), None).unwrap();
        assert_eq!(tokens.bos_token.as_deref(), Some("<s>"));
        assert_eq!(tokens.eos_token.as_deref(), Some("</s>"));
        let none = r#"{"bos_token_id": null, "eos_token_id": null}"#;
        let tokens = SpecialTokens::from_configs(none, Some(r#"{"bos_token": null}"#), None);
        assert_eq!(tokens.unwrap(), SpecialTokens::default());
    }

    #[test]
    fn other_forms_are_errors_that_name_the_file() {
        for (bad, message) in [
            (r#"{"eos_token_id": -1}"#, "id or a list of ids"),
            (r#"{"eos_token_id": "a"}"#, "id or a list of ids"),
            ("{", "EOF"),
        ] {
            let error = SpecialTokens::from_configs(bad, None, None).unwrap_err().to_string();
            assert!(error.starts_with("config.json: ") && error.contains(message), "{error}");
        }
    }
}
