//! Function-like macros that write template instances: `#define instantiate(name, T) template [[host_name(…)]] …`.

use super::lexer::{Directive, Token, closing, lex, split_at_commas};

/// A macro whose body holds a `host_name`; no other macro concerns the signatures.
pub(crate) struct InstanceMacro<'a> {
    name: &'a str,
    parameters: Vec<&'a str>,
    body: Vec<Token<'a>>,
}

impl<'a> InstanceMacro<'a> {
    pub(crate) fn read(directive: &Directive<'a>) -> Option<Self> {
        let definition = directive.text.strip_prefix('#')?.trim_start();
        let definition = definition.strip_prefix("define")?.trim_start();
        let (name, rest) = definition.split_once('(')?;
        let (parameters, body) = rest.split_once(')')?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !name.chars().all(is_name) || !body.contains("host_name") {
            return None;
        }
        let body_offset = directive.offset + directive.text.len() - body.len();
        Some(Self {
            name,
            parameters: parameters.split(',').map(str::trim).collect(),
            body: lex(body, body_offset).0,
        })
    }

    fn expand(&self, arguments: &[&[Token<'a>]], out: &mut Vec<Token<'a>>) {
        for token in &self.body {
            match self.parameters.iter().position(|p| token.is(p)) {
                Some(i) => out.extend(arguments.get(i).copied().unwrap_or_default()),
                None => out.push(*token),
            }
        }
    }
}

/// Replaces every use of one of `macros`.
pub(crate) fn expand<'a>(tokens: Vec<Token<'a>>, macros: &[InstanceMacro<'a>]) -> Vec<Token<'a>> {
    if macros.is_empty() {
        return tokens;
    }
    let mut out = Vec::with_capacity(tokens.len());
    let mut i = 0;
    while i < tokens.len() {
        let called = tokens.get(i + 1).is_some_and(|t| t.is("("));
        match macros.iter().find(|m| called && tokens[i].is(m.name)) {
            Some(found) => {
                let close = closing(&tokens, i + 1);
                found.expand(&split_at_commas(&tokens[i + 2..close]), &mut out);
                i = close + 1;
            }
            None => {
                out.push(tokens[i]);
                i += 1;
            }
        }
    }
    out
}
