//! Splits Metal source into tokens that remember where they stand.

/// An identifier, a number, a string, `[[`, `::` or a single character of punctuation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    /// Byte offset in the file.
    pub(crate) offset: usize,
}

impl Token<'_> {
    pub(crate) fn is(&self, text: &str) -> bool {
        self.text == text
    }
}

/// A preprocessor line, with its continuation lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Directive<'a> {
    pub(crate) text: &'a str,
    pub(crate) offset: usize,
}

/// Tokens and preprocessor lines of `source`; comments and white space are dropped.
/// `base` is added to every offset.
pub(crate) fn lex(source: &str, base: usize) -> (Vec<Token<'_>>, Vec<Directive<'_>>) {
    let mut tokens = Vec::new();
    let mut directives = Vec::new();
    let mut at = 0;
    let mut line_is_blank = true;
    while let Some(rest) = source.get(at..).filter(|r| !r.is_empty()) {
        let first = rest.chars().next().unwrap_or('\n');
        let length = match first {
            '\n' => {
                line_is_blank = true;
                at += 1;
                continue;
            }
            c if c.is_whitespace() || c == '\\' => c.len_utf8(),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '#' if line_is_blank => {
                let length = directive_length(rest);
                directives.push(Directive { text: &rest[..length], offset: base + at });
                length
            }
            _ => {
                line_is_blank = false;
                let length = token_length(rest, first);
                tokens.push(Token { text: &rest[..length], offset: base + at });
                length
            }
        };
        at += length;
    }
    (tokens, directives)
}

fn directive_length(rest: &str) -> usize {
    let mut from = 0;
    while let Some(newline) = rest[from..].find('\n') {
        if !rest[..from + newline].ends_with('\\') {
            return from + newline;
        }
        from += newline + 1;
    }
    rest.len()
}

fn token_length(rest: &str, first: char) -> usize {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts_number =
        first.is_ascii_digit() || first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit());
    if starts_number {
        return number_length(rest);
    }
    if is_word(first) {
        return rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    }
    if first == '"' || first == '\'' {
        let mut escaped = false;
        for (i, c) in rest.char_indices().skip(1) {
            if c == first && !escaped {
                return i + 1;
            }
            escaped = c == '\\' && !escaped;
        }
        return rest.len();
    }
    if rest.starts_with("[[") || rest.starts_with("::") {
        return 2;
    }
    first.len_utf8()
}

fn number_length(rest: &str) -> usize {
    let hexadecimal = rest.starts_with("0x") || rest.starts_with("0X");
    let mut previous = '0';
    for (i, c) in rest.char_indices() {
        let exponent_sign = matches!(c, '+' | '-') && matches!(previous, 'e' | 'E') && !hexadecimal && i > 0;
        if !(c.is_ascii_alphanumeric() || c == '.' || exponent_sign) {
            return i;
        }
        previous = c;
    }
    rest.len()
}

/// Index of the token that closes the bracket at `open`; the last token if nothing does.
pub(crate) fn closing(tokens: &[Token<'_>], open: usize) -> usize {
    if tokens[open].is("[[") {
        return closing_attribute(tokens, open);
    }
    let (opens, closes) = match tokens[open].text {
        "(" => ("(", ")"),
        "{" => ("{", "}"),
        "[" => ("[", "]"),
        _ => ("<", ">"),
    };
    let mut depth = 0usize;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        if token.is(opens) {
            depth += 1;
        } else if token.is(closes) {
            depth -= 1;
            if depth == 0 {
                return i;
            }
        }
    }
    tokens.len() - 1
}

/// `[[` is closed by the first `]` outside inner brackets; its twin follows it, and its index is returned.
fn closing_attribute(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0usize;
    for (i, token) in tokens.iter().enumerate().skip(open + 1) {
        match token.text {
            "(" | "[" => depth += 1,
            "]" if depth == 0 => return (i + 1).min(tokens.len() - 1),
            ")" | "]" => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    tokens.len() - 1
}

/// Splits at the commas outside all brackets.
pub(crate) fn split_at_commas<'t, 'a>(tokens: &'t [Token<'a>]) -> Vec<&'t [Token<'a>]> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0i32);
    for (i, token) in tokens.iter().enumerate() {
        match token.text {
            "(" | "[" | "{" | "<" => depth += 1,
            "[[" => depth += 2,
            ")" | "]" | "}" | ">" => depth -= 1,
            "," if depth == 0 => {
                parts.push(&tokens[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    if start < tokens.len() {
        parts.push(&tokens[start..]);
    }
    parts
}

/// One-based line of a byte offset.
pub(crate) fn line_of(source: &str, offset: usize) -> usize {
    let before = source.as_bytes().iter().take(offset);
    1 + before.filter(|b| **b == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<&str> {
        lex(source, 0).0.iter().map(|t| t.text).collect()
    }

    #[test]
    fn numbers_names_and_attributes() {
        assert_eq!(
            texts("x[[buffer(0)]] = 1.5e-3f + .5h; // end"),
            ["x", "[[", "buffer", "(", "0", ")", "]", "]", "=", "1.5e-3f", "+", ".5h", ";"]
        );
        assert_eq!(texts("a /* b */ c \"d e\""), ["a", "c", "\"d e\""]);
    }

    #[test]
    fn directives_keep_their_continuation_lines() {
        let (tokens, directives) = lex("#define a(b) \\\n  b\nc", 0);
        assert_eq!(tokens.len(), 1);
        assert_eq!(directives[0].text, "#define a(b) \\\n  b");
    }

    #[test]
    fn brackets_close() {
        let (tokens, _) = lex("f(a[0], (b)) ;", 0);
        assert_eq!(closing(&tokens, 1), tokens.len() - 2);
        assert_eq!(split_at_commas(&tokens[2..tokens.len() - 2]).len(), 2);
    }
}
