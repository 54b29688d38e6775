//! The emulator as a runner of the conformance suite.

use half::{bf16, f16};

use super::{Argument, Buffer, Emulator, EmulatorError};
use crate::conformance::{self, Case, Data, Runner};

impl Runner for Emulator {
    type Error = EmulatorError;

    /// Every build guards its buffers itself, on both sides.
    fn guard_elements(&self) -> usize {
        0
    }

    fn launch(&mut self, case: &Case) -> Result<Vec<Option<Data>>, EmulatorError> {
        let upload = |(argument, name): (&conformance::Argument, &String)| match argument {
            conformance::Argument::Buffer(data) => self.uploaded(name, data).map(Some),
            _ => Ok(None),
        };
        let named = case.arguments.iter().zip(&case.names);
        let buffers = named.map(upload).collect::<Result<Vec<_>, _>>()?;
        let pairs = case.arguments.iter().zip(&buffers);
        let bound: Vec<_> = pairs.map(|(argument, buffer)| bind(argument, buffer.as_ref())).collect();
        self.launch_with_surplus(&case.kernel, &case.dims, &case.limits, case.surplus, &bound)?;
        let download = |(before, buffer): (&conformance::Argument, &Option<Buffer>)| match (before, buffer) {
            (conformance::Argument::Buffer(before), Some(buffer)) => downloaded(buffer, before).map(Some),
            _ => Ok(None),
        };
        case.arguments.iter().zip(&buffers).map(download).collect()
    }
}

impl Emulator {
    fn uploaded(&self, name: &str, data: &Data) -> Result<Buffer, EmulatorError> {
        let buffer = self.buffer(name, data.scalar(), data.len() as u64)?;
        match data {
            Data::F32(values) => buffer.upload(0, values)?,
            Data::F16(values) => buffer.upload(0, values)?,
            Data::Bf16(values) => buffer.upload(0, values)?,
            Data::I32(values) => buffer.upload(0, values)?,
            Data::U32(values) => buffer.upload(0, values)?,
            Data::U8(values) => buffer.upload(0, values)?,
        }
        Ok(buffer)
    }
}

fn bind<'b>(argument: &conformance::Argument, buffer: Option<&'b Buffer>) -> Argument<'b> {
    match (argument, buffer) {
        (_, Some(buffer)) => Argument::Buffer(buffer),
        (conformance::Argument::Int(value), _) => Argument::Int(*value),
        (conformance::Argument::Float(value), _) => Argument::Float(*value),
        _ => Argument::Nil,
    }
}

/// The buffer's contents, in the type that it had before.
fn downloaded(buffer: &Buffer, before: &Data) -> Result<Data, EmulatorError> {
    let count = before.len();
    Ok(match before {
        Data::F32(_) => Data::F32(buffer.download::<f32>(0, count)?),
        Data::F16(_) => Data::F16(buffer.download::<f16>(0, count)?),
        Data::Bf16(_) => Data::Bf16(buffer.download::<bf16>(0, count)?),
        Data::I32(_) => Data::I32(buffer.download::<i32>(0, count)?),
        Data::U32(_) => Data::U32(buffer.download::<u32>(0, count)?),
        Data::U8(_) => Data::U8(buffer.download::<u8>(0, count)?),
    })
}
