//! Who may ask: whoever has one of the keys.

use axum::extract::{Request, State as Extract};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::openai::ApiError;
use crate::state::Shared;

/// A key that no request can have: it would lock everybody out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key in line {line} has the character {character:?}; a header takes only visible ASCII")]
pub struct KeyError {
    /// Where it is, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub character: char,
}

/// The keys, of which requests must have one; without keys anybody may ask.
#[derive(Clone, Default)]
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// Keys, one a line; empty lines and those that begin with `#` are none.
    ///
    /// # Errors
    /// [`KeyError`] for one that no request can have.
    pub fn from_lines(lines: &str) -> Result<Self, KeyError> {
        let lines = (1..).zip(lines.lines().map(str::trim));
        let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let keys = keys.map(|(line, key)| match key.chars().find(|&c| c != ' ' && !c.is_ascii_graphic()) {
            None => Ok(digest(key)),
            Some(character) => Err(KeyError { line, character }),
        });
        Ok(Self(keys.collect::<Result<_, _>>()?))
    }

    /// Those of both.
    #[must_use]
    pub fn and(mut self, more: Self) -> Self {
        self.0.extend(more.0);
        self
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `key` is one of them; how long that takes says nothing of the keys.
    fn contain(&self, key: &str) -> bool {
        let asked = digest(key);
        let found = self.0.iter().fold(Choice::from(0), |found, key| found | key.ct_eq(&asked));
        found.into()
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// Lets those through that have a key.
pub(crate) async fn authorize(Extract(state): Shared, request: Request, next: Next) -> Response {
    if state.keys.is_empty() {
        return next.run(request).await;
    }
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key =
        given.and_then(|value| value.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
    let message = match key {
        Some((_, key)) if state.keys.contain(key.trim()) => return next.run(request).await,
        Some(_) => "the API key is none of this server's",
        None => "this server wants an API key: send the header Authorization: Bearer KEY",
    };
    ApiError::refused(StatusCode::UNAUTHORIZED, message).code("invalid_api_key").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_lines() {
        let of = |lines| Keys::from_lines(lines).unwrap();
        let keys = of("# mine\n abc \r\n\nd e\n").and(of("f"));
        assert!(["abc", "d e", "f"].iter().all(|key| keys.contain(key)));
        assert!(["", "ab", "abcd", "# mine"].iter().all(|key| !keys.contain(key)));
        assert_eq!(format!("{keys:?}"), "Keys(3)");
        assert!(of("\n#\n").is_empty());
    }

    #[test]
    fn a_key_that_cannot_be_sent_is_refused() {
        for (lines, line, character) in
            [("a\nключ", 2, 'к'), ("\u{feff}a", 1, '\u{feff}'), ("#\n\na\0b", 3, '\0'), ("a\rb", 1, '\r')]
        {
            assert_eq!(Keys::from_lines(lines).unwrap_err(), KeyError { line, character });
        }
    }
}
