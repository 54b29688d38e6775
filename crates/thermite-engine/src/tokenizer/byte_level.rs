//! Byte-level BPE (Radford et al. 2019): a text's bytes, word by word, merged by a list of pairs.

use std::collections::HashMap;

use super::decoder::byte_alphabet;
use super::error::TokenizerError;
use super::merge::{Symbol, merge_all};
use super::pieces::{Ids, Pieces};
use super::pre_tokenizer::PreTokenizer;

/// The merges of a byte-level vocabulary.
#[derive(Debug)]
pub(super) struct ByteLevel {
    ids: Ids,
    /// The token of each byte, where there is one.
    bytes: Vec<Option<u32>>,
    /// Rank and result, by the two tokens that are merged.
    merges: HashMap<(u32, u32), (u32, u32)>,
    pre_tokenizer: PreTokenizer,
}

impl ByteLevel {
    /// `text_ids` are the tokens that texts are made of; each of `merges` is two spellings with a space between them.
    pub(super) fn new(
        pieces: &Pieces,
        text_ids: impl Iterator<Item = u32>,
        merges: &[&str],
        pre_tokenizer: PreTokenizer,
    ) -> Result<Self, TokenizerError> {
        let ids = Ids::new(pieces, text_ids);
        let mut table = HashMap::with_capacity(merges.len());
        let mut whole = String::new();
        for (index, merge) in merges.iter().enumerate() {
            let wrong = |reason| TokenizerError::Merge { index, merge: (*merge).to_owned(), reason };
            let Some((left, right)) = merge.split_once(' ') else {
                return Err(wrong("two spellings with a space between them are needed".to_owned()));
            };
            whole.clear();
            whole.push_str(left);
            whole.push_str(right);
            let id = |piece: &str| {
                ids.get(pieces, piece).ok_or_else(|| wrong(format!("{piece:?} is not in the vocabulary")))
            };
            // a pair that stands there twice has the rank of the first
            table.entry((id(left)?, id(right)?)).or_insert((index as u32, id(&whole)?));
        }
        let bytes = (0..=u8::MAX).map(|byte| ids.get(pieces, byte_alphabet(byte).encode_utf8(&mut [0; 2])));
        Ok(Self { bytes: bytes.collect(), ids, merges: table, pre_tokenizer })
    }

    pub(super) fn encode(
        &self,
        pieces: &Pieces,
        text: &str,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let words = self.pre_tokenizer.words(text);
        let words = words.map_err(|error| TokenizerError::Encode { reason: error.to_string() })?;
        for word in words {
            self.encode_word(pieces, &text.as_bytes()[word], out)?;
        }
        Ok(())
    }

    fn encode_word(&self, pieces: &Pieces, word: &[u8], out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        if self.pre_tokenizer.ignore_merges {
            let spelled: String = word.iter().map(|&byte| byte_alphabet(byte)).collect();
            if let Some(id) = self.ids.get(pieces, &spelled) {
                out.push(id);
                return Ok(());
            }
        }
        let symbol =
            |(i, &byte): (usize, &u8)| Symbol { range: i..i + 1, token: self.bytes[usize::from(byte)] };
        let symbols = word.iter().enumerate().map(symbol).collect();
        let merged = merge_all(symbols, |left, right| self.merges.get(&(left.token?, right.token?)).copied());
        for symbol in merged {
            let byte =
                || format!("the vocabulary has no token for the byte 0x{:02X}", word[symbol.range.start]);
            out.push(symbol.token.ok_or_else(|| TokenizerError::Encode { reason: byte() })?);
        }
        Ok(())
    }
}
