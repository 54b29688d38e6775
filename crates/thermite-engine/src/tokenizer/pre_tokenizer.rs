//! The pre-tokenisers that GGUF files name: how a text is cut into words before pairs of bytes are merged.
//!
//! Each is a row of patterns, applied one after the other to what the one before has left: what a pattern matches,
//! and what lies between two matches, are words of their own. The patterns are those of the models' own
//! `tokenizer.json`.

use std::ops::Range;

use fancy_regex::Regex;

/// GPT-2's pattern (Radford et al. 2019).
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Any case, other white space, and numbers in parts of three digits.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The same with single digits.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Words cut where lower case ends.
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The same without contractions, with single digits.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

/// Words that no punctuation is part of.
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";

/// One kind of pre-tokeniser.
struct Kind {
    /// The names that files have for it.
    names: &'static [&'static str],
    patterns: &'static [&'static str],
    /// Whether a word that is a token as a whole is that token, whatever the merges say.
    ignore_merges: bool,
    /// Whether a text begins with the BOS token where the file does not say.
    add_bos: bool,
}

const KINDS: &[Kind] = &[
    kind(
        &["gpt-2", "gpt2", "phi-2", "olmo", "mpt", "jais", "modern-bert", "jina-en", "roberta-bpe"],
        &[GPT2],
    ),
    kind(
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        &[r"\p{N}", GPT2],
    ),
    Kind {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3"],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
    },
    kind(&["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], &[LLAMA3]),
    kind(&["qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez", "grok-2"], &[QWEN2]),
    kind(&["gpt-4o", "llama4"], &[GPT4O]),
    Kind { names: &["tekken"], patterns: &[TEKKEN], ignore_merges: true, add_bos: true },
    kind(
        &["deepseek-coder"],
        &[
            "[\r\n]",
            r"\s?\p{L}+",
            r"\s?\p{P}+",
            "[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+",
            r"\p{N}",
        ],
    ),
    kind(
        &["deepseek-v3", "hunyuan-dense"],
        &[r"\p{N}{1,3}", "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+", DEEPSEEK3],
    ),
    kind(&["falcon"], &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]),
    kind(&["bloom", "poro-chat", "gpt3-finnish"], &[BLOOM]),
    kind(&["viking"], &[BLOOM, r"\p{N}"]),
    // what files without a name were made with
    kind(&["default"], &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
];

const fn kind(names: &'static [&'static str], patterns: &'static [&'static str]) -> Kind {
    Kind { names, patterns, ignore_merges: false, add_bos: false }
}

/// A pre-tokeniser.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    patterns: Vec<Regex>,
    pub(super) ignore_merges: bool,
    pub(super) add_bos: bool,
}

impl PreTokenizer {
    /// The one that files call `name`; `None` for an unknown one.
    pub(super) fn named(name: &str) -> Option<Self> {
        let kind = KINDS.iter().find(|kind| kind.names.contains(&name))?;
        Some(Self {
            patterns: kind.patterns.iter().map(|pattern| Regex::new(pattern).ok()).collect::<Option<_>>()?,
            ignore_merges: kind.ignore_merges,
            add_bos: kind.add_bos,
        })
    }

    /// All names.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        KINDS.iter().flat_map(|kind| kind.names).copied()
    }

    /// Where the words of `text` lie.
    pub(super) fn words(&self, text: &str) -> Result<Vec<Range<usize>>, fancy_regex::Error> {
        let mut words = Vec::new();
        if !text.is_empty() {
            words.push(0..text.len());
        }
        for pattern in &self.patterns {
            let mut parts = Vec::with_capacity(words.len());
            for word in words {
                let mut done = word.start;
                for found in pattern.find_iter(&text[word.clone()]) {
                    let found = found?;
                    let (start, end) = (word.start + found.start(), word.start + found.end());
                    parts.extend([done..start, start..end].into_iter().filter(|part| !part.is_empty()));
                    done = end;
                }
                if done < word.end {
                    parts.push(done..word.end);
                }
            }
            words = parts;
        }
        Ok(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
        let words = PreTokenizer::named(name).unwrap().words(text).unwrap();
        words.into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn every_kind_is_there_once_and_loses_nothing() {
        let mut names: Vec<&str> = PreTokenizer::names().collect();
        for name in &names {
            let text = " I'm  there:\n\n 12345 日本語 x²\t!? \r\n end  ";
            assert_eq!(words(name, text).concat(), text, "{name}");
            assert_eq!(words(name, ""), [""; 0]);
        }
        names.sort_unstable();
        assert!(names.array_windows().all(|[a, b]| a != b));
        assert!(PreTokenizer::named("gpt-5").is_none());
    }

    #[test]
    fn words_are_cut_as_the_models_want_them() {
        let text = "I'M  it's 1234\n\n x";
        assert_eq!(words("gpt-2", text), ["I", "'", "M", " ", " it", "'s", " 1234", "\n\n", " x"]);
        assert_eq!(
            words("smollm", text),
            ["I", "'", "M", " ", " it", "'s", " ", "1", "2", "3", "4", "\n\n", " x"]
        );
        assert_eq!(words("llama-bpe", text), ["I", "'M", " ", " it", "'s", " ", "123", "4", "\n\n", " x"]);
        assert_eq!(
            words("qwen2", text),
            ["I", "'M", " ", " it", "'s", " ", "1", "2", "3", "4", "\n\n", " x"]
        );
        assert_eq!(words("default", "a..b 1234"), ["a", "..", "b", " ", "123", "4"]);
        assert_eq!(words("gpt-4o", "HelloWorld's /\n"), ["Hello", "World's", " /\n"]);
    }
}
