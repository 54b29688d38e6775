//! One text a kernel file: the run-time compiler has no include path, so the house's headers go in where they are
//! included. Metal's own headers, in angle brackets, stay the compiler's affair.

use std::collections::HashSet;
use std::fmt::Write;

/// A kernel file, or a header of one, includes a header that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: there is no header \"{header}\"")]
pub(super) struct MissingHeader {
    file: String,
    line: usize,
    header: String,
}

/// `text` of `file`, every header that it includes by quotes put in, once each. `#line` keeps the compiler's messages
/// true to the files.
///
/// # Errors
/// [`MissingHeader`].
pub(super) fn self_contained<'a>(
    file: &'a str,
    text: &'a str,
    headers: &[(&'a str, &'a str)],
) -> Result<String, MissingHeader> {
    let mut splice = Splice { headers, seen: HashSet::new(), out: String::with_capacity(2 * text.len()) };
    splice.put(file, text)?;
    Ok(splice.out)
}

struct Splice<'a, 'h> {
    headers: &'h [(&'a str, &'a str)],
    seen: HashSet<&'a str>,
    out: String,
}

impl<'a> Splice<'a, '_> {
    fn put(&mut self, file: &'a str, text: &'a str) -> Result<(), MissingHeader> {
        self.line(1, file);
        for (line, content) in (1..).zip(text.lines()) {
            let Some(header) = quoted_include(content) else {
                // every header is put in once: the pragma would only be warned about outside a header
                let kept = if content.trim() == "#pragma once" { "" } else { content };
                self.out.push_str(kept);
                self.out.push('\n');
                continue;
            };
            let found = self.headers.iter().find(|(name, _)| *name == header);
            let missing = || MissingHeader { file: file.to_owned(), line, header: header.to_owned() };
            let &(name, text) = found.ok_or_else(missing)?;
            if self.seen.insert(name) {
                self.put(name, text)?;
                self.line(line + 1, file);
            } else {
                self.out.push('\n');
            }
        }
        Ok(())
    }

    /// What follows is `line` of `file`.
    fn line(&mut self, line: usize, file: &str) {
        // writing to a string cannot fail
        let _ = writeln!(self.out, "#line {line} \"{file}\"");
    }
}

/// The header that a line includes by quotes.
fn quoted_include(line: &str) -> Option<&str> {
    let directive = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include")?;
    let (header, _) = directive.trim_start().strip_prefix('"')?.split_once('"')?;
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::{MissingHeader, quoted_include, self_contained};
    use thermite_kernels::sources::{headers, sources};
    use thermite_kernels::syntax::parse;

    const HEADERS: &[(&str, &str)] =
        &[("a.h", "#pragma once\n#include \"b.h\"\nint a;\n"), ("b.h", "#include <metal_stdlib>\nint b;\n")];

    #[test]
    fn headers_go_in_once_and_lines_keep_their_numbers() {
        let text = "#include <metal_stdlib>\n#include \"a.h\"\n  # include  \"b.h\" // again\nint c;\n";
        let wanted = "#line 1 \"k.metal\"\n#include <metal_stdlib>\n\
                      #line 1 \"a.h\"\n\n\
                      #line 1 \"b.h\"\n#include <metal_stdlib>\nint b;\n\
                      #line 3 \"a.h\"\nint a;\n\
                      #line 3 \"k.metal\"\n\nint c;\n";
        assert_eq!(self_contained("k.metal", text, HEADERS).unwrap(), wanted);
    }

    #[test]
    fn headers_that_include_each_other_end() {
        let headers = [("a.h", "#include \"b.h\"\n"), ("b.h", "#include \"a.h\"\nint b;\n")];
        let text = self_contained("k.metal", "#include \"a.h\"\n", &headers).unwrap();
        assert_eq!(text.matches("int b;").count(), 1);
    }

    #[test]
    fn a_missing_header_is_named_where_it_is_included() {
        let headers = [("a.h", "\n\n#include \"none.h\"\n")];
        let error = self_contained("k.metal", "#include \"a.h\"\n", &headers).unwrap_err();
        let wanted = MissingHeader { file: "a.h".to_owned(), line: 3, header: "none.h".to_owned() };
        assert_eq!(error, wanted);
        assert_eq!(error.to_string(), "a.h:3: there is no header \"none.h\"");
    }

    /// The compiler must find the same kernels, and nothing left to look for.
    #[test]
    fn every_embedded_file_stands_alone_with_the_same_kernels() {
        for source in sources() {
            let text = self_contained(source.file, source.text, headers()).unwrap();
            assert_eq!(text.lines().find_map(quoted_include), None, "{}", source.file);
            let names = |text: &str| -> Vec<_> {
                parse(source.file, text).unwrap().into_iter().map(|kernel| kernel.name).collect()
            };
            assert_eq!(names(&text), names(source.text), "{}", source.file);
            for (header, content) in headers() {
                assert!(content.contains("#pragma once"), "{header} may be included twice elsewhere");
                let count = text.matches(&format!("#line 1 \"{header}\"")).count();
                assert!(count <= 1, "{}: {header} {count} times", source.file);
            }
        }
    }
}
