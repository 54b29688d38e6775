//! Blanks `[[attributes]]`, so that other compilers read the file with every line and column where it was.

/// `source` with each `[[…]]` replaced by spaces; line breaks inside stay.
///
/// ```
/// let blank = thermite_kernels::syntax::blank_attributes("uint i [[thread_index_in_simdgroup]], a[b[0]]");
/// assert_eq!(blank, "uint i                              , a[b[0]]");
/// ```
pub fn blank_attributes(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("[[") {
        let length = attribute_length(&rest[start..]);
        let (attribute, after) = rest[start..].split_at(length);
        out += &rest[..start];
        out.extend(attribute.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = after;
    }
    out + rest
}

/// Length of the attribute at the start of `text`: up to the first `]]` outside inner brackets.
fn attribute_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    for i in 2..bytes.len() {
        match bytes[i] {
            b'(' | b'[' => depth += 1,
            b']' if depth == 0 && bytes.get(i + 1) == Some(&b']') => return i + 2,
            b')' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    text.len()
}
