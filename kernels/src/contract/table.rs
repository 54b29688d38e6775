//! The form of a contract, and how a kernel's name leads to one.

use super::tables;

/// What a kernel wants. Sizes are text over its dimensions, and over what an instance's name says: `v`, the elements that a
/// thread of a `_v4` instance takes, or the rows of a simdgroup of a `_rows4` instance, 1 for the others; `row_share`, the
/// elements of a row that a thread of a `_v4` instance holds; `built_hs`, the head size of an `_hs64` instance, `hs` for the
/// others; `tile_keys` and `decode_keys`, how many keys its tiles hold; `block` and `block_bytes`, weights and bytes of a block
/// of a `_q4_0` instance.
#[derive(Clone, Copy, Debug)]
pub struct Contract {
    /// Base name: the reference's, without `_f16`, `_v4` and the like.
    pub kernel: &'static str,
    /// Buffers in the order of their indices, constants left out.
    pub buffers: &'static [BufferRule],
    /// What must hold between dimensions, besides what the shapes say.
    pub conditions: &'static [&'static str],
    /// How the grid is laid out.
    pub dispatch: Dispatch,
    /// Bytes of `threadgroup(0)`, `threadgroup(1)`, …; may also use `threads`, the size of the threadgroup.
    pub threadgroup_memory: &'static [&'static str],
}

/// What may be bound to one buffer.
#[derive(Clone, Copy, Debug)]
pub struct BufferRule {
    /// The parameter's name.
    pub name: &'static str,
    /// How the kernel uses it.
    pub access: Access,
    /// Row-major shape.
    pub shape: &'static [&'static str],
    /// Whether it may be nil.
    pub optional: bool,
    /// For buffers of indices: every element is below this.
    pub below: Option<&'static str>,
    /// For buffers of indices: whether negative elements are allowed (and skipped by the kernel).
    pub negative: bool,
    /// Read: the kernel may read it before the kernel launched before it has ended, and awaits that end itself (ahead.h).
    /// Written: other kernels read it ahead, so that nothing may start before this kernel has ended.
    pub ahead: bool,
}

/// How a kernel uses a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only read.
    Read,
    /// Only written; its contents before the launch do not matter.
    Write,
    /// Read, then written.
    ReadWrite,
}

/// How a grid is laid out.
#[derive(Clone, Copy, Debug)]
pub enum Dispatch {
    /// Threadgroups `grid`, each of `min(length rounded up to 32, the device's limit)` threads in a row.
    Rows {
        /// Threadgroups in x, y, z.
        grid: [&'static str; 3],
        /// What the threads of a group share out.
        length: &'static str,
    },
    /// One thread an element: threads `grid`, threadgroups that stretch along dimension `along`.
    Threads {
        /// Threads in x, y, z.
        grid: [&'static str; 3],
        /// 0, 1 or 2.
        along: usize,
    },
    /// Threadgroups `grid` of exactly `threads` threads in a row.
    Groups {
        /// Threadgroups in x, y, z.
        grid: [&'static str; 3],
        /// Threads a threadgroup.
        threads: &'static str,
    },
}

/// What an instance's name adds to its base name: types, elements a thread, norm, activation; and a head size.
const SUFFIXES: &[&str] =
    &["_v4", "_rows4", "_f32", "_f16", "_bf16", "_rms", "_layer", "_gelu", "_silu", "_relu"];

/// Block types by what they add to an instance's name: weights and bytes of a block.
const BLOCKS: &[(&str, u64, u64)] =
    &[("_q8_0", 32, 34), ("_q4_0", 32, 18), ("_q4_1", 32, 20), ("_q4_k", 256, 144), ("_q6_k", 256, 210)];

/// Every contract, by file and in the order of the reference.
pub fn contracts() -> impl Iterator<Item = &'static Contract> {
    tables::ALL.iter().copied().flatten()
}

/// The contract of a kernel or of its instance `name`.
pub fn contract_of(name: &str) -> Option<&'static Contract> {
    // An instance for one head size may have a contract of its own; one for a block type has.
    let blocks = BLOCKS.iter().find_map(|(suffix, ..)| name.strip_suffix(suffix));
    let (whole, special) = match (head_size(name), blocks) {
        (Some(_), _) => (name.rsplit_once("_hs").map_or(name, |parts| parts.0), Some("_hs")),
        (None, Some(whole)) => (whole, Some("_q")),
        (None, None) => (name, None),
    };
    let mut base = whole;
    loop {
        let own = |c: &&Contract| special.is_some_and(|s| c.kernel.strip_suffix(s) == Some(base));
        let shared = |c: &&Contract| c.kernel == base;
        if let Some(found) = contracts().find(own).or_else(|| contracts().find(shared)) {
            return Some(found);
        }
        base = SUFFIXES.iter().find_map(|suffix| base.strip_suffix(suffix))?;
    }
}

/// Elements that a thread of instance `name` takes, or rows a simdgroup.
pub(super) fn elements_a_thread(name: &str) -> u64 {
    if name.ends_with("_v4") || name.ends_with("_rows4") { 4 } else { 1 }
}

/// Weights and bytes of a block of the type that instance `name` is compiled for; 1 and 1 for plain weights.
pub(crate) fn block_of(name: &str) -> (u64, u64) {
    let found = BLOCKS.iter().find(|(suffix, ..)| name.ends_with(suffix));
    found.map_or((1, 1), |&(_, weights, bytes)| (weights, bytes))
}

/// The head size that instance `name` is compiled for, if its name says one.
pub(crate) fn head_size(name: &str) -> Option<u64> {
    name.rsplit_once("_hs")?.1.parse().ok()
}

const fn buffer(name: &'static str, access: Access, shape: &'static [&'static str]) -> BufferRule {
    BufferRule { name, access, shape, optional: false, below: None, negative: false, ahead: false }
}

pub(super) const fn read(name: &'static str, shape: &'static [&'static str]) -> BufferRule {
    buffer(name, Access::Read, shape)
}

pub(super) const fn write(name: &'static str, shape: &'static [&'static str]) -> BufferRule {
    buffer(name, Access::Write, shape)
}

pub(super) const fn update(name: &'static str, shape: &'static [&'static str]) -> BufferRule {
    buffer(name, Access::ReadWrite, shape)
}

impl Contract {
    /// Whether the kernel reads buffers ahead of the end of the kernel before it, and awaits that end itself.
    pub fn reads_ahead(&self) -> bool {
        self.buffers.iter().any(|rule| rule.ahead && rule.access == Access::Read)
    }

    /// Whether nothing may start before the kernel has ended.
    pub fn holds_back(&self) -> bool {
        self.buffers.iter().any(|rule| rule.ahead && rule.access != Access::Read)
    }
}

impl BufferRule {
    pub(super) const fn or_nil(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Holds indices below `limit`.
    pub(super) const fn below(mut self, limit: &'static str) -> Self {
        self.below = Some(limit);
        self
    }

    /// Read ahead, or written for kernels that do.
    pub(super) const fn ahead(mut self) -> Self {
        self.ahead = true;
        self
    }

    /// Negative indices are skipped.
    pub(super) const fn or_negative(mut self) -> Self {
        self.negative = true;
        self
    }
}
