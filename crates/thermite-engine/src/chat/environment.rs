//! What a chat template may call: the environment that Hugging Face's templates are written for.

use std::fmt;

use jiff::Zoned;
use jiff::fmt::strtime::BrokenDownTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::json::Style;

/// Macros that call themselves, includes and the like may be nested so deep.
const MAX_RECURSION: usize = 100;

/// The template's own word that it cannot serve a conversation.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// An environment with blocks, filters and functions as Hugging Face's, in which JSON never escapes `mark`.
///
/// # Errors
/// None: the syntax is Jinja's own.
pub(super) fn environment(
    mark: Option<char>,
    fuel: u64,
    now: fn() -> Zoned,
) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_unknown_method_callback(unknown_method_callback);
    env.set_recursion_limit(MAX_RECURSION);
    env.set_fuel(Some(fuel));
    env.set_debug(false); // it would print values
    env.add_filter("tojson", move |state: &mut State<'_, '_>, value: &Value, style: Kwargs| {
        let json = Style::from_kwargs(&style, mark)?.dump(value)?;
        state.consume_fuel(json.len() as u64 / 4)?;
        Ok::<_, Error>(json)
    });
    env.add_filter("fromjson", |text: &str| {
        serde_json::from_str::<Value>(text).map_err(|e| wrong(format!("fromjson: {e}")))
    });
    // texts are both in Python, none is neither
    env.add_test("iterable", |value: &Value| is_any(value, &[ValueKind::Iterable]));
    env.add_test("sequence", |value: &Value| is_any(value, &[]));
    env.add_function("raise_exception", |message: String| {
        Err::<Value, _>(wrong("raised").with_source(Raised(message)))
    });
    env.add_function("strftime_now", move |format: &str| {
        let mut text = String::new();
        let written = BrokenDownTime::from(&now()).format(format, &mut text);
        written.map_err(|e| wrong(format!("strftime_now: {e}"))).map(|()| text)
    });
    Ok(env)
}

fn is_any(value: &Value, more: &[ValueKind]) -> bool {
    use ValueKind::{Map, Seq, String, Undefined};
    let kind = value.kind();
    matches!(kind, String | Seq | Map | Undefined) || more.contains(&kind)
}

fn wrong(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}
