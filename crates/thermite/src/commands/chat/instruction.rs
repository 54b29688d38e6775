//! What a line of a chat asks for.

/// What `/help` prints.
pub(super) const HELP: &str = "\
/clear    begin anew, with an empty text
/seed N   the same answers each time; without N, others each time
/help     this list
/quit     end (also Ctrl-D, or Ctrl-C twice)
Ctrl-C stops an answer. Without a chat template, an empty line lets the model go on by itself.";

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Instruction<'a> {
    /// To be added to the text.
    Text(&'a str),
    Clear,
    Seed(Option<u64>),
    Help,
    Quit,
    /// Something that is none of these, and what to say of it.
    Wrong(String),
}

impl<'a> Instruction<'a> {
    pub(super) fn of(line: &'a str) -> Self {
        let mut words = line.split_whitespace();
        let Some(name) = words.next().filter(|_| line.starts_with('/')) else { return Self::Text(line) };
        match (name, words.next(), words.next()) {
            ("/clear", None, _) => Self::Clear,
            ("/help", None, _) => Self::Help,
            ("/quit" | "/exit", None, _) => Self::Quit,
            ("/seed", None, _) => Self::Seed(None),
            ("/seed", Some(seed), None) => match seed.parse() {
                Ok(seed) => Self::Seed(Some(seed)),
                Err(_) => Self::Wrong(format!("A seed is a number from 0 to {}, not {seed}.", u64::MAX)),
            },
            _ => {
                Self::Wrong(format!("There is no command {}. /help lists those there are.", line.trim_end()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Instruction::{self, Clear, Help, Quit, Seed, Text, Wrong};

    #[test]
    fn lines_are_text_or_commands() {
        for (line, meant) in [
            ("Once upon a time", Text("Once upon a time")),
            ("", Text("")),
            (" /quit", Text(" /quit")),
            ("/clear ", Clear),
            ("/help", Help),
            ("/quit", Quit),
            ("/seed 18446744073709551615", Seed(Some(u64::MAX))),
            ("/seed", Seed(None)),
        ] {
            assert_eq!(Instruction::of(line), meant, "{line:?}");
        }
        for wrong in ["/", "/seed -1", "/seed 1 2", "/clear all", "/seeds 3"] {
            assert!(matches!(Instruction::of(wrong), Wrong(_)), "{wrong:?}");
        }
    }
}
