//! Which fields a request may have: what is not known is refused by name, and so is what is known but not supported.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::ApiError;

/// A JSON object that a client sent.
pub(crate) type Fields = Map<String, Value>;

/// A field of OpenAI's that this server does not act on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Other {
    /// It says something about the caller, not about the answer.
    Ignored(&'static str),
    /// It may only say what happens anyway: `null`, or one of these values (in JSON).
    Only(&'static str, &'static [&'static str]),
    /// It asks for what this server does not do.
    Unsupported(&'static str),
}

impl Other {
    const fn name(self) -> &'static str {
        match self {
            Self::Ignored(name) | Self::Only(name, _) | Self::Unsupported(name) => name,
        }
    }

    fn check(self, value: &Value) -> Result<(), ApiError> {
        match self {
            Self::Ignored(_) => Ok(()),
            _ if value.is_null() => Ok(()),
            Self::Only(_, allowed) if allowed.contains(&value.to_string().as_str()) => Ok(()),
            Self::Only(name, allowed) => Err(unsupported(format!(
                "{name} is supported only as {}; the request has {}",
                allowed.join(" or "),
                shortened(value)
            ))
            .param(name)),
            Self::Unsupported(name) => Err(unsupported(format!("{name} is not supported")).param(name)),
        }
    }
}

fn unsupported(message: String) -> ApiError {
    ApiError::invalid(message).code("unsupported_parameter")
}

/// `value` as JSON, so short that it can be quoted.
pub(crate) fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Checks that each field is one of `known`, or one of `others` with a value that it may have.
pub(crate) fn check(fields: &Fields, known: &[&[&str]], others: &[Other]) -> Result<(), ApiError> {
    for (name, value) in fields {
        if known.iter().any(|known| known.contains(&name.as_str())) {
            continue;
        }
        match others.iter().find(|other| other.name() == name) {
            Some(other) => other.check(value)?,
            None => {
                let name = shortened(&json!(name));
                let error = ApiError::invalid(format!("unknown field {name}")).code("unknown_parameter");
                return Err(error.param(name.trim_matches('"')));
            }
        }
    }
    Ok(())
}

/// Reads those fields that `T` has.
pub(crate) fn read<T: DeserializeOwned>(fields: &Fields) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(Value::Object(fields.clone())).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        match path.as_str() {
            "." => ApiError::invalid(inner.to_string()),
            path => ApiError::invalid(format!("{path}: {inner}")).param(path),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: &str) -> Fields {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn every_field_is_known_harmless_or_refused_by_name() {
        const OTHERS: &[Other] =
            &[Other::Ignored("user"), Other::Only("store", &["false"]), Other::Unsupported("audio")];
        let check = |json| check(&fields(json), &[&["a"], &["b"]], OTHERS).map_err(|e| e.body.error.message);
        assert_eq!(check(r#"{"a": 1, "b": 2, "user": [], "store": false, "audio": null}"#), Ok(()));
        let error = |json| check(json).unwrap_err();
        assert_eq!(error(r#"{"c": 1}"#), "unknown field \"c\"");
        assert_eq!(error(r#"{"store": true}"#), "store is supported only as false; the request has true");
        assert_eq!(error(r#"{"audio": {}}"#), "audio is not supported");
        assert!(error(&format!(r#"{{"{}": 1}}"#, "é".repeat(9999))).len() < 200);
    }

    #[test]
    fn errors_say_where() {
        #[derive(Debug, serde::Deserialize)]
        struct Outer {
            #[allow(dead_code)]
            inner: Vec<u8>,
        }
        let error = read::<Outer>(&fields(r#"{"inner": [1, "x"]}"#)).unwrap_err().body.error;
        assert_eq!(error.param.as_deref(), Some("inner[1]"));
        assert!(error.message.starts_with("inner[1]: invalid type"), "{}", error.message);
        assert_eq!(read::<Outer>(&fields("{}")).unwrap_err().body.error.message, "missing field `inner`");
    }
}
