//! Reads kernel signatures: definitions, template instances, parameters.

use super::lexer::{Token, closing, lex, line_of, split_at_commas};
use super::macros::{InstanceMacro, expand};
use super::signature::{Kernel, Parameter, Role, SyntaxError};

/// A kernel function as written, before its instances are known.
struct Definition {
    kernel: Kernel,
    template_parameters: Vec<String>,
}

struct Instance {
    host_name: String,
    function: String,
    arguments: Vec<String>,
    offset: usize,
}

/// Every kernel of one source file, in order: plain kernels, and the instances of templates.
///
/// # Errors
/// [`SyntaxError`] names the line that cannot be read.
pub fn parse(file: &str, source: &str) -> Result<Vec<Kernel>, SyntaxError> {
    let (tokens, directives) = lex(source, 0);
    let macros: Vec<_> = directives.iter().filter_map(InstanceMacro::read).collect();
    let tokens = expand(tokens, &macros);
    let reader = Reader { file, source };

    let (mut definitions, mut instances) = (Vec::new(), Vec::new());
    let mut declaration = 0; // first token of the current declaration
    let mut i = 0;
    while i < tokens.len() {
        let inside_namespace = tokens[declaration.min(i)].is("namespace");
        match tokens[i].text {
            "{" if !inside_namespace => {
                i = closing(&tokens, i);
                declaration = i + 1;
            }
            "{" | "}" => declaration = i + 1,
            ";" => {
                instances.extend(reader.instance(&tokens[declaration..i])?);
                declaration = i + 1;
            }
            "kernel" if !is_instance(&tokens[declaration..i]) => {
                let (definition, end) = reader.definition(&tokens, declaration, i)?;
                definitions.push(definition);
                i = end;
            }
            _ => {}
        }
        i += 1;
    }
    reader.launchable(&definitions, &instances)
}

/// `template [[host_name("…")]] kernel …` or a plain explicit instantiation.
fn is_instance(head: &[Token<'_>]) -> bool {
    head.first().is_some_and(|t| t.is("template")) && !head.get(1).is_some_and(|t| t.is("<"))
}

struct Reader<'s> {
    file: &'s str,
    source: &'s str,
}

impl Reader<'_> {
    fn error(&self, offset: usize, message: String) -> SyntaxError {
        SyntaxError { file: self.file.to_owned(), line: line_of(self.source, offset), message }
    }

    /// Reads `[template <…>] [[attributes]] kernel void name(parameters)`; also returns the index of its `)`.
    fn definition(
        &self,
        tokens: &[Token<'_>],
        start: usize,
        keyword: usize,
    ) -> Result<(Definition, usize), SyntaxError> {
        let at = tokens[keyword].offset;
        let attribute_end = if keyword > start && tokens[keyword - 1].is("[[") {
            closing(tokens, keyword - 1) + 1
        } else {
            keyword + 1
        };
        let open = (attribute_end..tokens.len())
            .find(|&k| tokens[k].is("("))
            .ok_or_else(|| self.error(at, "`kernel` is not followed by a function".into()))?;
        let close = closing(tokens, open);
        let head = &tokens[start..open];
        let name = tokens[open - 1];
        let mut parameters = split_at_commas(&tokens[open + 1..close])
            .into_iter()
            .map(|p| self.parameter(name, p))
            .collect::<Result<Vec<_>, _>>()?;
        number_implicit_indices(&mut parameters);
        let kernel = Kernel {
            name: name.text.to_owned(),
            function: name.text.to_owned(),
            template_arguments: Vec::new(),
            parameters: parameters.into_iter().map(|p| p.parameter).collect(),
            max_threads: max_threads(head),
            line: line_of(self.source, name.offset),
        };
        let template_parameters = template_parameters(head);
        Ok((Definition { kernel, template_parameters }, close))
    }

    fn parameter(&self, kernel: Token<'_>, tokens: &[Token<'_>]) -> Result<UnnumberedParameter, SyntaxError> {
        let attribute_start = tokens.iter().position(|t| t.is("[["));
        let (declaration, attribute) = tokens.split_at(attribute_start.unwrap_or(tokens.len()));
        let offset = tokens.first().map_or(kernel.offset, |t| t.offset);
        let error = |message: &str| {
            let written = join(declaration);
            self.error(offset, format!("kernel {}: parameter `{written}`: {message}", kernel.text))
        };
        let (name, specifiers) = declaration.split_last().ok_or_else(|| error("is empty"))?;
        let has = |text: &str| specifiers.iter().any(|t| t.is(text));
        let attribute_name = attribute.get(1).map_or("", |t| t.text);
        let numbered = attribute.get(2).is_some_and(|t| t.is("("));
        let index = match attribute.get(3).filter(|_| numbered) {
            Some(number) => number
                .text
                .parse()
                .map_err(|_| error("the attribute's index must be a literal number"))
                .map(Some)?,
            None => None,
        };
        let unnumbered = usize::MAX;
        let role = if has("threadgroup") {
            let index = index.unwrap_or(unnumbered);
            Role::Threadgroup { index }
        } else if has("device") || has("constant") {
            let index = index.unwrap_or(unnumbered);
            match (has("&"), has("*")) {
                (true, _) if has("constant") => Role::Constant { index },
                (false, false) => return Err(error("device and constant need `*` or `&`")),
                _ => Role::Buffer { index, writable: !has("const") && !has("constant") },
            }
        } else if attribute_name.is_empty() {
            return Err(error("has no address space and no position attribute"));
        } else {
            Role::Position { attribute: attribute_name.to_owned() }
        };
        let element: Vec<_> = specifiers
            .iter()
            .filter(|t| !matches!(t.text, "device" | "constant" | "threadgroup" | "const" | "*" | "&"))
            .copied()
            .collect();
        if element.is_empty() || has("[") {
            return Err(error("must be `TYPE* name`, `TYPE& name` or `TYPE name`"));
        }
        Ok(UnnumberedParameter {
            implicit: index.is_none(),
            parameter: Parameter {
                name: name.text.to_owned(),
                element: join(&element),
                role,
                pointer: has("*"),
            },
        })
    }

    /// Reads `template [[host_name("n")]] kernel TYPE function<arguments>[(…)]`; other declarations give none.
    fn instance(&self, declaration: &[Token<'_>]) -> Result<Option<Instance>, SyntaxError> {
        let host_name = declaration.iter().position(|t| t.is("host_name"));
        let (true, Some(host_name)) = (is_instance(declaration), host_name) else {
            return Ok(None);
        };
        let offset = declaration[0].offset;
        let unreadable = || self.error(offset, "this host_name instance cannot be read".into());
        let name = declaration.get(host_name + 2).ok_or_else(unreadable)?;
        let mut end = declaration.len() - 1;
        if declaration[end].is(")") {
            end = opening(declaration, end).ok_or_else(unreadable)? - 1;
        }
        let open = opening(declaration, end).ok_or_else(unreadable)?;
        if open == 0 || !declaration[end].is(">") {
            return Err(unreadable());
        }
        Ok(Some(Instance {
            host_name: name.text.trim_matches('"').to_owned(),
            function: declaration[open - 1].text.to_owned(),
            arguments: split_at_commas(&declaration[open + 1..end]).into_iter().map(join).collect(),
            offset,
        }))
    }

    fn launchable(
        &self,
        definitions: &[Definition],
        instances: &[Instance],
    ) -> Result<Vec<Kernel>, SyntaxError> {
        let plain = definitions.iter().filter(|d| d.template_parameters.is_empty());
        let mut kernels: Vec<Kernel> = plain.map(|d| d.kernel.clone()).collect();
        for instance in instances {
            let definition =
                definitions.iter().find(|d| d.kernel.function == instance.function).ok_or_else(|| {
                    let message = format!("{}: no kernel {}", instance.host_name, instance.function);
                    self.error(instance.offset, message)
                })?;
            kernels.push(definition.instantiate(instance));
        }
        Ok(kernels)
    }
}

impl Definition {
    fn instantiate(&self, instance: &Instance) -> Kernel {
        let put_in = |text: &str| {
            let (tokens, _) = lex(text, 0);
            let words = tokens.iter().map(|t| {
                let i = self.template_parameters.iter().position(|p| t.is(p));
                i.and_then(|i| instance.arguments.get(i)).map_or(t.text, String::as_str)
            });
            spell(words)
        };
        let mut kernel = self.kernel.clone();
        kernel.name.clone_from(&instance.host_name);
        kernel.template_arguments.clone_from(&instance.arguments);
        kernel.max_threads = kernel.max_threads.as_deref().map(put_in);
        for parameter in &mut kernel.parameters {
            parameter.element = put_in(&parameter.element);
        }
        kernel
    }
}

struct UnnumberedParameter {
    parameter: Parameter,
    implicit: bool,
}

/// A parameter without an index takes the one after its predecessor's; buffers and threadgroup memory count apart.
fn number_implicit_indices(parameters: &mut [UnnumberedParameter]) {
    let (mut next_buffer, mut next_threadgroup) = (0, 0);
    for UnnumberedParameter { parameter, implicit } in parameters {
        let (index, next) = match &mut parameter.role {
            Role::Buffer { index, .. } | Role::Constant { index } => (index, &mut next_buffer),
            Role::Threadgroup { index } => (index, &mut next_threadgroup),
            Role::Position { .. } => continue,
        };
        if *implicit {
            *index = *next;
        }
        *next = *index + 1;
    }
}

fn template_parameters(head: &[Token<'_>]) -> Vec<String> {
    if !head.first().is_some_and(|t| t.is("template")) || head.len() < 2 {
        return Vec::new();
    }
    let close = closing(head, 1);
    let name = |parameter: &[Token<'_>]| {
        let declared = parameter.iter().take_while(|t| !t.is("="));
        declared.last().map_or(String::new(), |t| t.text.to_owned())
    };
    split_at_commas(&head[2..close]).into_iter().map(name).collect()
}

fn max_threads(head: &[Token<'_>]) -> Option<String> {
    let at = head.iter().position(|t| t.is("max_total_threads_per_threadgroup"))?;
    let close = closing(head, at + 1);
    Some(join(head.get(at + 2..close)?))
}

/// Index of the bracket that opens the one at `close`.
fn opening(tokens: &[Token<'_>], close: usize) -> Option<usize> {
    let (opens, closes) = match tokens[close].text {
        ")" => ("(", ")"),
        _ => ("<", ">"),
    };
    let mut depth = 0usize;
    for (i, token) in tokens[..=close].iter().enumerate().rev() {
        if token.is(closes) {
            depth += 1;
        } else if token.is(opens) {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some(i);
            }
        }
    }
    None
}

fn join(tokens: &[Token<'_>]) -> String {
    spell(tokens.iter().map(|t| t.text))
}

/// Words in a row, a space only between two that would otherwise run together.
fn spell<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::new();
    for word in words {
        if out.ends_with(is_word) && word.starts_with(is_word) {
            out.push(' ');
        }
        out += word;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
        #include <metal_stdlib>
        using namespace metal;
        namespace { inline float twice(float x) { return x + x; } }
        constant constexpr uint ROWS = 4;

        kernel void scale(
            device float*       x [[buffer(0)]],
            device const float* y [[buffer(1)]],
            constant int&       n [[buffer(2)]],
            threadgroup float*  s [[threadgroup(0)]],
            uint2 gid [[thread_position_in_grid]])
        { x[gid.x] = twice(y[gid.x]); }

        template <typename T, int W = 4>
        [[max_total_threads_per_threadgroup(W * 32)]]
        kernel void copy(device const T* x, device metal::vec<T, W>* out, constant uint& n, ushort t [[thread_index_in_threadgroup]]) {}
        template [[host_name("copy_f16")]] kernel void copy<half, 8>(device const half*, device metal::vec<half, 8>*, constant uint&, ushort);
        #define instantiate_copy(name, T) \
            template [[host_name(name)]] kernel decltype(copy<T, 2>) copy<T, 2>;
        instantiate_copy("copy_f32", float)
    "#;

    fn kernels() -> Vec<Kernel> {
        parse("test.metal", SOURCE).unwrap()
    }

    #[test]
    fn plain_kernels_and_instances() {
        let names: Vec<_> = kernels().iter().map(Kernel::call).collect();
        assert_eq!(names, ["scale", "copy<half, 8>", "copy<float, 2>"]);
        assert_eq!(kernels()[1].name, "copy_f16");
        assert_eq!(kernels()[2].name, "copy_f32");
        assert_eq!(kernels()[1].max_threads.as_deref(), Some("8*32"));
    }

    #[test]
    fn roles_types_and_indices() {
        let scale = &kernels()[0];
        let roles: Vec<_> = scale.parameters.iter().map(|p| p.role.clone()).collect();
        assert_eq!(roles[0], Role::Buffer { index: 0, writable: true });
        assert_eq!(roles[1], Role::Buffer { index: 1, writable: false });
        assert_eq!(roles[2], Role::Constant { index: 2 });
        assert_eq!(roles[3], Role::Threadgroup { index: 0 });
        assert_eq!(roles[4], Role::Position { attribute: "thread_position_in_grid".into() });
        let copy = &kernels()[1];
        assert_eq!(copy.parameters[0].element, "half");
        assert_eq!(copy.parameters[1].element, "metal::vec<half,8>");
        assert_eq!(copy.parameters[2].role, Role::Constant { index: 2 });
    }

    #[test]
    fn errors_name_file_and_line() {
        let error = parse("bad.metal", "\nkernel void k(float x) {}").unwrap_err();
        assert_eq!((error.file.as_str(), error.line), ("bad.metal", 2));
        assert!(error.message.contains("float x"), "{error}");
        assert!(parse("bad.metal", "template [[host_name(\"a\")]] kernel void b<float>();").is_err());
    }
}
