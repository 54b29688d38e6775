//! From the command line to an engine on a device.

use thermite_device::cpu::Cpu;
use thermite_device::emulated::Emulated;
use thermite_device::launched::Variants;
use thermite_kernels::emulator::Build;

use crate::cli::RunArgs;
use crate::error::Error;
#[cfg(any(target_os = "macos", all(feature = "cuda", any(target_os = "linux", target_os = "windows"))))]
use crate::output::note;

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
pub(crate) fn metal(variants: Variants) -> Result<thermite_device::metal::Metal, Error> {
    use thermite_device::metal::{Metal, Options};
    Ok(Metal::open(Options { variants, ..Options::default() })?)
}

/// The NVIDIA GPU.
#[cfg(all(feature = "cuda", any(target_os = "linux", target_os = "windows")))]
pub(crate) fn cuda(variants: Variants) -> Result<thermite_device::cuda::Cuda, Error> {
    use thermite_device::cuda::{Cuda, Options};
    Ok(Cuda::open(Options { variants, ..Options::default() })?)
}

/// What `auto` means here: the best device that opens. Why a better one does not is told on standard error, where the
/// user can be expected to have it.
pub(crate) enum Best {
    Cpu,
    #[cfg(all(feature = "cuda", any(target_os = "linux", target_os = "windows")))]
    Cuda(Box<thermite_device::cuda::Cuda>),
    #[cfg(target_os = "macos")]
    Metal(Box<thermite_device::metal::Metal>),
}

impl Best {
    #[cfg(all(feature = "cuda", any(target_os = "linux", target_os = "windows")))]
    pub(crate) fn open(variants: Variants) -> Self {
        if !thermite_device::cuda::present() {
            return Self::Cpu;
        }
        match cuda(variants) {
            Ok(device) => Self::Cuda(Box::new(device)),
            Err(error) => Self::without(&error),
        }
    }

    #[cfg(target_os = "macos")]
    pub(crate) fn open(variants: Variants) -> Self {
        match metal(variants) {
            Ok(device) => Self::Metal(Box::new(device)),
            Err(error) => Self::without(&error),
        }
    }

    #[cfg(not(any(
        target_os = "macos",
        all(feature = "cuda", any(target_os = "linux", target_os = "windows"))
    )))]
    pub(crate) const fn open(_variants: Variants) -> Self {
        Self::Cpu
    }

    #[cfg(any(target_os = "macos", all(feature = "cuda", any(target_os = "linux", target_os = "windows"))))]
    fn without(error: &Error) -> Self {
        note(&format!("[{error}; the processor computes]"));
        Self::Cpu
    }
}

/// Opens the device that the user asked for, and calls `run(device, …)` with it.
macro_rules! on_device {
    ($args:expr, $run:expr) => {
        match $args.device {
            $crate::cli::DeviceKind::Auto => match $crate::open::Best::open($args.variants()) {
                $crate::open::Best::Cpu => $run($crate::open::cpu($args)?),
                #[cfg(all(feature = "cuda", any(target_os = "linux", target_os = "windows")))]
                $crate::open::Best::Cuda(device) => $run(*device),
                #[cfg(target_os = "macos")]
                $crate::open::Best::Metal(device) => $run(*device),
            },
            $crate::cli::DeviceKind::Cpu => $run($crate::open::cpu($args)?),
            #[cfg(all(feature = "cuda", any(target_os = "linux", target_os = "windows")))]
            $crate::cli::DeviceKind::Cuda => $run($crate::open::cuda($args.variants())?),
            $crate::cli::DeviceKind::Emulated => $run($crate::open::emulated($args.variants())?),
            $crate::cli::DeviceKind::EmulatedPlain => {
                $run($crate::open::emulated(thermite_device::launched::Variants::Plain)?)
            }
            #[cfg(target_os = "macos")]
            $crate::cli::DeviceKind::Metal => $run($crate::open::metal($args.variants())?),
        }
    };
}
pub(crate) use on_device;
