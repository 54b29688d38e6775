//! A model's vocabulary as `llguidance` walks it: a tree of the tokens' bytes.

use std::sync::Arc;

use llguidance::toktrie::{ApproximateTokEnv, INVALID_TOKEN, TokEnv, TokRxInfo, TokTrie};

use super::GrammarError;
use crate::tokenizer::Tokenizer;

/// Bytes of the longest token in the tree: its nodes count their depth in 10 bits.
const LONGEST: usize = 1 << 10;

/// Nodes of the tree: they count those below them in 22 bits.
const MOST_NODES: usize = 1 << 22;

/// The tree of the first `n_vocab` tokens. A token that is not a text (a special one) is there under its spelling behind
/// a byte that no text has; one without bytes, or with that byte, is not there: no grammar allows it.
pub(super) fn environment(tokenizer: &Tokenizer, n_vocab: usize) -> Result<TokEnv, GrammarError> {
    let words: Vec<Vec<u8>> = (0..n_vocab as u32).map(|id| word(tokenizer, id)).collect();
    let bytes: usize = words.iter().map(Vec::len).sum();
    if bytes >= MOST_NODES {
        let reason = format!("its {n_vocab} tokens have {bytes} bytes, {MOST_NODES} are too many");
        return Err(GrammarError::Vocabulary { reason });
    }
    let eos: Vec<u32> = tokenizer.eos_ids().iter().copied().filter(|&id| (id as usize) < n_vocab).collect();
    let info = TokRxInfo::new(n_vocab as u32, eos.first().copied().unwrap_or(INVALID_TOKEN));
    let tree = TokTrie::from(&info, &words);
    let tree = if eos.is_empty() { tree } else { tree.with_eos_tokens(&eos) };
    Ok(Arc::new(ApproximateTokEnv::new(tree)))
}

fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    const SPECIAL: u8 = TokTrie::SPECIAL_TOKEN_MARKER;
    let bytes = tokenizer.bytes(id).unwrap_or_default();
    if bytes.contains(&SPECIAL) || bytes.len() >= LONGEST {
        return Vec::new();
    }
    match tokenizer.is_special(id) || tokenizer.is_eos(id) {
        true => [&[SPECIAL], bytes.as_slice()].concat(),
        false => bytes,
    }
}
