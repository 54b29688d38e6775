//! The kernel sources and the dialect's files, embedded.

include!(concat!(env!("OUT_DIR"), "/sources.rs"));

/// One embedded `.metal` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source<'a> {
    /// File name, with `.metal`.
    pub file: &'a str,
    /// Its text: the bytes that Apple's compiler gets.
    pub text: &'a str,
}

/// Every `.metal` file, by name.
pub fn sources() -> impl Iterator<Item = Source<'static>> {
    SOURCES.iter().map(|&(file, text)| Source { file, text })
}

/// The Metal headers that the kernel files include, as (name, text).
pub fn headers() -> &'static [(&'static str, &'static str)] {
    HEADERS
}

/// The names under which Metal's own library is included.
pub(crate) const METAL_INCLUDES: &[&str] = &[
    "metal_stdlib",
    "metal_atomic",
    "metal_common",
    "metal_compute",
    "metal_math",
    "metal_simdgroup",
    "metal_simdgroup_matrix",
];
