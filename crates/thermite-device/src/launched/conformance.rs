//! Every kernel and instance on a machine that launches them, against the float64 oracles.

use std::collections::BTreeMap;

use half::{bf16, f16};
use thermite_kernels::catalogue;
use thermite_kernels::conformance::{self, Argument as CaseArgument, Case, Data};
use thermite_kernels::contract::launch;
use thermite_kernels::syntax::SyntaxError;

use super::{Argument, Launcher, whole};
use crate::conformance::Outcome;
use crate::{Dtype, Error, Result};

/// Runs every case of every kernel and instance that `wanted` names; one outcome a kernel.
///
/// # Errors
/// If an embedded kernel source cannot be read.
pub fn run<L: Launcher>(
    launcher: &L,
    wanted: &dyn Fn(&str) -> bool,
) -> std::result::Result<BTreeMap<String, Outcome>, SyntaxError> {
    let mut outcomes: BTreeMap<String, Outcome> = BTreeMap::new();
    conformance::each_case_of(wanted, &mut |case| {
        let outcome = outcomes.entry(case.kernel.clone()).or_default();
        outcome.add(conformance::check(&mut Runner { launcher }, &case));
    })?;
    Ok(outcomes)
}

struct Runner<'l, L> {
    launcher: &'l L,
}

impl<L: Launcher> conformance::Runner for Runner<'_, L> {
    type Error = Error;

    fn launch(&mut self, case: &Case) -> Result<Vec<Option<Data>>> {
        let failed = |reason: String| Error::Launch { kernel: case.kernel.clone(), reason };
        let found = catalogue::find(&case.kernel).map_err(|e| failed(e.to_string()))?;
        let kernel = &found.ok_or_else(|| failed("there is no such kernel".to_owned()))?.kernel;
        let geometry = launch(&case.kernel, &case.dims, &case.limits).map_err(|e| failed(e.to_string()))?;
        let buffers: Vec<Option<L::Buffer>> =
            case.arguments.iter().map(|argument| self.upload(argument)).collect::<Result<_>>()?;
        let arguments: Vec<_> = case
            .arguments
            .iter()
            .zip(&buffers)
            .map(|(argument, buffer)| match (argument, buffer) {
                (_, Some(buffer)) => whole(buffer),
                (CaseArgument::Int(value), _) => Argument::Int(*value),
                (CaseArgument::Float(value), _) => Argument::Float(*value),
                _ => Argument::Nil,
            })
            .collect();
        if !geometry.is_empty() {
            self.launcher.launch(kernel, &case.dims, &geometry, &arguments)?;
        }
        let download = |(argument, buffer): (&CaseArgument, &Option<L::Buffer>)| match (argument, buffer) {
            (CaseArgument::Buffer(data), Some(buffer)) => self.download(buffer, data).map(Some),
            _ => Ok(None),
        };
        case.arguments.iter().zip(&buffers).map(download).collect()
    }
}

impl<L: Launcher> Runner<'_, L> {
    fn upload(&self, argument: &CaseArgument) -> Result<Option<L::Buffer>> {
        let CaseArgument::Buffer(data) = argument else { return Ok(None) };
        let (dtype, bytes): (Dtype, &[u8]) = match data {
            Data::F32(values) => (Dtype::F32, bytemuck::cast_slice(values)),
            Data::F16(values) => (Dtype::F16, bytemuck::cast_slice(values)),
            Data::Bf16(values) => (Dtype::BF16, bytemuck::cast_slice(values)),
            Data::I32(values) => (Dtype::I32, bytemuck::cast_slice(values)),
            Data::U32(values) => (Dtype::U32, bytemuck::cast_slice(values)),
            Data::U8(values) => (Dtype::U8, values),
        };
        let mut buffer = self.launcher.alloc(dtype, data.len())?;
        self.launcher.write(&mut buffer, bytes)?;
        Ok(Some(buffer))
    }

    /// What a buffer that held `before` holds now.
    fn download(&self, buffer: &L::Buffer, before: &Data) -> Result<Data> {
        fn all<T: bytemuck::Pod>(len: usize, read: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<Vec<T>> {
            let mut values = vec![T::zeroed(); len];
            read(bytemuck::cast_slice_mut(&mut values))?;
            Ok(values)
        }
        let read = |bytes: &mut [u8]| self.launcher.read(buffer, 0, bytes);
        Ok(match before {
            Data::F32(v) => Data::F32(all(v.len(), read)?),
            Data::F16(v) => Data::F16(all::<f16>(v.len(), read)?),
            Data::Bf16(v) => Data::Bf16(all::<bf16>(v.len(), read)?),
            Data::I32(v) => Data::I32(all(v.len(), read)?),
            Data::U32(v) => Data::U32(all(v.len(), read)?),
            Data::U8(v) => Data::U8(all(v.len(), read)?),
        })
    }
}
