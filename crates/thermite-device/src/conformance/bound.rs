//! The arguments of one case in a device's memory.

use std::collections::BTreeMap;

use half::{bf16, f16};
use thermite_kernels::conformance::{Argument, Case, Data};
use thermite_kernels::contract::contract_of;

use crate::{Device, Dtype, Error, Layout, MatrixView, Result, WeightType};

/// The buffers of one case on a device.
pub(super) struct Bound<'a, D: Device> {
    pub(super) d: &'a D,
    case: &'a Case,
    pub(super) buffers: BTreeMap<&'a str, D::Buffer>,
}

impl<'a, D: Device> Bound<'a, D> {
    pub(super) fn upload(d: &'a D, case: &'a Case) -> Result<Self> {
        let mut buffers = BTreeMap::new();
        for (name, argument) in case.names.iter().zip(&case.arguments) {
            let buffer = match argument {
                Argument::Buffer(Data::F32(values)) => d.upload_f32(values)?,
                Argument::Buffer(Data::I32(values)) => {
                    let mut buffer = d.alloc(Dtype::I32, values.len())?;
                    d.write_i32(&mut buffer, values)?;
                    buffer
                }
                _ => continue,
            };
            buffers.insert(name.as_str(), buffer);
        }
        Ok(Self { d, case, buffers })
    }

    pub(super) fn download(&self) -> Result<Vec<Option<Data>>> {
        let one = |(name, argument): (&String, &Argument)| {
            let Argument::Buffer(data) = argument else { return Ok(None) };
            let Some(buffer) = self.buffers.get(name.as_str()) else { return Ok(Some(data.clone())) };
            Ok(Some(match data {
                Data::I32(values) => {
                    let mut out = vec![0; values.len()];
                    self.d.read_i32(buffer, 0, &mut out)?;
                    Data::I32(out)
                }
                other => {
                    let mut out = vec![0.0; other.len()];
                    self.d.read_f32(buffer, 0, &mut out)?;
                    Data::F32(out)
                }
            }))
        };
        self.case.names.iter().zip(&self.case.arguments).map(one).collect()
    }

    /// The kernel that the case's is an instance of.
    pub(super) fn kernel(&self) -> &'static str {
        contract_of(&self.case.kernel).map_or("", |contract| contract.kernel)
    }

    pub(super) fn argument(&self, name: &str) -> Option<&'a Argument> {
        let at = self.case.names.iter().position(|n| n == name)?;
        self.case.arguments.get(at)
    }

    pub(super) fn dim(&self, name: &'static str) -> Result<usize> {
        let dim = self.case.dims.get(name);
        dim.map(|v| v as usize).map_err(|e| Error::shape("case", name, e, "given"))
    }

    pub(super) fn float(&self, name: &'static str) -> Result<f32> {
        match self.argument(name) {
            Some(Argument::Float(x)) => Ok(*x),
            _ => Err(Error::shape("case", name, "missing", "a float")),
        }
    }

    pub(super) fn read(&self, name: &'static str) -> Result<&D::Buffer> {
        self.buffers.get(name).ok_or_else(|| Error::shape("case", name, "missing", "a buffer"))
    }

    /// Takes a buffer out, lets `f` write it, and puts it back.
    pub(super) fn write(
        &mut self,
        name: &'static str,
        f: impl FnOnce(&mut Self, &mut D::Buffer) -> Result<()>,
    ) -> Result<()> {
        let taken = self.buffers.remove_entry(name);
        let (key, mut buffer) = taken.ok_or_else(|| Error::shape("case", name, "missing", "a buffer"))?;
        let done = f(self, &mut buffer);
        self.buffers.insert(key, buffer);
        done
    }

    /// A table in the device's layout. The guard behind the case's table is no part of it.
    pub(super) fn matrix(&self, name: &'static str, rows: usize, cols: usize) -> Result<D::Matrix> {
        let (dtype, bytes) = match self.argument(name) {
            Some(Argument::Buffer(Data::F32(v))) => (WeightType::F32, bytemuck::cast_slice::<f32, u8>(v)),
            Some(Argument::Buffer(Data::F16(v))) => (WeightType::F16, bytemuck::cast_slice::<f16, u8>(v)),
            Some(Argument::Buffer(Data::Bf16(v))) => (WeightType::BF16, bytemuck::cast_slice::<bf16, u8>(v)),
            Some(Argument::Buffer(Data::U8(v))) => (self.blocks()?, v.as_slice()),
            _ => return Err(Error::shape("case", name, "missing", "a table")),
        };
        let len = dtype.bytes_of(&[rows, cols]).filter(|&len| len <= bytes.len());
        let len = len.ok_or_else(|| Error::shape("case", name, bytes.len(), "a table of whole blocks"))?;
        let view = MatrixView { dtype, rows, cols, layout: Layout::RowMajor, bytes: &bytes[..len] };
        self.d.matrix(&[view])
    }

    /// The block type that the kernel's name says.
    fn blocks(&self) -> Result<WeightType> {
        let kernel = &self.case.kernel;
        let types = [
            ("_q8_0", WeightType::Q8_0),
            ("_q4_0", WeightType::Q4_0),
            ("_q4_1", WeightType::Q4_1),
            ("_q4_k", WeightType::Q4K),
            ("_q6_k", WeightType::Q6K),
        ];
        let found = types.into_iter().find(|(suffix, _)| kernel.ends_with(suffix));
        found.map(|found| found.1).ok_or_else(|| Error::shape("case", "kernel", kernel, "of a block type"))
    }
}
