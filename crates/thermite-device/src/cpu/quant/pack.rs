//! From the blocks of a file to [`Tiles`]: each block goes to the lanes of its row.

use bytemuck::Pod;
use half::f16;
use thermite_formats::quant::blocks::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0,
    Half, scales_and_minima,
};

use super::lanes::Step;
use super::tiles::{Nibbles, Ones, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, Tiles, Twos};

/// Tiles that are made of a format's blocks.
pub(super) trait Pack: Tiles {
    /// The format's block: one row of all tiles of the value.
    type Block: Pod;

    /// Puts one block in the lanes of `row`.
    fn put(&mut self, row: usize, block: &Self::Block);
}

fn half(h: Half) -> f16 {
    f16::from_le_bytes(h.0)
}

/// The four bytes of a row in a step.
fn lanes(step: &mut Step, row: usize) -> &mut [u8; 4] {
    let (rows, _) = step.as_chunks_mut();
    &mut rows[row]
}

const fn word(bytes: [u8; 4]) -> u32 {
    u32::from_le_bytes(bytes)
}

/// The words of some bytes.
fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let (words, _) = bytes.as_chunks();
    std::array::from_fn(|i| word(words[i]))
}

impl Nibbles {
    /// Weights `j` and `j + 16` in the halves of byte `j`: as files have it.
    fn put(&mut self, row: usize, bytes: &[u8; 16]) {
        let (steps, _) = bytes.as_chunks();
        for (step, bytes) in self.0.iter_mut().zip(steps) {
            *lanes(step, row) = *bytes;
        }
    }

    /// Weights out of the low or the high halves of 32 bytes.
    fn put_half(&mut self, row: usize, bytes: &[u8], high: bool) {
        let words: [u32; 8] = words(bytes);
        for (k, step) in self.0.iter_mut().enumerate() {
            let shift = if high { 4 } else { 0 };
            let [low, high] = [words[k], words[k + 4]].map(|w| w >> shift & 0x0f0f_0f0f);
            *lanes(step, row) = (low | high << 4).to_le_bytes();
        }
    }
}

impl Twos {
    /// Bits `2 pair` and the next of 32 bytes.
    fn put(&mut self, row: usize, bytes: &[u8], pair: usize) {
        let words: [u32; 8] = words(bytes);
        for (plane, words) in self.0.iter_mut().zip(words.chunks_exact(4)) {
            let bits = words.iter().enumerate().map(|(k, w)| (w >> (2 * pair) & 0x0303_0303) << (2 * k));
            *lanes(plane, row) = bits.fold(0, |all, bits| all | bits).to_le_bytes();
        }
    }
}

impl Ones {
    /// Bit `bit` of 32 bytes.
    fn put(&mut self, row: usize, bytes: &[u8], bit: usize) {
        let words: [u32; 8] = words(bytes);
        let bits = words.iter().enumerate().map(|(k, w)| (w >> bit & 0x0101_0101) << k);
        *lanes(&mut self.0, row) = bits.fold(0, |all, bits| all | bits).to_le_bytes();
    }

    /// The bits of a word: weight `j` is bit `j`.
    fn put_word(&mut self, row: usize, bits: u32) {
        *lanes(&mut self.0, row) = std::array::from_fn(|c| {
            // every fourth bit from `c` on, drawn together
            let mut x = bits >> c & 0x1111_1111;
            x = (x | x >> 3) & 0x0303_0303;
            x = (x | x >> 6) & 0x000f_000f;
            (x | x >> 12) as u8
        });
    }
}

impl Pack for Q8_0 {
    type Block = BlockQ8_0;
    fn put(&mut self, row: usize, block: &BlockQ8_0) {
        self.d[row] = half(block.d);
        let (steps, _) = bytemuck::cast_slice(&block.qs).as_chunks();
        for (step, bytes) in self.q.iter_mut().zip(steps) {
            *lanes(step, row) = *bytes;
        }
    }
}

impl Pack for Q4_0 {
    type Block = BlockQ4_0;
    fn put(&mut self, row: usize, block: &BlockQ4_0) {
        self.d[row] = half(block.d);
        self.q.put(row, &block.qs);
    }
}

impl Pack for Q4_1 {
    type Block = BlockQ4_1;
    fn put(&mut self, row: usize, block: &BlockQ4_1) {
        self.d[row] = half(block.d);
        self.m[row] = half(block.m);
        self.q.put(row, &block.qs);
    }
}

impl Pack for Q5_0 {
    type Block = BlockQ5_0;
    fn put(&mut self, row: usize, block: &BlockQ5_0) {
        self.d[row] = half(block.d);
        self.q.put(row, &block.qs);
        self.h.put_word(row, word(block.qh));
    }
}

impl Pack for Q5_1 {
    type Block = BlockQ5_1;
    fn put(&mut self, row: usize, block: &BlockQ5_1) {
        self.d[row] = half(block.d);
        self.m[row] = half(block.m);
        self.q.put(row, &block.qs);
        self.h.put_word(row, word(block.qh));
    }
}

impl Pack for Q2K {
    type Block = BlockQ2K;
    fn put(&mut self, row: usize, block: &BlockQ2K) {
        self.d[row] = half(block.d);
        self.dmin[row] = -half(block.dmin);
        for (t, tile) in self.tiles.iter_mut().enumerate() {
            for half in 0..2 {
                let scales = block.scales[2 * t + half];
                tile.scale[half][row] = scales & 15;
                tile.min[half][row] = scales >> 4;
            }
            tile.q.put(row, &block.qs[32 * (t / 4)..][..32], t % 4);
        }
    }
}

impl Pack for Q3K {
    type Block = BlockQ3K;
    fn put(&mut self, row: usize, block: &BlockQ3K) {
        self.d[row] = half(block.d);
        let scales = block.scales();
        for (t, tile) in self.tiles.iter_mut().enumerate() {
            for half in 0..2 {
                tile.scale[half][row] = scales[2 * t + half] as i8 - 32;
            }
            tile.q.put(row, &block.qs[32 * (t / 4)..][..32], t % 4);
            tile.h.put(row, &block.hmask, t);
        }
    }
}

impl Pack for Q4K {
    type Block = BlockQ4K;
    fn put(&mut self, row: usize, block: &BlockQ4K) {
        self.d[row] = half(block.d);
        self.dmin[row] = -half(block.dmin);
        let (scales, minima) = scales_and_minima(&block.scales);
        for (t, tile) in self.tiles.iter_mut().enumerate() {
            tile.scale[0][row] = scales[t];
            tile.min[0][row] = minima[t];
            tile.q.put_half(row, &block.qs[32 * (t / 2)..][..32], t % 2 == 1);
        }
    }
}

impl Pack for Q5K {
    type Block = BlockQ5K;
    fn put(&mut self, row: usize, block: &BlockQ5K) {
        self.d[row] = half(block.d);
        self.dmin[row] = -half(block.dmin);
        let (scales, minima) = scales_and_minima(&block.scales);
        for (t, tile) in self.tiles.iter_mut().enumerate() {
            tile.scale[0][row] = scales[t];
            tile.min[0][row] = minima[t];
            tile.q.put_half(row, &block.qs[32 * (t / 2)..][..32], t % 2 == 1);
            tile.h.put(row, &block.qh, t);
        }
    }
}

impl Pack for Q6K {
    type Block = BlockQ6K;
    fn put(&mut self, row: usize, block: &BlockQ6K) {
        self.d[row] = half(block.d);
        for (t, tile) in self.tiles.iter_mut().enumerate() {
            for half in 0..2 {
                tile.scale[half][row] = block.scales[2 * t + half];
            }
            let (group, part) = (t / 4, t % 4);
            tile.q.put_half(row, &block.ql[64 * group + 32 * (part % 2)..][..32], part >= 2);
            tile.h.put(row, &block.qh[32 * group..][..32], part);
        }
    }
}
