//! What clang needs to check the address spaces of every kernel file.

use std::path::PathBuf;

use crate::sources::{self, METAL_INCLUDES, Source};
use crate::wrap::translation_unit;

/// Arguments of `clang++` for one of [`files`]: Metal is C++14, and nothing is generated.
pub const CLANG_ARGUMENTS: &[&str] =
    &["-x", "c++", "-std=c++14", "-fsyntax-only", "-Werror=c++17-extensions", "-Wno-unknown-pragmas", "-I."];

/// Files to lay beside each other as (name, text): the dialect, the headers, and `NAME.metal.cpp` for every kernel file.
/// `extra` are further kernel files, as a test has them.
pub fn files(extra: &[Source<'_>]) -> Vec<(PathBuf, String)> {
    let owned = |&(name, text): &(&str, &str)| (PathBuf::from(name), text.to_owned());
    let headers = sources::ADDRESS_SPACE_DIALECT.iter().chain(sources::headers()).map(owned);
    let includes = METAL_INCLUDES.iter().map(|name| (PathBuf::from(name), String::new()));
    let unit = |s: Source<'_>| (PathBuf::from(format!("{}.cpp", s.file)), translation_unit(s));
    let units = sources::sources().map(unit).chain(extra.iter().map(|s| unit(*s)));
    headers.chain(includes).chain(units).collect()
}
