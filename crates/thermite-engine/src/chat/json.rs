//! JSON as Python's `json.dumps` prints it: what models have seen of tools and arguments in training.

use std::fmt::Write;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Values inside values, at most: as many as the JSON parser allows.
const MAX_DEPTH: usize = 128;

/// How JSON is printed: the keyword arguments of `json.dumps`.
pub(super) struct Style {
    ensure_ascii: bool,
    sort_keys: bool,
    /// What one level is indented by; all on one line without.
    indent: Option<String>,
    between_items: String,
    after_key: String,
    /// Never escaped: it is taken out again.
    mark: Option<char>,
}

impl Style {
    /// Reads `ensure_ascii`, `indent`, `separators` and `sort_keys`.
    pub(super) fn from_kwargs(kwargs: &Kwargs, mark: Option<char>) -> Result<Self, Error> {
        let wrong = |what| Error::new(ErrorKind::InvalidOperation, what);
        let indent = match kwargs.get::<Option<Value>>("indent")? {
            None => None,
            Some(value) if value.is_none() => None,
            Some(value) => Some(match (value.as_str(), value.as_i64()) {
                (Some(text), _) => text.to_owned(),
                (None, Some(spaces @ ..=64)) => " ".repeat(spaces.max(0) as usize),
                _ => return Err(wrong("tojson: indent is a text, or up to 64 spaces")),
            }),
        };
        let (mut between_items, mut after_key) = (",".to_owned(), ": ".to_owned());
        if indent.is_none() {
            between_items.push(' ');
        }
        if let Some(pair) = kwargs.get::<Option<Value>>("separators")?.filter(|pair| !pair.is_none()) {
            let pair: Vec<Value> = pair.try_iter()?.collect();
            match pair.as_slice() {
                [items, keys] => (between_items, after_key) = (items.to_string(), keys.to_string()),
                _ => return Err(wrong("tojson: separators are two texts")),
            }
        }
        let style = Self {
            ensure_ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
            sort_keys: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
            indent,
            between_items,
            after_key,
            mark,
        };
        kwargs.assert_all_used()?;
        Ok(style)
    }

    /// `value` as JSON.
    pub(super) fn dump(&self, value: &Value) -> Result<String, Error> {
        let mut out = String::new();
        self.write(&mut out, value, 0)?;
        Ok(out)
    }

    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            let what = format!("tojson: more than {MAX_DEPTH} levels of nesting");
            return Err(Error::new(ErrorKind::InvalidOperation, what));
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => {
                let _ = write!(out, "{value}");
            }
            ValueKind::Number => out.push_str(&float(f64::try_from(value.clone())?)),
            ValueKind::String => self.quote(out, value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.enclose(out, ['[', ']'], &items, depth, |out, item| self.write(out, item, depth + 1))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.enclose(out, ['{', '}'], &keys, depth, |out, key| {
                    self.write_key(out, key)?;
                    out.push_str(&self.after_key);
                    self.write(out, &value.get_item(key)?, depth + 1)
                })?;
            }
            kind => {
                let what = format!("tojson: {kind} is not JSON serializable");
                return Err(Error::new(ErrorKind::BadSerialization, what));
            }
        }
        Ok(())
    }

    fn write_key(&self, out: &mut String, key: &Value) -> Result<(), Error> {
        match key.as_str() {
            Some(text) => self.quote(out, text),
            None => {
                let mut text = String::new();
                self.write(&mut text, key, MAX_DEPTH)?;
                self.quote(out, &text);
            }
        }
        Ok(())
    }

    fn enclose(
        &self,
        out: &mut String,
        [open, close]: [char; 2],
        items: &[Value],
        depth: usize,
        mut write: impl FnMut(&mut String, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(open);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push_str(&self.between_items);
            }
            self.new_line(out, depth + 1);
            write(out, item)?;
        }
        if !items.is_empty() {
            self.new_line(out, depth);
        }
        out.push(close);
        Ok(())
    }

    fn new_line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    }

    fn quote(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                _ if Some(c) == self.mark => out.push(c),
                '\0'..'\u{20}' => escape(out, c),
                '\u{7f}'.. if self.ensure_ascii => escape(out, c),
                _ => out.push(c),
            }
        }
        out.push('"');
    }
}

/// `\u0000`, or two of them.
fn escape(out: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        let _ = write!(out, "\\u{unit:04x}");
    }
}

/// A float as Python's `repr` gives it: the shortest digits that come back, with an exponent below 1e-4 and from 1e16.
fn float(x: f64) -> String {
    if x.is_nan() {
        return "NaN".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if x == 0.0 || (1e-4..1e16).contains(&x.abs()) {
        return format!("{x:?}");
    }
    let text = format!("{x:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_those_of_python() {
        for (x, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-2.5, "-2.5"),
            (0.1, "0.1"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (123_456_789.125, "123456789.125"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.797e308, "1.797e+308"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(float(x), text);
        }
    }
}
