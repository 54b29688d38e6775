//! Writes what other compilers read: `cargo run -p thermite-kernels --example source -- cuda|address-spaces FOLDER`.
//!
//! Prints the lint's findings and fails when there is one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use thermite_kernels::sources::sources;
use thermite_kernels::{address_spaces, syntax, wrap};

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let files = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["cuda", _] => cuda_files(),
        ["address-spaces", _] => Ok(address_spaces::files(&[])),
        _ => Err("usage: source cuda|address-spaces FOLDER".to_owned()),
    };
    let written = files.and_then(|files| write(Path::new(&arguments[1]), &files));
    if let Err(message) = written {
        eprintln!("{message}");
        return ExitCode::FAILURE;
    }
    let mut clean = true;
    for source in sources() {
        for finding in syntax::lint(source.text) {
            clean = false;
            println!("{}:{}: {}", source.file, finding.line, finding.message);
        }
    }
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `NAME.cu` and its headers in the folder `include`.
fn cuda_files() -> Result<Vec<(PathBuf, String)>, String> {
    let mut files = Vec::new();
    for source in sources() {
        let program = wrap::cuda_program(source).map_err(|e| e.to_string())?;
        files.push((PathBuf::from(source.file).with_extension("cu"), program.source));
        let headers =
            program.headers.iter().map(|(name, text)| (Path::new("include").join(name), (*text).to_owned()));
        files.extend(headers);
    }
    Ok(files)
}

fn write(folder: &Path, files: &[(PathBuf, String)]) -> Result<(), String> {
    for (name, text) in files {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
        fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}
