//! From a contract, dimensions and a device's limits to a launch.

use super::expression::{holds, names as names_of, value};
use super::table::{Contract, Dispatch, block_of, contract_of, elements_a_thread, head_size};
use super::{Dims, GeometryError};

/// Threads of a simdgroup, on every GPU this project runs on.
const SIMDGROUP: u64 = 32;
/// Threads that an elementwise kernel wants in a threadgroup, in x, y, z. CUDA takes no more than 64 in z.
const ELEMENTWISE_THREADS: [u64; 3] = [1024, 1024, 64];
/// The same where a thread has four elements: a large array streams faster through small threadgroups, which end one by
/// one. Not the smallest: an H200 starts about 830 threadgroups a microsecond, and with 128 threads each that is four fifths
/// of its memory's speed where one array becomes another.
const VECTOR_THREADS: [u64; 3] = [256, 1024, 64];

/// Elements of its row that a thread of a `_v4` kernel keeps in registers (row.h).
const HELD_OF_A_ROW: u64 = 16;

/// What a device can launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Threads a threadgroup; at most 1,024.
    pub threads: u32,
    /// Bytes of threadgroup memory, all of a kernel's together.
    pub threadgroup_memory: u32,
    /// Threadgroups in x, y, z.
    pub grid: [u32; 3],
}

impl Limits {
    /// Apple GPUs: 1,024 threads, 32 KB of threadgroup memory, 32-bit thread positions.
    pub const APPLE: Self = Self { threads: 1024, threadgroup_memory: 32 * 1024, grid: [u32::MAX; 3] };
    /// NVIDIA GPUs, without asking for more than 48 KB of shared memory.
    pub const CUDA: Self =
        Self { threads: 1024, threadgroup_memory: 48 * 1024, grid: [i32::MAX as u32, 65_535, 65_535] };
}

/// The geometry of one launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Threadgroups in x, y, z. A zero: there is nothing to do, and nothing is launched.
    pub grid: [u32; 3],
    /// Threads a threadgroup in x, y, z.
    pub threadgroup: [u32; 3],
    /// Bytes of `threadgroup(0)`, `threadgroup(1)`, …, each a multiple of 16.
    pub threadgroup_memory: Vec<u32>,
}

impl Launch {
    /// Whether there is nothing to launch.
    pub fn is_empty(&self) -> bool {
        self.grid.contains(&0)
    }
}

/// The launch of `kernel` (a base name or an instance) for the given dimensions.
///
/// # Errors
/// [`GeometryError`] names the kernel, the dimension and the numbers.
pub fn launch(kernel: &str, dims: &Dims, limits: &Limits) -> Result<Launch, GeometryError> {
    let contract =
        contract_of(kernel).ok_or_else(|| GeometryError::UnknownKernel { kernel: kernel.to_owned() })?;
    let dims = with_derived(kernel, dims);
    check_conditions(kernel, contract, &dims)?;
    let (groups, threadgroup) = match contract.dispatch {
        Dispatch::Rows { grid, length } => {
            let threads = threads_for(value(length, &dims)?, limits);
            (values(grid, &dims)?, [threads, 1, 1])
        }
        Dispatch::Threads { grid, along } => {
            let mut grid = values(grid, &dims)?;
            let mut threadgroup = [1; 3];
            let wanted = if dims.get("v")? == 4 { VECTOR_THREADS } else { ELEMENTWISE_THREADS };
            threadgroup[along] = threads_for(grid[along].min(wanted[along]), limits);
            grid[along] = grid[along].div_ceil(threadgroup[along]);
            (grid, threadgroup)
        }
        Dispatch::Groups { grid, threads } => (values(grid, &dims)?, [value(threads, &dims)?, 1, 1]),
    };
    let threads = threadgroup.iter().product();
    Ok(Launch {
        grid: fit_grid(kernel, groups, threadgroup, limits)?,
        threadgroup: fit_threadgroup(kernel, threadgroup, limits)?,
        threadgroup_memory: threadgroup_memory(kernel, contract, &dims.with("threads", threads), limits)?,
    })
}

/// The dimensions that tell the launch of `kernel` and the shapes of its buffers, each once, without those that the
/// instance's name says.
///
/// # Errors
/// [`GeometryError::UnknownKernel`].
pub fn dimensions(kernel: &str) -> Result<Vec<&'static str>, GeometryError> {
    let Contract { buffers, conditions, dispatch, threadgroup_memory, .. } =
        contract_of(kernel).ok_or_else(|| GeometryError::UnknownKernel { kernel: kernel.to_owned() })?;
    let (grid, more) = match dispatch {
        Dispatch::Rows { grid, length } => (grid, Some(length)),
        Dispatch::Threads { grid, .. } => (grid, None),
        Dispatch::Groups { grid, threads } => (grid, Some(threads)),
    };
    let shapes = buffers.iter().flat_map(|buffer| buffer.shape.iter().chain(&buffer.below));
    let texts = grid.iter().chain(more).chain(shapes).chain(*conditions).chain(*threadgroup_memory);
    // whatever the head size
    let derived = with_derived(kernel, &Dims::new(&[("hs", 1)]));
    let mut names = Vec::new();
    for name in texts.flat_map(|text| names_of(text)) {
        let is_given = name == "hs" || derived.get(name).is_err() && name != "threads";
        if is_given && !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// The dimensions, and those that the instance's name says.
pub(super) fn with_derived(kernel: &str, dims: &Dims) -> Dims {
    let v = elements_a_thread(kernel);
    let (block, block_bytes) = block_of(kernel);
    let dims = dims.clone().with("v", v).with("row_share", if v == 4 { HELD_OF_A_ROW } else { v });
    let dims = dims.with("block", block).with("block_bytes", block_bytes);
    match head_size(kernel).or_else(|| dims.get("hs").ok()) {
        Some(hs) => dims
            .with("built_hs", hs)
            .with("tile_keys", if hs < 128 { 64 } else { 32 })
            .with("decode_keys", if hs < 256 { 32 } else { 16 }),
        None => dims,
    }
}

pub(super) fn check_conditions(kernel: &str, contract: &Contract, dims: &Dims) -> Result<(), GeometryError> {
    for condition in contract.conditions {
        if !holds(condition, dims)? {
            let listed: Vec<_> = dims.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            return Err(GeometryError::Condition {
                kernel: kernel.to_owned(),
                condition,
                dims: listed.join(", "),
            });
        }
    }
    Ok(())
}

fn values(texts: [&'static str; 3], dims: &Dims) -> Result<[u64; 3], GeometryError> {
    Ok([value(texts[0], dims)?, value(texts[1], dims)?, value(texts[2], dims)?])
}

/// `min(length rounded up to a simdgroup, the device's limit)`, at least one simdgroup.
fn threads_for(length: u64, limits: &Limits) -> u64 {
    let limit = u64::from(limits.threads) / SIMDGROUP * SIMDGROUP;
    length.clamp(1, limit).next_multiple_of(SIMDGROUP)
}

/// Threadgroups must fit the device's grid, and thread positions 32 bits.
fn fit_grid(
    kernel: &str,
    grid: [u64; 3],
    threadgroup: [u64; 3],
    limits: &Limits,
) -> Result<[u32; 3], GeometryError> {
    let mut fitted = [0; 3];
    for dimension in 0..3 {
        let positions = u64::from(u32::MAX) / threadgroup[dimension];
        let limit = positions.min(limits.grid[dimension].into());
        let wanted = grid[dimension];
        let fits = u32::try_from(wanted).ok().filter(|_| wanted <= limit);
        fitted[dimension] =
            fits.ok_or_else(|| GeometryError::Grid { kernel: kernel.to_owned(), dimension, wanted, limit })?;
    }
    Ok(fitted)
}

fn fit_threadgroup(kernel: &str, threadgroup: [u64; 3], limits: &Limits) -> Result<[u32; 3], GeometryError> {
    let wanted = threadgroup.iter().product();
    let limit = u64::from(limits.threads);
    if wanted == 0 || wanted > limit {
        let kernel = kernel.to_owned();
        return Err(GeometryError::Grid { kernel, dimension: 0, wanted, limit });
    }
    Ok(threadgroup.map(|n| n as u32)) // at most `limit`, a u32
}

fn threadgroup_memory(
    kernel: &str,
    contract: &Contract,
    dims: &Dims,
    limits: &Limits,
) -> Result<Vec<u32>, GeometryError> {
    let limit = u64::from(limits.threadgroup_memory);
    let mut total = 0u64;
    let mut sizes = Vec::new();
    for text in contract.threadgroup_memory {
        let bytes = value(text, dims)?.checked_next_multiple_of(16);
        let bytes = bytes.ok_or(GeometryError::Overflow { text })?;
        total = total.saturating_add(bytes);
        sizes.push(bytes.min(limit) as u32); // larger ones are refused below
    }
    if total > limit {
        return Err(GeometryError::ThreadgroupMemory { kernel: kernel.to_owned(), wanted: total, limit });
    }
    Ok(sizes)
}

/// Br and Bc of `flash_attention_forward`: query rows (and threads) a threadgroup, and keys a tile.
///
/// Floats of threadgroup memory: Q and out tiles Br hs, K and V tiles Bc hs, scores Br Bc. Br is one simdgroup; Bc is
/// the largest of 32, 16, 8, 4, 2, 1 that fits, and if none does, Br is halved: its tail of the simdgroup idles.
///
/// # Errors
/// [`GeometryError::ThreadgroupMemory`] where not even one row and one key fit.
pub fn attention_tiles(hs: u64, limits: &Limits) -> Result<(u64, u64), GeometryError> {
    let limit = u64::from(limits.threadgroup_memory);
    let round = |floats: u64| floats.saturating_mul(4).saturating_add(15) / 16 * 16;
    let bytes = |br: u64, bc: u64| {
        let rows = round(br.saturating_mul(hs)).saturating_mul(2);
        let keys = round(bc.saturating_mul(hs)).saturating_mul(2);
        rows.saturating_add(keys).saturating_add(round(br * bc))
    };
    for br in [32, 16, 8, 4, 2, 1] {
        let bc = [32, 16, 8, 4, 2, 1].into_iter().find(|&bc| bytes(br, bc) <= limit);
        if let Some(bc) = bc {
            return Ok((br, bc));
        }
    }
    Err(GeometryError::ThreadgroupMemory {
        kernel: "flash_attention_forward".to_owned(),
        wanted: bytes(1, 1),
        limit,
    })
}
