//! What is bound must fit the signature and the contract.

use super::expression::value;
use super::geometry::{check_conditions, with_derived};
use super::table::{BufferRule, contract_of};
use super::{Dims, GeometryError};
use crate::syntax::{Kernel, Parameter, Role};

/// Element type of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// 32-bit float.
    F32,
    /// 16-bit float (`half`).
    F16,
    /// 16-bit float (`bfloat`).
    Bf16,
    /// 32-bit signed integer.
    I32,
    /// 32-bit unsigned integer.
    U32,
    /// Bytes (`uchar`), as quantised blocks are.
    U8,
}

impl Scalar {
    /// Its size.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::U8 => 1,
        }
    }

    /// The scalar of a Metal type: `half4` is F16. None for types that no buffer has.
    pub fn of_metal(element: &str) -> Option<Self> {
        match element.trim_end_matches(['2', '3', '4']) {
            "float" => Some(Self::F32),
            "half" => Some(Self::F16),
            "bfloat" => Some(Self::Bf16),
            "int" => Some(Self::I32),
            "uint" => Some(Self::U32),
            "uchar" | "uint8_t" => Some(Self::U8),
            _ => None,
        }
    }
}

/// What is bound at one buffer index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// A buffer of `length` elements.
    Buffer {
        /// Element type.
        scalar: Scalar,
        /// Elements, not bytes.
        length: u64,
    },
    /// No buffer (a null pointer), where the contract allows it.
    Nil,
    /// An integer constant.
    Int(i32),
    /// A float constant.
    Float(f32),
}

/// What is bound does not fit the kernel.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BindingError {
    /// The geometry itself is at fault.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// Too few or too many bindings.
    #[error("kernel {kernel} takes {wanted} bindings, {given} are given")]
    Count {
        /// The kernel.
        kernel: String,
        /// Buffers and constants that it has.
        wanted: usize,
        /// How many were given.
        given: usize,
    },
    /// A binding of another kind or element type than the parameter.
    #[error("kernel {kernel}: {parameter} at index {index} is {wanted}, {given:?} is bound")]
    Kind {
        /// The kernel.
        kernel: String,
        /// The parameter.
        parameter: String,
        /// Its buffer index.
        index: usize,
        /// What the signature says.
        wanted: String,
        /// What is bound.
        given: Bound,
    },
    /// A buffer that is too short.
    #[error("kernel {kernel}: {parameter} has {given} elements, {wanted} are needed ({shape})")]
    Length {
        /// The kernel.
        kernel: String,
        /// The parameter.
        parameter: String,
        /// Elements needed.
        wanted: u64,
        /// Elements bound.
        given: u64,
        /// The shape, as `[N, C]`.
        shape: String,
    },
    /// An integer constant that differs from the dimension of its name.
    #[error("kernel {kernel}: constant {parameter} is {given}, the dimension is {wanted}")]
    Constant {
        /// The kernel.
        kernel: String,
        /// The parameter.
        parameter: String,
        /// The dimension.
        wanted: u64,
        /// The constant.
        given: i32,
    },
    /// An index that points outside its table.
    #[error("kernel {kernel}: {parameter}[{position}] is {index}, not below {limit}")]
    Index {
        /// The kernel.
        kernel: String,
        /// The parameter.
        parameter: String,
        /// Where in the buffer.
        position: usize,
        /// The index.
        index: i32,
        /// What it must be below.
        limit: u64,
    },
}

/// Checks that `bound`, in the order of the buffer indices, fits `kernel` at the given dimensions: kinds and element
/// types by the signature, lengths and conditions by the contract, constants by the dimensions.
///
/// # Errors
/// [`BindingError`] names kernel, parameter and numbers.
pub fn check_binding(kernel: &Kernel, dims: &Dims, bound: &[Bound]) -> Result<(), BindingError> {
    let name = &kernel.name;
    let contract = contract_of(name).ok_or_else(|| GeometryError::UnknownKernel { kernel: name.clone() })?;
    let dims = with_derived(name, dims);
    check_conditions(name, contract, &dims)?;
    let parameters = bindable(kernel);
    if parameters.len() != bound.len() {
        return Err(BindingError::Count {
            kernel: name.clone(),
            wanted: parameters.len(),
            given: bound.len(),
        });
    }
    for (&(index, parameter), &given) in parameters.iter().zip(bound) {
        let wanted_kind = || BindingError::Kind {
            kernel: name.clone(),
            parameter: parameter.name.clone(),
            index,
            wanted: describe(parameter),
            given,
        };
        let rule = contract.buffers.iter().find(|rule| rule.name == parameter.name);
        match (&parameter.role, given, rule) {
            (Role::Constant { .. }, Bound::Int(value), _) if parameter.element == "int" => {
                check_constant(name, parameter, value, &dims)?;
            }
            (Role::Constant { .. }, Bound::Float(_), _) if parameter.element == "float" => {}
            (Role::Buffer { .. }, Bound::Nil, Some(rule)) if rule.optional => {}
            (Role::Buffer { .. }, Bound::Buffer { scalar, length }, Some(rule))
                if Scalar::of_metal(&parameter.element) == Some(scalar) =>
            {
                check_length(name, rule, length, &dims)?;
            }
            _ => return Err(wanted_kind()),
        }
    }
    Ok(())
}

/// Checks the elements of an index buffer (tokens, positions, slots, block tables) against the table they point into;
/// buffers that hold no indices pass.
///
/// # Errors
/// [`BindingError::Index`] names the first that is out of range.
pub fn check_indices(
    kernel: &str,
    parameter: &str,
    indices: &[i32],
    dims: &Dims,
) -> Result<(), BindingError> {
    let contract =
        contract_of(kernel).ok_or_else(|| GeometryError::UnknownKernel { kernel: kernel.to_owned() })?;
    let rule = contract.buffers.iter().find(|rule| rule.name == parameter);
    let Some((rule, below)) = rule.and_then(|rule| Some((rule, rule.below?))) else {
        return Ok(());
    };
    let limit = value(below, dims)?;
    let fits = |index: i32| match u64::try_from(index) {
        Ok(index) => index < limit,
        Err(_) => rule.negative,
    };
    match indices.iter().position(|&index| !fits(index)) {
        None => Ok(()),
        Some(position) => Err(BindingError::Index {
            kernel: kernel.to_owned(),
            parameter: parameter.to_owned(),
            position,
            index: indices[position],
            limit,
        }),
    }
}

/// Buffers and constants with their indices, in the order of the indices.
pub fn bindable(kernel: &Kernel) -> Vec<(usize, &Parameter)> {
    let mut found: Vec<_> = kernel
        .parameters
        .iter()
        .filter_map(|p| match p.role {
            Role::Buffer { index, .. } | Role::Constant { index } => Some((index, p)),
            Role::Threadgroup { .. } | Role::Position { .. } => None,
        })
        .collect();
    found.sort_by_key(|(index, _)| *index);
    found
}

fn check_constant(kernel: &str, parameter: &Parameter, given: i32, dims: &Dims) -> Result<(), BindingError> {
    let wanted = dims.get(&parameter.name)?;
    if u64::try_from(given) == Ok(wanted) {
        return Ok(());
    }
    Err(BindingError::Constant {
        kernel: kernel.to_owned(),
        parameter: parameter.name.clone(),
        wanted,
        given,
    })
}

fn check_length(kernel: &str, rule: &BufferRule, given: u64, dims: &Dims) -> Result<(), BindingError> {
    let wanted = rule.length(dims)?;
    if given >= wanted {
        return Ok(());
    }
    Err(BindingError::Length {
        kernel: kernel.to_owned(),
        parameter: rule.name.to_owned(),
        wanted,
        given,
        shape: format!("[{}]", rule.shape.join(", ")),
    })
}

fn describe(parameter: &Parameter) -> String {
    match parameter.role {
        Role::Constant { .. } => format!("a constant {}", parameter.element),
        _ => format!("a buffer of {}", parameter.element),
    }
}

impl BufferRule {
    /// Elements of the buffer at the given dimensions.
    ///
    /// # Errors
    /// [`GeometryError`] for a missing dimension, or a product that passes 2^64.
    pub fn length(&self, dims: &Dims) -> Result<u64, GeometryError> {
        let mut length = 1u64;
        for text in self.shape {
            let size = value(text, dims)?;
            length = length.checked_mul(size).ok_or(GeometryError::Overflow { text })?;
        }
        Ok(length)
    }
}
