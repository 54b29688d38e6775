//! Tokens that are found in a text before anything else is done with it.

use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, Input, MatchKind};

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fragment<'t> {
    Text(&'t str),
    Token(u32),
}

/// A token that stands for itself wherever it is spelled.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) id: u32,
    pub(super) content: String,
    /// Found only where special tokens are asked for.
    pub(super) special: bool,
}

/// Finds such tokens: the leftmost first, and of several there the longest.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    tokens: Vec<Standing>,
    all: OnceLock<Option<Finder>>,
    plain: OnceLock<Option<Finder>>,
}

#[derive(Debug)]
struct Finder {
    automaton: AhoCorasick,
    ids: Vec<u32>,
}

impl Splitter {
    pub(super) fn new(tokens: impl Iterator<Item = Standing>) -> Self {
        let tokens = tokens.filter(|token| !token.content.is_empty()).collect();
        Self { tokens, ..Self::default() }
    }

    /// The spellings of the special ones.
    pub(super) fn special(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().filter(|token| token.special).map(|token| token.content.as_str())
    }

    /// The parts of `text`. No special token is found across one of `breaks`, which ascend.
    pub(super) fn split<'t>(
        &self,
        text: &'t str,
        parse_special: bool,
        breaks: &[usize],
    ) -> Vec<Fragment<'t>> {
        let finder = if parse_special { &self.all } else { &self.plain };
        let mut fragments = Vec::new();
        let mut done = 0;
        if let Some(finder) = finder.get_or_init(|| self.finder(parse_special)) {
            let mut at = 0;
            while let Some(found) = finder.automaton.find(Input::new(text).span(at..text.len())) {
                let next_break = breaks.partition_point(|&place| place <= found.start());
                if breaks.get(next_break).is_some_and(|&place| place < found.end()) {
                    at = text.ceil_char_boundary(found.start() + 1);
                    continue;
                }
                if found.start() > done {
                    fragments.push(Fragment::Text(&text[done..found.start()]));
                }
                fragments.push(Fragment::Token(finder.ids[found.pattern()]));
                at = found.end();
                done = at;
            }
        }
        if done < text.len() {
            fragments.push(Fragment::Text(&text[done..]));
        }
        fragments
    }

    fn finder(&self, special: bool) -> Option<Finder> {
        let tokens: Vec<&Standing> = self.tokens.iter().filter(|token| special || !token.special).collect();
        let mut builder = AhoCorasick::builder();
        builder.match_kind(MatchKind::LeftmostLongest);
        let automaton = builder.build(tokens.iter().map(|token| &token.content)).ok()?;
        Some(Finder { automaton, ids: tokens.iter().map(|token| token.id).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::Fragment::{Text, Token};
    use super::*;

    #[test]
    fn the_longest_of_the_leftmost_is_found() {
        let token = |id, content: &str, special| Standing { id, content: content.to_owned(), special };
        let tokens =
            [token(1, "<a>", true), token(2, "\n", false), token(3, "\n\n", false), token(4, "é<", true)];
        let splitter = Splitter::new(tokens.into_iter().chain([token(5, "", true)]));
        assert_eq!(splitter.special().collect::<Vec<_>>(), ["<a>", "é<"]);
        let text = "x<a>\n\n\né<a>";
        let all = [Text("x"), Token(1), Token(3), Token(2), Token(4), Text("a>")];
        assert_eq!(splitter.split(text, true, &[]), all);
        assert_eq!(splitter.split(text, false, &[]), [Text("x<a>"), Token(3), Token(2), Text("é<a>")]);
        // a break inside a token, and breaks at the ends of others
        let broken = [Text("x"), Token(1), Token(3), Token(2), Text("é"), Token(1)];
        assert_eq!(splitter.split(text, true, &[1, 4, 9]), broken);
        assert_eq!(splitter.split("", true, &[]), []);
    }
}
