//! From the errors of a command buffer to ours, and the account of what it ran.

use std::fmt;
use std::sync::Arc;

use crate::{Error, Fault};

/// Codes of `MTLCommandBufferErrorDomain`; the rest count as [`Fault::Internal`].
const CODES: &[(isize, Fault)] = &[
    (2, Fault::Timeout),
    (3, Fault::PageFault),
    (4, Fault::AccessRevoked),
    (7, Fault::AccessRevoked),
    (8, Fault::OutOfMemory),
    (9, Fault::PageFault),
    (11, Fault::DeviceLost),
];

/// The error of a command buffer that ran `ran`: what the system says of it is `code`, `domain` and `message`.
pub(super) fn error(device: &str, ran: &Ran, domain: &str, code: isize, message: &str) -> Error {
    let known = CODES.iter().find(|(known, _)| *known == code && domain == "MTLCommandBufferErrorDomain");
    Error::Fault {
        device: device.to_owned(),
        fault: known.map_or(Fault::Internal, |(_, fault)| *fault),
        ran: ran.to_string(),
        reason: format!("{domain} {code}: {message}"),
    }
}

/// Names of the kernels in one command buffer, with how often each was launched.
#[derive(Debug, Default)]
pub(super) struct Ran {
    launches: usize,
    kernels: Vec<(Arc<str>, usize)>,
}

impl Ran {
    /// One more launch.
    pub(super) fn add(&mut self, kernel: &Arc<str>) {
        self.launches += 1;
        match self.kernels.iter_mut().find(|(name, _)| name == kernel) {
            Some((_, count)) => *count += 1,
            None => self.kernels.push((Arc::clone(kernel), 1)),
        }
    }

    /// How many launches there were.
    pub(super) const fn launches(&self) -> usize {
        self.launches
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, count)) in self.kernels.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            write!(f, "{separator}{name}")?;
            if *count > 1 {
                write!(f, " ({count} times)")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Ran, error};
    use crate::{Error, Fault};
    use std::sync::Arc;

    fn ran(names: &[&str]) -> Ran {
        let mut ran = Ran::default();
        names.iter().for_each(|name| ran.add(&Arc::from(*name)));
        ran
    }

    #[test]
    fn what_ran_is_named_once_with_its_count() {
        let ran = ran(&["matvec_f16", "gelu_forward", "matvec_f16"]);
        assert_eq!(ran.launches(), 3);
        assert_eq!(ran.to_string(), "matvec_f16 (2 times), gelu_forward");
    }

    #[test]
    fn errors_say_what_happened_and_to_what() {
        let domain = "MTLCommandBufferErrorDomain";
        let error = error("Apple M1", &ran(&["topk_mask"]), domain, 2, "Caused GPU Timeout Error");
        let wanted = "Apple M1: time-out while running topk_mask \
                      (MTLCommandBufferErrorDomain 2: Caused GPU Timeout Error)";
        assert_eq!(error.to_string(), wanted);
    }

    #[test]
    fn codes_have_their_kinds_and_other_domains_none() {
        let kind = |domain: &str, code| match error("gpu", &ran(&["k"]), domain, code, "") {
            Error::Fault { fault, .. } => fault,
            other => panic!("{other}"),
        };
        let metal = "MTLCommandBufferErrorDomain";
        assert_eq!(kind(metal, 3), Fault::PageFault);
        assert_eq!(kind(metal, 8), Fault::OutOfMemory);
        assert_eq!(kind(metal, 11), Fault::DeviceLost);
        assert_eq!(kind(metal, 1), Fault::Internal);
        assert_eq!(kind(metal, 999), Fault::Internal);
        assert_eq!(kind("NSPOSIXErrorDomain", 2), Fault::Internal);
    }
}
