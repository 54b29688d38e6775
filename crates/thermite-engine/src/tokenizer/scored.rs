//! BPE by scores, as SentencePiece does it (Kudo and Richardson 2018, arXiv:1808.06226): of all neighbouring pieces
//! that make a piece of the vocabulary together, those of the highest score become one; what is left without a piece
//! is spelled in bytes. Spaces are U+2581.

use super::error::TokenizerError;
use super::merge::{Symbol, merge_all};
use super::pieces::{Ids, Pieces};

/// What stands for a space.
pub(super) const SPACE: char = '\u{2581}';

/// A vocabulary of scored pieces.
#[derive(Debug)]
pub(super) struct Scored {
    ids: Ids,
    /// By id, the highest score first.
    ranks: Vec<u32>,
    /// The token of each byte, where there is one.
    bytes: Vec<Option<u32>>,
    unknown: Option<u32>,
}

impl Scored {
    /// `text_ids` are the tokens that texts are made of.
    pub(super) fn new(
        pieces: &Pieces,
        text_ids: impl Iterator<Item = u32>,
        scores: &[f32],
        bytes: Vec<Option<u32>>,
        unknown: Option<u32>,
    ) -> Self {
        let ranks = scores.iter().map(|&score| descending(score)).collect();
        Self { ids: Ids::new(pieces, text_ids), ranks, bytes, unknown }
    }

    /// Ids of `text`, a space before it if `space_first`.
    pub(super) fn encode(
        &self,
        pieces: &Pieces,
        text: &str,
        space_first: bool,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut spelled = String::with_capacity(text.len() + 8);
        if space_first {
            spelled.push(SPACE);
        }
        spelled.extend(text.chars().map(|c| if c == ' ' { SPACE } else { c }));
        let symbols = spelled.char_indices().map(|(start, c)| {
            let range = start..start + c.len_utf8();
            Symbol { token: self.ids.get(pieces, &spelled[range.clone()]), range }
        });
        let merged = merge_all(symbols.collect(), |left, right| {
            let token = self.ids.get(pieces, &spelled[left.range.start..right.range.end])?;
            Some((self.ranks[token as usize], token))
        });
        for symbol in merged {
            match symbol.token {
                Some(token) => out.push(token),
                None => self.spell(&spelled[symbol.range], out)?,
            }
        }
        Ok(())
    }

    /// A piece that is not in the vocabulary: its bytes, or the unknown token.
    fn spell(&self, piece: &str, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let bytes: Option<Vec<u32>> = piece.bytes().map(|byte| self.bytes[usize::from(byte)]).collect();
        match (bytes, self.unknown) {
            (Some(bytes), _) => out.extend(bytes),
            (None, Some(unknown)) => out.push(unknown),
            (None, None) => {
                let reason = format!("the vocabulary has no token for {piece:?}, nor for its bytes");
                return Err(TokenizerError::Encode { reason });
            }
        }
        Ok(())
    }
}

/// A number that is the lower the higher the score is.
fn descending(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits(); // -0 is 0
    if bits >> 31 == 0 { !bits & !(1 << 31) } else { bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_in_the_order_of_scores() {
        let scores = [f32::INFINITY, 3.5, 1e-40, 0.0, -1e-40, -1.0, -2.0, -1000.0, f32::NEG_INFINITY];
        assert!(scores.array_windows().all(|&[a, b]| descending(a) < descending(b)));
        assert_eq!(descending(0.0), descending(-0.0));
    }
}
