//! What each kernel wants: the shapes of its buffers, and its launch geometry.
//!
//! One table ([`contracts`]) says, for every kernel and in names of dimensions, what may be bound and which grid,
//! threadgroup and threadgroup memory it is launched with. Instances share the contract of their base name:
//! `layernorm_forward_f16_v4` is launched as `layernorm_forward` with `v` = 4 channels a thread.

mod check;
mod expression;
mod geometry;
mod table;
mod tables;

pub use check::{BindingError, Bound, Scalar, bindable, check_binding, check_indices};
pub use geometry::{Launch, Limits, attention_tiles, dimensions, launch};
pub use table::{Access, BufferRule, Contract, Dispatch, contract_of, contracts};
#[cfg(feature = "conformance")]
pub(crate) use table::{block_of, head_size};

/// Dimensions by name: `N`, `C`, `T`, `hs`, …; every integer constant of a kernel is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dims(Vec<(&'static str, u64)>);

impl Dims {
    /// From (name, value) pairs.
    pub fn new(dims: &[(&'static str, u64)]) -> Self {
        Self(dims.to_vec())
    }

    /// These dimensions and one more; an earlier value of that name is replaced.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: u64) -> Self {
        self.0.retain(|(n, _)| *n != name);
        self.0.push((name, value));
        self
    }

    /// The value of `name`.
    ///
    /// # Errors
    /// [`GeometryError::MissingDimension`].
    pub fn get(&self, name: &str) -> Result<u64, GeometryError> {
        let found = self.0.iter().find(|(n, _)| *n == name);
        found
            .map(|(_, value)| *value)
            .ok_or_else(|| GeometryError::MissingDimension { name: name.to_owned() })
    }

    /// All of them, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().copied()
    }
}

/// Why a launch cannot be laid out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// No contract holds this kernel.
    #[error("kernel {kernel} has no contract")]
    UnknownKernel {
        /// The kernel.
        kernel: String,
    },
    /// A dimension that the kernel needs was not given.
    #[error("dimension {name} is not given")]
    MissingDimension {
        /// Its name.
        name: String,
    },
    /// A size that does not fit 64 bits, or a difference below zero.
    #[error("`{text}` is out of range")]
    Overflow {
        /// The expression.
        text: &'static str,
    },
    /// A contract whose text cannot be read; a test holds that there is none.
    #[error("`{text}` cannot be read")]
    Expression {
        /// The expression.
        text: &'static str,
    },
    /// Dimensions that the kernel does not take.
    #[error("kernel {kernel}: `{condition}` does not hold for {dims}")]
    Condition {
        /// The kernel.
        kernel: String,
        /// What must hold.
        condition: &'static str,
        /// The dimensions, as `N = 4, C = 768`.
        dims: String,
    },
    /// A grid that the device cannot launch.
    #[error("kernel {kernel}: {wanted} threadgroups in dimension {dimension}, the device takes {limit}")]
    Grid {
        /// The kernel.
        kernel: String,
        /// 0, 1 or 2.
        dimension: usize,
        /// Threadgroups (or threads) wanted.
        wanted: u64,
        /// What the device takes.
        limit: u64,
    },
    /// More threadgroup memory than the device has.
    #[error("kernel {kernel}: {wanted} bytes of threadgroup memory, the device has {limit}")]
    ThreadgroupMemory {
        /// The kernel.
        kernel: String,
        /// Bytes wanted.
        wanted: u64,
        /// Bytes there are.
        limit: u64,
    },
}
