//! Conversations with models that have no chat template: what is said is one text, and the model goes on from there.

/// `text` as it goes behind a text that ends in `last`: words do not run into each other.
#[must_use]
pub fn joined(last: Option<char>, text: &str) -> String {
    let opens_word = text.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '"' | '“' | '('));
    match last {
        Some(last) if opens_word && !last.is_whitespace() => format!(" {text}"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_do_not_run_into_each_other() {
        assert_eq!(joined(None, "Once"), "Once");
        assert_eq!(joined(Some('.'), "Then"), " Then");
        assert_eq!(joined(Some('\n'), "Then"), "Then");
        assert_eq!(joined(Some('d'), ", and"), ", and");
        assert_eq!(joined(Some('d'), " and"), " and");
        assert_eq!(joined(Some('d'), ""), "");
    }
}
