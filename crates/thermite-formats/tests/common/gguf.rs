//! GGUF files by hand: right ones, and wrong ones of every kind.

use thermite_formats::{Gguf, Result};

/// A text as the format has it: its length, its bytes.
pub fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&(text.len() as u64).to_le_bytes()[..], text].concat()
}

/// An array of that element type, which says that it has `len` elements.
pub fn array(element: u32, len: u64, elements: &[u8]) -> Vec<u8> {
    [&element.to_le_bytes()[..], &len.to_le_bytes(), elements].concat()
}

pub const U8: u32 = 0;
pub const U32: u32 = 4;
pub const I32: u32 = 5;
pub const F32: u32 = 6;
pub const BOOL: u32 = 7;
pub const STRING: u32 = 8;
pub const ARRAY: u32 = 9;
pub const U64: u32 = 10;

/// Parts of a file, laid one after the other by [`Builder::build`]; nothing is checked.
#[derive(Clone)]
pub struct Builder {
    pub magic: [u8; 4],
    pub version: u32,
    pub tensor_count: Option<u64>,
    pub pair_count: Option<u64>,
    pub alignment: usize,
    pub pairs: Vec<Vec<u8>>,
    pub tensors: Vec<Vec<u8>>,
    pub data: Vec<u8>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            pair_count: None,
            alignment: 32,
            pairs: Vec::new(),
            tensors: Vec::new(),
            data: Vec::new(),
        }
    }
}

impl Builder {
    pub fn pair(mut self, key: impl AsRef<[u8]>, value_type: u32, value: impl AsRef<[u8]>) -> Self {
        self.pairs.push([&string(key), &value_type.to_le_bytes()[..], value.as_ref()].concat());
        self
    }

    /// A tensor description; `dims` as the file has them, the fastest first.
    pub fn tensor(mut self, name: impl AsRef<[u8]>, dims: &[u64], ggml_type: u32, offset: u64) -> Self {
        let mut info = string(name);
        info.extend((dims.len() as u32).to_le_bytes());
        info.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        info.extend(ggml_type.to_le_bytes());
        info.extend(offset.to_le_bytes());
        self.tensors.push(info);
        self
    }

    pub fn data(mut self, len: usize) -> Self {
        self.data = (0..len).map(|i| i as u8).collect();
        self
    }

    pub fn build(&self) -> Vec<u8> {
        let mut file = self.magic.to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        file.extend(self.pair_count.unwrap_or(self.pairs.len() as u64).to_le_bytes());
        file.extend(self.pairs.concat());
        file.extend(self.tensors.concat());
        if !self.data.is_empty() {
            file.resize(file.len().next_multiple_of(self.alignment), 0);
            file.extend(&self.data);
        }
        file
    }

    pub fn open(&self) -> Result<Gguf> {
        Gguf::in_memory("a.gguf", self.build())
    }
}

/// A file with a pair of every kind and three tensors.
pub fn small() -> Builder {
    let tokens = [string("a"), string("é"), string("")].concat();
    let rows = [array(I32, 2, &[1, 0, 0, 0, 2, 0, 0, 0]), array(I32, 0, &[])].concat();
    Builder::default()
        .pair("general.architecture", STRING, string("llama"))
        .pair("llama.block_count", U32, 2_u32.to_le_bytes())
        .pair("llama.rope.freq_base", F32, 1e4_f32.to_le_bytes())
        .pair("tokenizer.ggml.add_bos_token", BOOL, [1])
        .pair("tokenizer.ggml.tokens", ARRAY, array(STRING, 3, &tokens))
        .pair("nested", ARRAY, array(ARRAY, 2, &rows))
        .pair("big", U64, u64::MAX.to_le_bytes())
        .tensor("norm", &[3], 0, 0)
        .tensor("weight", &[32, 2], 8, 32)
        .tensor("halves", &[2, 3], 1, 128)
        .data(140)
}
