//! Tokenizer, KV cache, sampling and generation.
