//! The tags `{% generation %}` and `{% endgeneration %}`: for training, they tell which tokens a model has written.
//!
//! They change nothing in the text. They become a block of another name that opens a scope, as they do, so that
//! whitespace around them and what is set inside keep their meaning.

use std::borrow::Cow;
use std::ops::Range;

/// `source` with each generation tag's name replaced.
pub(super) fn without_generation_tags(source: &str) -> Cow<'_, str> {
    let names = names_of_tags(source);
    if names.is_empty() {
        return Cow::Borrowed(source);
    }
    let mut out = String::with_capacity(source.len());
    let mut end = 0;
    for name in names {
        out.push_str(&source[end..name.start]);
        out.push_str(if &source[name.clone()] == "generation" { "with" } else { "endwith" });
        end = name.end;
    }
    out.push_str(&source[end..]);
    Cow::Owned(out)
}

/// Where the names of generation tags stand.
fn names_of_tags(source: &str) -> Vec<Range<usize>> {
    let mut names = Vec::new();
    let mut at = 0;
    while let Some(open) = source[at..].find('{') {
        let inside = at + open + 2;
        at = match source.as_bytes().get(inside - 1) {
            Some(b'#') => source[inside..].find("#}").map_or(source.len(), |end| inside + end + 2),
            Some(b'{') => end_of_code(source, inside, "}}"),
            Some(b'%') => {
                let end = end_of_code(source, inside, "%}");
                names.extend(generation_name(source, inside));
                end
            }
            _ => inside - 1,
        };
    }
    names
}

/// The name of the tag whose inside starts at `start`, if it is one of the two.
fn generation_name(source: &str, start: usize) -> Option<Range<usize>> {
    let inside = &source[start..];
    let rest = inside.strip_prefix(['-', '+']).unwrap_or(inside).trim_start();
    let name = ["generation", "endgeneration"].into_iter().find(|name| rest.starts_with(name))?;
    let after = rest[name.len()..].trim_start();
    let ended = after.strip_prefix(['-', '+']).unwrap_or(after).starts_with("%}");
    let start = source.len() - rest.len();
    ended.then(|| start..start + name.len())
}

/// Behind the `close` that ends the code at `start`, which is none inside quotes.
fn end_of_code(source: &str, start: usize, close: &str) -> usize {
    let bytes = source.as_bytes();
    let (mut at, mut quote) = (start, None);
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(q), byte) if q == byte => quote = None,
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, _) if bytes[at..].starts_with(close.as_bytes()) => return at + close.len(),
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_become_scopes_and_nothing_else_changes() {
        for (source, result) in [
            ("a{% generation %}b{% endgeneration %}c", "a{% with %}b{% endwith %}c"),
            ("{%- generation -%}é{%+endgeneration+%}", "{%- with -%}é{%+endwith+%}"),
            ("{% if generation %}{% endif %}", "{% if generation %}{% endif %}"),
            ("{% generations %}{% generation x %}", "{% generations %}{% generation x %}"),
            ("{# {% generation %} #}{% generation %}", "{# {% generation %} #}{% with %}"),
            ("{{ '{% generation %}' }}", "{{ '{% generation %}' }}"),
            ("{% set x = '%}{% generation %}' %}", "{% set x = '%}{% generation %}' %}"),
            ("{{ 'it\\'s {% generation %}' }}", "{{ 'it\\'s {% generation %}' }}"),
            ("{", "{"),
            ("{%", "{%"),
            ("{{ 'é", "{{ 'é"),
            ("{{ '\\", "{{ '\\"),
            ("{#", "{#"),
        ] {
            assert_eq!(without_generation_tags(source), result);
        }
    }
}
