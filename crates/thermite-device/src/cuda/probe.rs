//! Which of NVIDIA's libraries can be loaded. cudarc panics on a call into one that cannot.

use cudarc::{cublaslt, driver, nvrtc};

/// A library that a CUDA device needs or can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Library {
    /// The driver: comes with NVIDIA's kernel module.
    Driver,
    /// The run-time compiler: comes with the CUDA toolkit.
    Nvrtc,
    /// Products of matrices: comes with the CUDA toolkit.
    CublasLt,
}

impl Library {
    /// What the dynamic loader calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Driver => "libcuda",
            Self::Nvrtc => "libnvrtc",
            Self::CublasLt => "libcublasLt",
        }
    }

    /// Whether it can be loaded.
    pub(super) fn is_present(self) -> bool {
        // SAFETY: NVIDIA's libraries may be loaded by anyone; their constructors ask nothing of the caller.
        unsafe {
            match self {
                Self::Driver => driver::sys::is_culib_present(),
                Self::Nvrtc => nvrtc::sys::is_culib_present(),
                Self::CublasLt => cublaslt::sys::is_culib_present(),
            }
        }
    }
}

/// Why there can be no CUDA device here, from which libraries are there; none if there may be one.
fn reason(is_present: impl Fn(Library) -> bool) -> Option<String> {
    [
        (Library::Driver, "NVIDIA's driver is not installed"),
        (Library::Nvrtc, "the kernels cannot be compiled: install the CUDA toolkit, or set LD_LIBRARY_PATH to its libraries"),
    ]
    .into_iter()
    .find(|&(library, _)| !is_present(library))
    .map(|(library, advice)| format!("{} cannot be loaded; {advice}", library.name()))
}

/// Why there can be no CUDA device here, as far as the libraries tell.
#[must_use]
pub fn missing() -> Option<String> {
    reason(Library::is_present)
}

/// Whether NVIDIA's driver is installed: if it is, the user may expect its GPU to be used.
#[must_use]
pub fn present() -> bool {
    Library::Driver.is_present()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let nothing = reason(|_| false).unwrap();
        assert!(nothing.starts_with("libcuda cannot be loaded"), "{nothing}");
        let driver_alone = reason(|library| library == Library::Driver).unwrap();
        assert!(driver_alone.starts_with("libnvrtc cannot be loaded"), "{driver_alone}");
        assert!(driver_alone.contains("LD_LIBRARY_PATH"), "{driver_alone}");
        assert_eq!(reason(|library| library != Library::CublasLt), None);
    }

    #[test]
    fn opening_without_a_driver_is_an_error_and_no_panic() {
        let Some(missing) = missing() else { return };
        let error = super::super::Cuda::open(super::super::Options::default()).unwrap_err();
        assert!(error.to_string().contains(&missing), "{error}");
    }
}
