//! From the command line to an engine on a device.

use thermite_device::cpu::Cpu;

use crate::cli::RunArgs;
use crate::error::Error;

/// The CPU, with the threads asked for.
pub(crate) fn cpu(args: &RunArgs) -> Result<Cpu, Error> {
    Ok(Cpu::new(args.threads.map(usize::from))?)
}

/// Opens the device that the user asked for, and calls `run(device, …)` with it.
macro_rules! on_device {
    ($args:expr, $run:expr) => {
        match $args.device {
            $crate::cli::DeviceKind::Auto | $crate::cli::DeviceKind::Cpu => {
                let device = $crate::open::cpu($args)?;
                $run(device)
            }
        }
    };
}
pub(crate) use on_device;
