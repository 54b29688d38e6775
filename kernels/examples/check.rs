//! Runs the conformance suite on the emulator:
//!
//! ```text
//! cargo run -p thermite-kernels --example check -- [--build fast|sanitized|checked] [--small] [--sources FOLDER] [NAME...]
//! ```
//!
//! NAME is a kernel, an instance or the beginning of one; without, all of them. `--small` leaves out the cases of more
//! than 100,000 elements, which the slower builds take long for. `--sources` takes the kernel files of a folder in place of
//! the embedded ones.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs, io};

use thermite_kernels::conformance::{Argument, Case, check, each_case_of};
use thermite_kernels::emulator::{Build, Emulator, EmulatorError, Recipe};

const SMALL: usize = 100_000;

fn main() -> ExitCode {
    let (mut build, mut small, mut names, mut folder) = (Build::Fast, false, Vec::new(), None);
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--small" => small = true,
            "--sources" => folder = arguments.next(),
            "--build" => match arguments.next().as_deref() {
                Some("fast") => build = Build::Fast,
                Some("sanitized") => build = Build::Sanitized,
                Some("checked") => build = Build::Checked,
                other => return usage(&format!("--build {}", other.unwrap_or_default())),
            },
            option if option.starts_with('-') => return usage(option),
            _ => names.push(argument),
        }
    }
    let start = Instant::now();
    let mut emulator = match emulator(build, folder.as_deref()) {
        Ok(emulator) => emulator,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{build} build: ready in {:.1} s", start.elapsed().as_secs_f64());

    let wanted = |kernel: &str| names.is_empty() || names.iter().any(|n| kernel.starts_with(n.as_str()));
    let (mut count, mut failed) = (0, 0);
    let visited = each_case_of(&wanted, &mut |case| {
        if small && elements(&case) > SMALL {
            return;
        }
        count += 1;
        if let Err(failure) = check(&mut emulator, &case) {
            failed += 1;
            println!("FAILED {failure}");
        }
    });
    if let Err(error) = visited {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    println!("{build} build: {count} cases, {failed} failed, {:.1} s", start.elapsed().as_secs_f64());
    if failed == 0 && count > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn emulator(build: Build, folder: Option<&str>) -> Result<Emulator, EmulatorError> {
    let mut recipe = Recipe::embedded(build);
    if let Some(folder) = folder {
        recipe.sources = metal_files(Path::new(folder))
            .map_err(|source| EmulatorError::Io { path: folder.into(), source })?;
    }
    Emulator::from_recipe(&recipe)
}

fn metal_files(folder: &Path) -> io::Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "metal") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.push((name, fs::read_to_string(&path)?));
        }
    }
    Ok(files)
}

fn elements(case: &Case) -> usize {
    let length = |argument: &Argument| match argument {
        Argument::Buffer(data) => data.len(),
        _ => 0,
    };
    case.arguments.iter().map(length).sum()
}

fn usage(what: &str) -> ExitCode {
    eprintln!(
        "unknown: {what}\nusage: check [--build fast|sanitized|checked] [--small] [--sources FOLDER] [NAME...]"
    );
    ExitCode::from(2)
}
