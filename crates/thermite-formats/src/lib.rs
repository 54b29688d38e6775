//! Model files: safetensors and Hugging Face folders. Parsing only.
