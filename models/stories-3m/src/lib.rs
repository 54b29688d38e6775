//! A GPT-2 of 3.55 M parameters that writes short stories, embedded in the program.
//!
//! The files are those of a Hugging Face folder, byte for byte; README.md says where they come from.
#![no_std]

/// The model's configuration: GPT-2, 6 layers, 6 heads, `n_embd` 192, `n_positions` 512, 4,096 tokens.
pub const CONFIG_JSON: &str = include_str!("../config.json");

/// Generation defaults: the first and the last token's ids.
pub const GENERATION_CONFIG_JSON: &str = include_str!("../generation_config.json");

/// The byte-level BPE tokenizer.
pub const TOKENIZER_JSON: &[u8] = include_bytes!("../tokenizer.json");

/// The weights (f16), in safetensors format. The file starts on a 64-byte boundary, and its header
/// is a multiple of 8 bytes long: every tensor may be viewed as 16-bit words where it lies.
pub const MODEL_SAFETENSORS: &[u8] = &WEIGHTS.bytes;

static WEIGHTS: Aligned<[u8; include_bytes!("../model.safetensors").len()]> =
    Aligned { bytes: *include_bytes!("../model.safetensors") };

#[repr(align(64))]
struct Aligned<T> {
    bytes: T,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_can_be_viewed_as_16_bit_words() {
        assert_eq!(MODEL_SAFETENSORS.as_ptr() as usize % 64, 0);
        let header = u64::from_le_bytes(MODEL_SAFETENSORS[..8].try_into().unwrap());
        assert_eq!(header % 8, 0);
    }

    #[test]
    fn the_configuration_is_this_models() {
        assert!(CONFIG_JSON.contains(r#""model_type": "gpt2""#));
        assert!(GENERATION_CONFIG_JSON.contains(r#""eos_token_id": 0"#));
        assert_eq!(TOKENIZER_JSON.first(), Some(&b'{'));
    }
}
