//! Launches of the kernels that take the place of others on Hopper: their parameters, tensors among them.

use std::ffi::c_void;

use cudarc::driver::{result, sys};
use thermite_kernels::hopper::{Parameter, Replacement};
use thermite_kernels::syntax::Kernel;

use super::buffer::CudaBuffer;
use super::driver::words;
use super::launcher::{CudaLauncher, Start};
use super::modules::Function;
use crate::launched::Argument;
use crate::{Dtype, Error, Result};

/// A parameter's value, where it stays until the launch has copied it.
enum Value {
    Word(u64),
    Tensor(Box<sys::CUtensorMap>),
}

impl Value {
    const fn pointer(&mut self) -> *mut c_void {
        match self {
            Self::Word(word) => std::ptr::from_mut(word).cast(),
            Self::Tensor(map) => std::ptr::from_mut(&mut **map).cast(),
        }
    }
}

impl CudaLauncher {
    pub(super) fn start_replacement(
        &self,
        kernel: &Kernel,
        function: &Function,
        replacement: &Replacement,
        arguments: &[Argument<'_, CudaBuffer>],
    ) -> Result<()> {
        let refused = |reason: String| Error::Launch { kernel: kernel.name.clone(), reason };
        let value = |parameter: &Parameter| match *parameter {
            Parameter::Int(value) => Ok(Value::Word(value.cast_unsigned().into())),
            Parameter::Binding(i) => match arguments.get(i) {
                Some(Argument::Buffer { buffer, first }) => Ok(Value::Word(buffer.address(*first))),
                Some(Argument::Int(value)) => Ok(Value::Word(value.cast_unsigned().into())),
                Some(Argument::Float(value)) => Ok(Value::Word(value.to_bits().into())),
                Some(Argument::Nil) | None => Ok(Value::Word(0)),
            },
            Parameter::Tensor { binding, extents, boxed } => match arguments.get(binding) {
                Some(Argument::Buffer { buffer, first }) => {
                    tensor(buffer, *first, extents, boxed).map(Value::Tensor).map_err(refused)
                }
                _ => Err(refused(format!("binding {binding} is no buffer"))),
            },
        };
        let mut values: Vec<Value> = replacement.parameters.iter().map(value).collect::<Result<_>>()?;
        let pointers = values.iter_mut().map(Value::pointer).collect();
        let (grid, shared) = (replacement.grid, replacement.shared_memory);
        if shared > function.shared_memory {
            let most = function.shared_memory;
            return Err(refused(format!("{shared} bytes of shared memory, this GPU has {most}")));
        }
        // SAFETY: the values are those that the replacement names, of bindings that the contract's check saw.
        unsafe {
            let block = [replacement.threads, 1, 1];
            self.enqueue(&kernel.name, function, grid, block, shared, Start::Overlapping, pointers)
        }
    }
}

/// What the copy engine wants to know of a buffer.
fn tensor(
    buffer: &CudaBuffer,
    first: usize,
    extents: [u64; 3],
    boxed: [u32; 3],
) -> std::result::Result<Box<sys::CUtensorMap>, String> {
    use sys::CUtensorMapDataType as Kind;
    let kind = match buffer.shape().0 {
        Dtype::F16 => Kind::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        Dtype::BF16 => Kind::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        dtype => return Err(format!("a tensor of {dtype}, must be of 16 bits")),
    };
    let pitches = [extents[0] * 2, extents[0] * extents[1] * 2];
    // SAFETY: all bytes zero are a value of it, and the driver fills it.
    let mut map: Box<sys::CUtensorMap> = Box::new(unsafe { std::mem::zeroed() });
    // SAFETY: three extents, two pitches, three sizes and steps are there, and the map is the driver's alone.
    let encoded = unsafe {
        sys::cuTensorMapEncodeTiled(
            &raw mut *map,
            kind,
            3,
            buffer.address(first) as *mut c_void,
            extents.as_ptr(),
            pitches.as_ptr(),
            boxed.as_ptr(),
            [1u32; 3].as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    encoded.result().map_err(|e: result::DriverError| format!("cuTensorMapEncodeTiled: {}", words(e)))?;
    Ok(map)
}
