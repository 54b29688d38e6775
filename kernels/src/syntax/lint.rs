//! What Apple's compiler rejects, or reads differently from C++ and CUDA, and what the C++ compilers cannot see.

use super::lexer::{Token, closing, lex, line_of};
use super::parser::parse;
use super::signature::{Kernel, Parameter, Role};

/// A place in a kernel file that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// One-based line.
    pub line: usize,
    /// The rule, and what breaks it.
    pub message: String,
}

const SCALARS: &[&str] = &[
    "float", "half", "bfloat", "double", "int", "uint", "short", "ushort", "char", "uchar", "bool", "long",
    "ulong", "size_t", "int8_t", "uint8_t", "int16_t", "uint16_t", "int32_t", "uint32_t", "int64_t",
    "uint64_t", "void",
];
const ADDRESS_SPACES: &[&str] = &["device", "constant", "threadgroup", "thread"];
const NOT_IN_METAL: &[&str] = &[
    "double",
    "virtual",
    "try",
    "throw",
    "catch",
    "new",
    "delete",
    "goto",
    "typeid",
    "dynamic_cast",
    "thread_local",
    "asm",
];
/// Position attributes that must have one width within a kernel.
const GRID_ATTRIBUTES: &[&str] = &[
    "thread_position_in_grid",
    "thread_position_in_threadgroup",
    "threadgroup_position_in_grid",
    "threads_per_threadgroup",
    "threadgroups_per_grid",
    "threads_per_grid",
];
const HIGHEST_INDEX: usize = 30;

/// All findings in one source file, in the order of its lines.
pub fn lint(source: &str) -> Vec<Finding> {
    let (tokens, _) = lex(source, 0);
    let own_types = own_types(&tokens);
    let mut findings = Vec::new();
    let mut scopes = Scopes::default();
    for i in 0..tokens.len() {
        let place = Place { tokens: &tokens, i };
        let messages = [
            missing_address_space(place, &own_types),
            unsuffixed_literal(place),
            foreign_word(place),
            lambda(place),
            scopes.enter(place),
        ];
        findings.extend(
            messages
                .into_iter()
                .flatten()
                .map(|message| Finding { line: line_of(source, tokens[i].offset), message }),
        );
    }
    // A file that cannot be parsed is reported by whoever parses it.
    for kernel in parse("", source).unwrap_or_default() {
        findings.extend(signature_messages(&kernel).into_iter().map(|message| Finding {
            line: kernel.line,
            message: format!("kernel {}: {message}", kernel.name),
        }));
    }
    findings.sort_by_key(|f| f.line);
    findings
}

/// A token with its neighbours.
#[derive(Clone, Copy)]
struct Place<'t, 'a> {
    tokens: &'t [Token<'a>],
    i: usize,
}

impl<'a> Place<'_, 'a> {
    /// Text of the token `offset` away; empty outside the file.
    fn at(&self, offset: isize) -> &'a str {
        let index = self.i.checked_add_signed(offset);
        index.and_then(|i| self.tokens.get(i)).map_or("", |t| t.text)
    }

    fn here(&self) -> &'a str {
        self.at(0)
    }
}

fn own_types<'a>(tokens: &[Token<'a>]) -> Vec<&'a str> {
    let introduces = |t: &Token<'_>| matches!(t.text, "struct" | "typename" | "class");
    let pairs = tokens.windows(2).filter(|pair| introduces(&pair[0]));
    pairs.map(|pair| pair[1].text).collect()
}

fn is_type(word: &str, own_types: &[&str]) -> bool {
    let scalar = word.strip_suffix(['2', '3', '4']).unwrap_or(word);
    SCALARS.contains(&word) || SCALARS.contains(&scalar) || own_types.contains(&word)
}

/// `T*`, `T&`, `T const*` or `T (&` with no address space among the specifiers around it.
fn missing_address_space(place: Place<'_, '_>, own_types: &[&str]) -> Option<String> {
    let word = place.here();
    if !is_type(word, own_types) || matches!(place.at(-1), "struct" | "typename" | "class") {
        return None;
    }
    let is_specifier = |w: &str| w == "const" || ADDRESS_SPACES.contains(&w);
    let mut after = 1;
    if place.at(1) == "<" {
        let close = closing(place.tokens, place.i + 1);
        after = (close - place.i + 1) as isize;
    }
    while is_specifier(place.at(after)) {
        after += 1;
    }
    let array_reference = place.at(after) == "("
        && matches!(place.at(after + 1), "*" | "&")
        && place.at(after + 3) == ")"
        && place.at(after + 4) == "[";
    let pointer = matches!(place.at(after), "*" | "&") && place.at(after + 1) != "&";
    let mut before = 0;
    let qualifies = |w: &str| {
        is_specifier(w)
            || matches!(w, "constexpr" | "static" | "::" | "metal" | "simdgroup_matrix")
            || matches!(w, "unsigned" | "signed")
    };
    while qualifies(place.at(before - 1)) {
        before -= 1;
    }
    let spaced = (before..after).any(|k| ADDRESS_SPACES.contains(&place.at(k)));
    let other_meaning = matches!(place.at(before - 1), "operator" | ">");
    ((pointer || array_reference) && !spaced && !other_meaning)
        .then(|| format!("pointer or reference to {word} without an address space"))
}

fn unsuffixed_literal(place: Place<'_, '_>) -> Option<String> {
    let word = place.here();
    let number = word.starts_with(|c: char| c.is_ascii_digit() || c == '.') && word.len() > 1;
    let floating = number && !word.starts_with("0x") && word.contains(['.', 'e', 'E']);
    (floating && !word.ends_with(['f', 'F', 'h', 'H']))
        .then(|| format!("literal {word} has no f or h suffix: float in Metal, double in C++ and CUDA"))
}

fn foreign_word(place: Place<'_, '_>) -> Option<String> {
    let word = place.here();
    if NOT_IN_METAL.contains(&word) {
        return Some(format!("`{word}` does not exist in Metal"));
    }
    (word == "function_constant")
        .then(|| "function constant: instantiate a template by host_name instead".to_owned())
}

fn lambda(place: Place<'_, '_>) -> Option<String> {
    let opens = place.here() == "["
        && matches!(place.at(-1), "=" | "(" | "," | "return")
        && matches!(place.at(1), "]" | "&" | "=");
    opens.then(|| "lambda: Metal has none before 3.2".to_owned())
}

/// Follows braces, to tell program scope from bodies.
#[derive(Default)]
struct Scopes {
    depth: usize,
    /// First token of the current declaration at program scope.
    declaration: usize,
}

impl Scopes {
    fn enter(&mut self, place: Place<'_, '_>) -> Option<String> {
        let in_body = self.depth > 0;
        match place.here() {
            "{" if !in_body && place.tokens[self.declaration].is("namespace") => {
                self.declaration = place.i + 1;
            }
            "{" => self.depth += 1,
            "}" => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    self.declaration = place.i + 1;
                }
            }
            ";" if !in_body => {
                let declaration = &place.tokens[self.declaration..place.i];
                self.declaration = place.i + 1;
                return program_scope_variable(declaration);
            }
            "threadgroup" if in_body => return threadgroup_variable(place),
            "static" if in_body => return static_local(place),
            _ => {}
        }
        None
    }
}

fn program_scope_variable(declaration: &[Token<'_>]) -> Option<String> {
    let harmless = ["(", "constant", "typedef", "using", "struct", "enum", "template"];
    let is_variable = !declaration.is_empty() && !declaration.iter().any(|t| harmless.contains(&t.text));
    is_variable.then(|| "program-scope variable must be `constant`".to_owned())
}

fn threadgroup_variable(place: Place<'_, '_>) -> Option<String> {
    if !matches!(place.at(-1), ";" | "{" | "}") {
        return None;
    }
    let rest = place.tokens[place.i..].iter();
    let decisive = rest.map(|t| t.text).find(|t| [";", "=", "[", "*", "&"].contains(t));
    matches!(decisive, Some(";" | "=" | "["))
        .then(|| "threadgroup variable in a body: take it as a [[threadgroup(n)]] argument".to_owned())
}

fn static_local(place: Place<'_, '_>) -> Option<String> {
    let constant = matches!(place.at(1), "constexpr" | "constant") || place.at(-1) == "constexpr";
    (!constant).then(|| "static local variable".to_owned())
}

fn signature_messages(kernel: &Kernel) -> Vec<String> {
    let mut messages = Vec::new();
    let mut width = None;
    let (mut buffers, mut threadgroups) = (Vec::new(), Vec::new());
    for parameter in &kernel.parameters {
        match &parameter.role {
            Role::Position { attribute } => {
                messages.extend(position_messages(parameter, attribute, &mut width));
            }
            Role::Buffer { index, .. } | Role::Constant { index } => {
                messages.extend(index_message(parameter, *index, &mut buffers));
            }
            Role::Threadgroup { index } => {
                messages.extend(index_message(parameter, *index, &mut threadgroups));
            }
        }
    }
    messages
}

fn position_messages<'p>(
    parameter: &'p Parameter,
    attribute: &str,
    kernel_width: &mut Option<&'p str>,
) -> Option<String> {
    let scalar = parameter.element.trim_end_matches(['2', '3']);
    if !matches!(scalar, "uint" | "ushort") {
        return Some(format!("[[{attribute}]] must be uint or ushort, not {}", parameter.element));
    }
    if !GRID_ATTRIBUTES.contains(&attribute) {
        return None;
    }
    let width = &parameter.element[scalar.len()..];
    (*kernel_width.get_or_insert(width) != width)
        .then(|| format!("[[{attribute}]]: all grid positions of a kernel must have one width"))
}

fn index_message(parameter: &Parameter, index: usize, taken: &mut Vec<usize>) -> Option<String> {
    let message = (taken.contains(&index) || index > HIGHEST_INDEX)
        .then(|| format!("{}: index {index} is taken or above {HIGHEST_INDEX}", parameter.name));
    taken.push(index);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(source: &str) -> Vec<usize> {
        lint(source).iter().map(|f| f.line).collect()
    }

    #[test]
    fn clean_source_has_no_findings() {
        let source = "constant constexpr float A = 1.0f;\nstruct S { float a; };\n\
            template <typename T> inline T f(thread T& x, device const T* y, threadgroup T (&z)[4]) { return x * 2.0h + 0x1e; }\n\
            kernel void k(device float* x [[buffer(0)]], uint t [[thread_position_in_grid]]) { device float* y = x + t; y[0] = 1e-5f; }";
        assert_eq!(lint(source), []);
    }

    #[test]
    fn every_rule_finds_its_line() {
        for bad in [
            "inline void f(float* p) {}",
            "inline void f(thread float& p, float4& q) {}",
            "struct S { int a; }; inline void f(S& p) {}",
            "template <typename T> void f(T (&z)[4]) {}",
            "void f() { float* u = 0; }",
            "constant float a = 0.5;",
            "void f() { double d; }",
            "void f() { auto l = [&](float a) { return a; }; }",
            "void f() { threadgroup float tile[32]; }",
            "void f() { static float s = 0.0f; }",
            "float global = 1.0f;",
            "constant bool b [[function_constant(0)]];",
            "kernel void k(device float* x [[buffer(0)]], device float* y [[buffer(0)]]) {}",
            "kernel void k(uint2 a [[thread_position_in_grid]], uint b [[threads_per_threadgroup]]) {}",
            "kernel void k(int a [[thread_position_in_grid]]) {}",
        ] {
            assert_eq!(lines(&format!("\n{bad}\n")), [2], "{bad}: {:?}", lint(bad));
        }
    }
}
