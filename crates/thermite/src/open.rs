//! From the command line to an engine on a device.

use thermite_device::cpu::Cpu;
use thermite_device::emulated::Emulated;
use thermite_device::launched::Variants;
use thermite_kernels::emulator::Build;

use crate::cli::RunArgs;
use crate::error::Error;

/// The CPU, with the threads asked for.
pub(crate) fn cpu(args: &RunArgs) -> Result<Cpu, Error> {
    Ok(Cpu::new(args.threads.map(usize::from))?)
}

/// The Metal kernels on the processor, for tests.
pub(crate) fn emulated(variants: Variants) -> Result<Emulated, Error> {
    Ok(Emulated::open(Build::Fast, variants)?)
}

/// The Apple GPU.
#[cfg(target_os = "macos")]
pub(crate) fn metal() -> Result<thermite_device::metal::Metal, Error> {
    Ok(thermite_device::metal::Metal::open(Default::default())?)
}

/// Opens the device that the user asked for, and calls `run(device, …)` with it.
macro_rules! on_device {
    ($args:expr, $run:expr) => {
        match $args.device {
            $crate::cli::DeviceKind::Auto | $crate::cli::DeviceKind::Cpu => $run($crate::open::cpu($args)?),
            $crate::cli::DeviceKind::Emulated => {
                $run($crate::open::emulated(thermite_device::launched::Variants::Fast)?)
            }
            $crate::cli::DeviceKind::EmulatedPlain => {
                $run($crate::open::emulated(thermite_device::launched::Variants::Plain)?)
            }
            #[cfg(target_os = "macos")]
            $crate::cli::DeviceKind::Metal => $run($crate::open::metal()?),
        }
    };
}
pub(crate) use on_device;
