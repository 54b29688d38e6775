//! Lists the kernel sources: every `.metal` file and header at the top of this crate, the dialect's headers, and what
//! stands in `hopper/`.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// What only the emulator needs.
const EMULATED: [&str; 2] = ["CPU_DIALECT", "RESIDENTS"];

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?);
    let mut table = String::new();
    for (name, folder, extensions) in [
        ("SOURCES", "", ["metal"].as_slice()),
        ("HEADERS", "", &["h"]),
        ("CPU_DIALECT", "dialect/cpu", &["h", "cpp"]),
        ("CUDA_DIALECT", "dialect/cuda", &["h"]),
        ("SHARED_DIALECT", "dialect", &["h"]),
        ("ADDRESS_SPACE_DIALECT", "dialect/address_spaces", &["h"]),
        ("HOPPER_SOURCES", "hopper", &["cu"]),
        ("HOPPER_HEADERS", "hopper", &["h"]),
        ("RESIDENTS", "dialect/hopper", &["h", "cpp"]),
    ] {
        let folder = root.join(folder);
        println!("cargo:rerun-if-changed={}", folder.display());
        table += &format!("/// The files of {name}, by name, with their text.\n");
        if EMULATED.contains(&name) {
            table += "#[cfg(feature = \"emulated\")]\n";
        }
        table += &format!("pub(crate) static {name}: &[(&str, &str)] = &[\n");
        for file in files(&folder, extensions)? {
            println!("cargo:rerun-if-changed={}", file.display());
            let name = file.file_name().unwrap_or_default();
            table += &format!("    ({name:?}, include_str!({file:?})),\n");
        }
        table += "];\n";
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    fs::write(out.join("sources.rs"), table)
}

fn files(folder: &Path, extensions: &[&str]) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| extensions.iter().any(|x| e == *x)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
