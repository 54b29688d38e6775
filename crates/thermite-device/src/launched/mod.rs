//! Devices that launch the Metal kernels: one [`Device`](crate::Device) for all of them.
//!
//! [`Launcher`] is what a machine must do: hold memory and launch a kernel that is named, with its geometry and its
//! arguments. [`Launched`] turns every method of the trait into such a launch: the geometry and the checks come from
//! the kernels' contracts, so a machine adds neither.

mod attention;
pub mod bench;
mod boxes;
pub mod conformance;
mod device;
mod matrix;
mod rows;
pub(crate) mod steps;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use thermite_formats::FileBytes;
use thermite_kernels::catalogue;
use thermite_kernels::contract::{Bound, Dims, Launch, Limits, Scalar, bindable, check_binding, launch};
use thermite_kernels::syntax::{Kernel, Role};

pub use device::rows_together;
pub use matrix::LaunchedMatrix;

use crate::{Dtype, Error, Result, WeightType};

/// One argument of a kernel, by its buffer index.
#[derive(Debug)]
pub enum Argument<'a, B> {
    /// A buffer, from element `first` on.
    Buffer {
        /// The buffer.
        buffer: &'a B,
        /// The first element that the kernel sees.
        first: usize,
    },
    /// An integer constant.
    Int(i32),
    /// A float constant.
    Float(f32),
    /// No buffer: a null pointer.
    Nil,
}

impl<B> Clone for Argument<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Argument<'_, B> {}

/// A machine that runs the Metal kernels.
///
/// Launches may be queued, but take effect in the order in which they were made. Whether a launch may overlap with
/// the one before follows from the contract's access of each buffer.
pub trait Launcher: Send + Sync + 'static {
    /// Device memory. A kernel writes it through a shared reference: [`Launched`] takes `&mut` for what is written.
    type Buffer: fmt::Debug + Send + Sync;
    /// Launches recorded once, to be replayed.
    type Recording: fmt::Debug + Send + Sync;
    /// A place in the queue.
    type Mark: Send + Sync;

    /// A line for people.
    fn describe(&self) -> String;
    /// What threadgroups and grids may be.
    fn limits(&self) -> Limits;
    /// A buffer of `len` zeros.
    fn alloc(&self, dtype: Dtype, len: usize) -> Result<Self::Buffer>;
    /// Type and length of a buffer.
    fn shape(buffer: &Self::Buffer) -> (Dtype, usize);
    /// Copies `bytes` to the start of a buffer, after everything queued before.
    fn write(&self, buffer: &mut Self::Buffer, bytes: &[u8]) -> Result<()>;
    /// Copies from byte `first` on, after everything queued before.
    fn read(&self, buffer: &Self::Buffer, first: usize, bytes: &mut [u8]) -> Result<()>;
    /// Takes a file's bytes as they lie for memory of the device, where the machine can: [`Launcher::adopted`] then finds
    /// weights in it.
    fn adopt(&self, _file: &Arc<FileBytes>) -> Result<()> {
        Ok(())
    }
    /// A buffer of these bytes where they lie: of an adopted file, and aligned as kernels want them.
    fn adopted(&self, _dtype: Dtype, _bytes: &[u8]) -> Option<Self::Buffer> {
        None
    }
    /// Launches `kernel`; arguments lie in the order of its bindings, and fit them.
    fn launch(
        &self,
        kernel: &Kernel,
        dims: &Dims,
        geometry: &Launch,
        arguments: &[Argument<'_, Self::Buffer>],
    ) -> Result<()>;
    /// Whether it has another form of `kernel`, for some dimensions, than the `.metal` file's.
    fn replaces(&self, _kernel: &str) -> bool {
        false
    }
    /// Starts what is queued and waits for it.
    fn submit(&self) -> Result<()>;
    /// Whether [`Launcher::product`] serves products of many rows, so that it is worth to widen quantised weights for it.
    fn has_matmul(&self) -> bool {
        true
    }
    /// The vendor's product, where there is one for these types and sizes.
    fn product(&self, _product: &Product<'_, Self::Buffer>) -> Option<Result<()>> {
        None
    }

    /// Whether launches can be recorded.
    fn records(&self) -> bool {
        false
    }
    /// Records what `work` launches, without running it, to be started by one [`Launcher::replay`]. None where the
    /// machine cannot: then `work` is not called. Work that allocates, writes, reads or waits is refused.
    fn record(&self, _work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Self::Recording>> {
        Ok(None)
    }
    /// Whether launches are being recorded now. What depends on more than [`StepForm`](crate::StepForm) says must not be.
    fn is_recording(&self) -> bool {
        false
    }
    /// Starts what was recorded, after everything queued before.
    fn replay(&self, recording: &Self::Recording) -> Result<()>;
    /// Marks what is queued so far.
    fn mark(&self) -> Result<Self::Mark>;
    /// As [`Launcher::read`], but after what was queued before `mark` alone; what is queued since goes on meanwhile, and
    /// must not write what is read.
    fn read_after(
        &self,
        mark: &Self::Mark,
        buffer: &Self::Buffer,
        first: usize,
        bytes: &mut [u8],
    ) -> Result<()>;
}

/// A product `out [n, rows] = x [n, cols] W^T + bias`, or `out +=` that.
#[derive(Debug)]
pub struct Product<'a, B> {
    /// `[n, cols]`: floats, or of the weights' type.
    pub x: &'a B,
    /// `[rows, cols]`.
    pub weight: &'a LaunchedMatrix<B>,
    /// `[rows]`.
    pub bias: Option<&'a B>,
    /// Whether it is added to `out`.
    pub accumulates: bool,
    /// `[n, rows]`, floats.
    pub out: &'a B,
    /// Rows.
    pub n: usize,
}

/// Rows from which quantised weights are widened for the vendor's product.
const MANY_ROWS: usize = 32;

/// Which of a kernel's variants are launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variants {
    /// The reference's kernels alone: the boxes' default bodies, in primitive kernels.
    Plain,
    /// The fast ones where they fit: four elements a thread, matrix-vector products, fused decode steps.
    Fast,
    /// The fast ones among those whose result for a row does not depend on how many rows there are: the same bits whatever
    /// the batch, and however a prompt is cut into chunks.
    Invariant,
}

/// A device that launches the Metal kernels on the machine `L`.
#[derive(Debug)]
pub struct Launched<L: Launcher> {
    launcher: L,
    variants: Variants,
    /// Quantised weights, widened for a product of many rows; smaller ones stay, since a recording may name them.
    widened: Mutex<Vec<LaunchedMatrix<L::Buffer>>>,
    /// Best value and index of each part of a row of logits; there once it was needed.
    argmax_room: OnceLock<(L::Buffer, L::Buffer)>,
}

impl<L: Launcher> Launched<L> {
    /// A device on `launcher`.
    pub const fn new(launcher: L, variants: Variants) -> Self {
        Self { launcher, variants, widened: Mutex::new(Vec::new()), argmax_room: OnceLock::new() }
    }

    /// The machine.
    pub const fn launcher(&self) -> &L {
        &self.launcher
    }

    /// Launches `kernel` over `dims` with `buffers`, and `floats`, in the order of its bindings. Integer constants are
    /// the dimensions of their names.
    fn run(
        &self,
        name: &str,
        dims: &[(&'static str, usize)],
        buffers: &[Argument<'_, L::Buffer>],
        floats: &[f32],
    ) -> Result<()> {
        let failed = |reason: String| Error::Launch { kernel: name.to_owned(), reason };
        let found = catalogue::find(name).map_err(|e| failed(e.to_string()))?;
        let kernel = &found.ok_or_else(|| failed("there is no such kernel".to_owned()))?.kernel;
        let dims: Vec<_> = dims.iter().map(|&(name, value)| (name, value as u64)).collect();
        let dims = Dims::new(&dims);
        let limits = self.launcher.limits();
        let geometry = launch(name, &dims, &limits).map_err(|e| failed(e.to_string()))?;
        let arguments = arguments(kernel, &dims, buffers, floats);
        let bound: Vec<_> = arguments.iter().map(bound::<L>).collect();
        check_binding(kernel, &dims, &bound).map_err(|e| failed(e.to_string()))?;
        if geometry.is_empty() {
            return Ok(());
        }
        self.launcher.launch(kernel, &dims, &geometry, &arguments)
    }

    fn is_fast(&self) -> bool {
        self.variants != Variants::Plain
    }

    fn is_invariant(&self) -> bool {
        self.variants == Variants::Invariant
    }

    /// The vendor's product, where fast variants are wanted and the machine has one for these types and sizes.
    fn vendor_product(&self, product: &Product<'_, L::Buffer>) -> Option<Result<()>> {
        match self.variants {
            Variants::Plain | Variants::Invariant => None,
            Variants::Fast if product.weight.is_quantized() => self.widened_product(product),
            Variants::Fast => self.launcher.product(product),
        }
    }

    /// The vendor's product with quantised weights, which are widened first: for many rows. What they are widened into
    /// serves every product, one after another.
    fn widened_product(&self, product: &Product<'_, L::Buffer>) -> Option<Result<()>> {
        if product.n < MANY_ROWS || !self.launcher.has_matmul() {
            return None;
        }
        let mut widened = self.widened.lock().unwrap_or_else(PoisonError::into_inner);
        match self.widen(product.weight, &mut widened) {
            Ok(halves) => self.launcher.product(&Product { weight: halves, ..*product }),
            Err(error) => Some(Err(error)),
        }
    }

    /// `weight` as `F16`, in the first buffer that is large enough.
    fn widen<'w>(
        &self,
        weight: &LaunchedMatrix<L::Buffer>,
        widened: &'w mut Vec<LaunchedMatrix<L::Buffer>>,
    ) -> Result<&'w LaunchedMatrix<L::Buffer>> {
        let (rows, cols) = (weight.rows, weight.cols);
        let place = widened.iter().position(|halves| L::shape(&halves.buffer).1 >= rows * cols);
        let place = match place {
            Some(place) => place,
            None => {
                let buffer = self.launcher.alloc(Dtype::F16, rows * cols)?;
                let (dtype, stored) = (Dtype::F16, WeightType::F16);
                widened.push(LaunchedMatrix { buffer, dtype, stored, rows, cols, adopted: false });
                widened.len() - 1
            }
        };
        let halves = &mut widened[place];
        (halves.rows, halves.cols) = (rows, cols);
        let dims = [("M", rows), ("K", cols)];
        let name = format!("dequantize{}", weight.storage());
        self.run(&name, &dims, &[whole(&weight.buffer), whole(&halves.buffer)], &[])?;
        Ok(halves)
    }

    /// `name` with `_v4` where fast variants are wanted and four divides `length`.
    fn vectored(&self, name: &str, length: usize) -> String {
        let fits = self.is_fast() && length.is_multiple_of(4);
        if fits { format!("{name}_v4") } else { name.to_owned() }
    }
}

/// A whole buffer as an argument.
const fn whole<B>(buffer: &B) -> Argument<'_, B> {
    Argument::Buffer { buffer, first: 0 }
}

/// A whole buffer, or none.
fn optional<B>(buffer: Option<&B>) -> Argument<'_, B> {
    buffer.map_or(Argument::Nil, whole)
}

/// The arguments of `kernel`: its buffers and floats in turn, its integers from `dims`. What is missing is nil, and
/// refused by the check that follows.
fn arguments<'a, B>(
    kernel: &Kernel,
    dims: &Dims,
    buffers: &[Argument<'a, B>],
    floats: &[f32],
) -> Vec<Argument<'a, B>> {
    let (mut buffers, mut floats) = (buffers.iter(), floats.iter());
    let one = |(_, parameter): (usize, &thermite_kernels::syntax::Parameter)| match parameter.role {
        Role::Buffer { .. } => buffers.next().copied().unwrap_or(Argument::Nil),
        _ if parameter.element == "float" => floats.next().map_or(Argument::Nil, |&x| Argument::Float(x)),
        _ => {
            let value = dims.get(&parameter.name).ok().and_then(|v| i32::try_from(v).ok());
            value.map_or(Argument::Nil, Argument::Int)
        }
    };
    bindable(kernel).into_iter().map(one).collect()
}

/// What the contract's check sees of an argument.
fn bound<L: Launcher>(argument: &Argument<'_, L::Buffer>) -> Bound {
    match *argument {
        Argument::Buffer { buffer, first } => {
            let (dtype, len) = L::shape(buffer);
            Bound::Buffer { scalar: scalar(dtype), length: len.saturating_sub(first) as u64 }
        }
        Argument::Int(value) => Bound::Int(value),
        Argument::Float(value) => Bound::Float(value),
        Argument::Nil => Bound::Nil,
    }
}

/// The kernels' name for an element type.
#[must_use]
pub const fn scalar(dtype: Dtype) -> Scalar {
    match dtype {
        Dtype::F32 => Scalar::F32,
        Dtype::F16 => Scalar::F16,
        Dtype::BF16 => Scalar::Bf16,
        Dtype::I32 => Scalar::I32,
        Dtype::U32 => Scalar::U32,
        Dtype::U8 | Dtype::Q8_0 => Scalar::U8,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use thermite_kernels::emulator::Build;

    use super::*;
    use crate::emulated::Emulated;
    use crate::{Device, Layout, MatrixView};

    #[test]
    fn what_a_recording_names_outlives_larger_weights() {
        let device = Emulated::recording(Build::Fast, Variants::Fast).unwrap();
        let matrix = |rows: usize| {
            let (dtype, layout) = (WeightType::Q8_0, Layout::RowMajor);
            device
                .matrix(&[MatrixView { dtype, rows, cols: 32, layout, bytes: &vec![0; 34 * rows] }])
                .unwrap()
        };
        let (small, large) = (matrix(2), matrix(5));
        let mut widened = Vec::new();
        let mut address = |weight| device.widen(weight, &mut widened).unwrap().buffer.address(0);
        let first = address(&small);
        assert_ne!(address(&large), first);
        assert_eq!(address(&small), first);
        assert_eq!(widened.len(), 2);
    }
}
