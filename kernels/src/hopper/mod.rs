//! Kernels written anew for NVIDIA's Hopper, under the names of the `.metal` ones: what only its own instructions reach.
//!
//! They lie in `hopper/`, are compiled by NVRTC for sm_90a, and take a kernel's place at a launch: the same bindings, the
//! same results within the same tolerances, another geometry. The conformance cases of the name are theirs as well.

pub mod steps;

use std::ops::RangeInclusive;

use crate::contract::Dims;
use crate::sources::{HOPPER_HEADERS, HOPPER_SOURCES};
use crate::wrap::{CudaProgram, cuda_entry};

/// A launch in a kernel's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// The file, for [`program`].
    pub file: &'static str,
    /// The `__global__` function.
    pub entry: String,
    /// Threadgroups in x, y, z.
    pub grid: [u32; 3],
    /// Threads a threadgroup.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared_memory: u32,
    /// Whether its clusters have more threadgroups than every GPU takes, which the function must be allowed.
    pub large_clusters: bool,
    /// What the function is given.
    pub parameters: Vec<Parameter>,
}

/// A parameter of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// A binding of the kernel, by its place among all of them.
    Binding(usize),
    /// A number.
    Int(i32),
    /// A binding as a tensor of 16-bit elements that the copy engine takes boxes of (`CUtensorMap`): swizzled over 128
    /// bytes, zeros outside.
    Tensor {
        /// The binding.
        binding: usize,
        /// Elements in x, y, z, the innermost first.
        extents: [u64; 3],
        /// Elements of a box.
        boxed: [u32; 3],
    },
}

/// Rows that argmax's state is there for (`ROWS` in sampling.cu).
const ARGMAX_ROWS: u64 = 1024;
const ARGMAX_THREADS: u32 = 256;
/// Threadgroups and threads of top-k's cluster, and the longest row that they hold.
const CLUSTER: u32 = 16;
const CLUSTER_THREADS: u32 = 1024;
const LONGEST_ROW: u64 = 16 * 1024 * 16;

/// What takes the place of `kernel` for these dimensions on a GPU of so many multiprocessors; none where the `.metal`
/// kernel is to be launched. Nothing to do (an empty grid) is left to the caller.
pub fn replacement(kernel: &str, dims: &Dims, multiprocessors: u32) -> Option<Replacement> {
    match kernel {
        "argmax_sample" => argmax(dims, multiprocessors),
        "topk_mask" => topk(dims),
        "matvec_f16_rows4" | "matvec_bf16_rows4" => matvec(kernel, dims, multiprocessors),
        _ => {
            let (scalar, hs) = kernel.strip_prefix("flash_attention_simd_")?.split_once("_hs")?;
            let known = ["f16", "bf16"].contains(&scalar);
            known.then(|| flash(kernel, hs.parse().ok()?, dims, multiprocessors))?
        }
    }
}

/// Whether `kernel` has a replacement, for some dimensions.
pub fn replaces(kernel: &str) -> bool {
    let one = Dims::new(&[("rows", 1), ("V", 1), ("heads", 1), ("T", 1), ("N", 1), ("K", 1024), ("M", 1)]);
    replacement(kernel, &one, 1).is_some()
}

fn argmax(dims: &Dims, multiprocessors: u32) -> Option<Replacement> {
    let (rows, v) = (dims.get("rows").ok()?, dims.get("V").ok()?);
    let parts = v.div_ceil(ARGMAX_THREADS.into()).clamp(1, multiprocessors.into());
    (rows <= ARGMAX_ROWS).then(|| Replacement {
        file: "sampling.cu",
        entry: cuda_entry("argmax_sample"),
        grid: [parts as u32, rows as u32, 1],
        threads: ARGMAX_THREADS,
        shared_memory: 0,
        large_clusters: false,
        parameters: [0, 1, 2].map(Parameter::Binding).to_vec(),
    })
}

fn topk(dims: &Dims) -> Option<Replacement> {
    let (rows, v) = (dims.get("rows").ok()?, dims.get("V").ok()?);
    let groups = u32::try_from(rows).ok()?.checked_mul(CLUSTER)?;
    (v <= LONGEST_ROW).then(|| Replacement {
        file: "sampling.cu",
        entry: cuda_entry("topk_mask"),
        grid: [groups, 1, 1],
        threads: CLUSTER_THREADS,
        shared_memory: 0,
        large_clusters: true,
        parameters: [0, 1, 2].map(Parameter::Binding).to_vec(),
    })
}

fn matvec(kernel: &str, dims: &Dims, multiprocessors: u32) -> Option<Replacement> {
    /// Warps of a threadgroup, and rows that a warp multiplies together (matvec.cu).
    const WARPS: u64 = 8;
    const ROWS: u64 = 2;
    /// Lengths of rows, and elements of a matrix, at which it is faster than the `.metal` kernel.
    const LENGTHS: RangeInclusive<u64> = 1024..=8192;
    const MOST: u64 = 1 << 26;
    /// A slot of each ring, with its barrier.
    const SLOTS: u64 = WARPS * (ROWS * 1024 * 2 + 8);
    /// Shared memory of a launch that lets the next begin beside it.
    const SHARED: u64 = 113 << 10;
    let (n, k, m) = (dims.get("N").ok()?, dims.get("K").ok()?, dims.get("M").ok()?);
    if !LENGTHS.contains(&k) || !k.is_multiple_of(8) || k.checked_mul(m)? > MOST {
        return None;
    }
    let vector = (4 * k).next_multiple_of(128);
    let slots = (SHARED - vector) / SLOTS;
    let groups = m.div_ceil(ROWS * WARPS).min(multiprocessors.into());
    Some(Replacement {
        file: "matvec.cu",
        entry: cuda_entry(kernel),
        grid: [groups as u32, n.try_into().ok()?, 1],
        threads: 32 * WARPS as u32,
        shared_memory: (vector + slots * SLOTS) as u32,
        large_clusters: false,
        parameters: (0..7).map(Parameter::Binding).chain([Parameter::Int(slots as i32)]).collect(),
    })
}

fn flash(kernel: &str, hs: u64, dims: &Dims, multiprocessors: u32) -> Option<Replacement> {
    /// Keys a tile, and tiles of keys and of values at a time.
    const KEYS: u64 = 128;
    const STAGES: u64 = 2;
    /// Elements of a box's row: 128 bytes.
    const PANEL: u32 = 64;
    /// What else lies in shared memory: barriers, and the way to the next multiple of 1,024.
    const REST: u64 = 1024 + 256;
    // Warpgroups of 64 queries, as many as the registers of a multiprocessor carry.
    let groups = match hs {
        64 => 3,
        128 => 2,
        _ => return None,
    };
    let (heads, t) = (dims.get("heads").ok()?, dims.get("T").ok()?);
    let tiles = heads.checked_mul(t.div_ceil(64 * groups))?;
    let tensor = |binding, rows: u64| Parameter::Tensor {
        binding,
        extents: [hs, t, heads],
        boxed: [PANEL, rows as u32, 1],
    };
    Some(Replacement {
        file: "flash_attention.cu",
        entry: cuda_entry(kernel),
        grid: [tiles.min(multiprocessors.into()) as u32, 1, 1],
        threads: 128 * (groups as u32 + 1),
        shared_memory: ((64 * groups + 2 * STAGES * KEYS) * hs * 2 + REST) as u32,
        large_clusters: false,
        parameters: vec![
            tensor(0, 64),
            tensor(1, KEYS),
            tensor(2, KEYS),
            Parameter::Binding(3),
            Parameter::Int(t.try_into().ok()?),
            Parameter::Int(heads.try_into().ok()?),
        ],
    })
}

/// The files of replacements, by name.
pub fn files() -> impl Iterator<Item = &'static str> {
    HOPPER_SOURCES.iter().map(|(file, _)| *file).filter(|file| *file != steps::FILE)
}

/// A file as NVRTC takes it.
pub fn program(file: &str) -> Option<CudaProgram> {
    let (_, text) = HOPPER_SOURCES.iter().find(|(name, _)| *name == file)?;
    Some(CudaProgram { source: (*text).to_owned(), headers: HOPPER_HEADERS.to_vec(), kernels: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;
    use crate::contract::bindable;

    const DIMS: [(&str, u64); 8] = [
        ("rows", 3),
        ("V", 50_257),
        ("k", 50),
        ("heads", 12),
        ("T", 1000),
        ("N", 1),
        ("K", 4096),
        ("M", 14_336),
    ];

    #[test]
    fn a_replacement_has_a_kernel_of_its_name_and_takes_its_bindings() {
        let mut files: Vec<_> = files().collect();
        let mut names = Vec::new();
        for entry in catalogue::kernels().unwrap() {
            let name = &entry.kernel.name;
            let Some(found) = replacement(name, &Dims::new(&DIMS), 132) else { continue };
            let bindings = bindable(&entry.kernel).len();
            let source = program(found.file).unwrap().source;
            let named = name.strip_prefix("flash_attention_simd_").map(|n| format!("FLASH({n},"));
            assert!(source.contains(&named.unwrap_or(found.entry)), "{} lacks {name}", found.file);
            for parameter in found.parameters {
                if let Parameter::Binding(i) | Parameter::Tensor { binding: i, .. } = parameter {
                    assert!(i < bindings, "{name} has no binding {i}");
                }
            }
            files.retain(|file| *file != found.file);
            names.push(name.as_str());
        }
        assert!(files.is_empty(), "{files:?} replace nothing");
        let flash = |scalar, hs| format!("flash_attention_simd_{scalar}_hs{hs}");
        let mut wanted = ["argmax_sample", "topk_mask", "matvec_f16_rows4", "matvec_bf16_rows4"]
            .map(str::to_owned)
            .to_vec();
        wanted.extend(["f16", "bf16"].iter().flat_map(|s| [64, 128].map(|hs| flash(s, hs))));
        names.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(names, wanted);
    }

    #[test]
    fn what_does_not_fit_is_left_to_the_metal_kernel() {
        let none =
            |kernel, name, value| replacement(kernel, &Dims::new(&DIMS).with(name, value), 132).is_none();
        assert!(none("topk_mask", "V", 262_145));
        assert!(none("argmax_sample", "rows", 1025));
        assert!(none("flash_attention_simd_f16_hs80", "T", 64));
        assert!(none("matvec_f16_rows4", "K", 4100));
        assert!(none("matvec_f16_rows4", "K", 768));
        assert!(none("matvec_f16_rows4", "K", 8200));
        assert!(none("matvec_f16_rows4", "M", 65_536));
    }

    #[test]
    fn no_more_threadgroups_than_there_is_work() {
        let grid = |kernel, t| replacement(kernel, &Dims::new(&DIMS).with("T", t), 132).unwrap().grid;
        assert_eq!(grid("flash_attention_simd_bf16_hs128", 128), [12, 1, 1]);
        assert_eq!(grid("flash_attention_simd_bf16_hs64", 4096), [132, 1, 1]);
        let short = Dims::new(&[("rows", 2), ("V", 300)]);
        assert_eq!(replacement("argmax_sample", &short, 132).unwrap().grid, [2, 2, 1]);
        let matvec = |m| replacement("matvec_bf16_rows4", &Dims::new(&DIMS).with("M", m), 132).unwrap();
        assert_eq!([33, 14_336].map(|m| matvec(m).grid), [[3, 1, 1], [132, 1, 1]]);
    }
}
