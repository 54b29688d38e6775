//! Breaks the kernels one place at a time and sees whether the memory checker or the oracles notice:
//!
//! ```text
//! cargo run -p thermite-kernels --example mutate [-- FILE...]
//! ```
//!
//! Fails when fewer than 90% are noticed, or when one that is not noticed has no reason in checks/survivors.txt.

mod mutants;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use mutants::{CHOICE, Mutant, SWITCH, mutate};
use thermite_kernels::catalogue;
use thermite_kernels::conformance::{Argument, Case, check, each_case_of};
use thermite_kernels::emulator::{Build, Emulator, EmulatorError, Recipe};

/// Larger cases would show nothing more, and take long.
const MOST_ELEMENTS: usize = 100_000;
const TIME_LIMIT: Duration = Duration::from_secs(300);
/// Of all mutants, in percent.
const LEAST_NOTICED: usize = 90;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let result = match env::var(CHOICE) {
        Ok(_) => run_one(&arguments),
        Err(_) => run_all(&arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

/// The embedded sources with every mutant in them.
fn mutated() -> (Recipe, Vec<Mutant>) {
    let mut recipe = Recipe::embedded(Build::Checked);
    let mut mutants = Vec::new();
    for (file, text) in recipe.sources.iter_mut().chain(&mut recipe.headers) {
        *text = mutate(file, text, &mut mutants);
    }
    recipe.sources.push(("switch.metal".to_owned(), SWITCH.to_owned()));
    (recipe, mutants)
}

/// In a child, whose environment has chosen a mutant: runs the cases of the kernels in `files` until one fails.
fn run_one(files: &[String]) -> Result<bool, String> {
    let mut emulator = Emulator::from_recipe(&mutated().0).map_err(|e: EmulatorError| e.to_string())?;
    let entries = catalogue::kernels().map_err(|e| e.to_string())?;
    let wanted = |name: &str| {
        entries.iter().any(|e| e.kernel.name == name && files.iter().any(|f| f == e.source.file))
    };
    let mut notice = None;
    each_case_of(&wanted, &mut |case| {
        if notice.is_none() && elements(&case) <= MOST_ELEMENTS {
            notice = check(&mut emulator, &case).err();
        }
    })
    .map_err(|e| e.to_string())?;
    if let Some(failure) = &notice {
        println!("{failure}");
    }
    Ok(notice.is_none())
}

fn elements(case: &Case) -> usize {
    let length = |argument: &Argument| match argument {
        Argument::Buffer(data) => data.len(),
        _ => 0,
    };
    case.arguments.iter().map(length).sum()
}

/// Runs every mutant (of the given files, if any) in a child of its own, two at a time.
fn run_all(only: &[String]) -> Result<bool, String> {
    let start = Instant::now();
    let (recipe, mut mutants) = mutated();
    Emulator::from_recipe(&recipe).map_err(|e| e.to_string())?; // compiles once, for the children to find
    mutants.retain(|m| only.is_empty() || only.contains(&m.file));
    println!("{} mutants, compiled in {:.0} s", mutants.len(), start.elapsed().as_secs_f64());

    let next = AtomicUsize::new(0);
    let broken = AtomicBool::new(false);
    let unnoticed = Mutex::new(Vec::new());
    let worker = || {
        while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
            let noticed = match notice(mutant, &users(&recipe, &mutant.file)) {
                Ok(noticed) => noticed,
                Err(error) => {
                    println!("{}:{}: {error}", mutant.file, mutant.line);
                    broken.store(true, Ordering::Relaxed);
                    return;
                }
            };
            let report = noticed.as_deref().unwrap_or("NOT NOTICED");
            println!("{}:{} {}: {report}", mutant.file, mutant.line, mutant.kind);
            if let (None, Ok(mut list)) = (noticed, unnoticed.lock()) {
                list.push(mutant.clone());
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(worker);
        scope.spawn(worker);
    });
    let unnoticed = unnoticed.into_inner().unwrap_or_default();
    let seconds = start.elapsed().as_secs_f64();
    let noticed = mutants.len() - unnoticed.len();
    println!("{noticed} of {} mutants noticed, {seconds:.0} s", mutants.len());
    if broken.into_inner() {
        return Err("not every mutant ran".to_owned());
    }
    let explained = explain(&unnoticed)?;
    Ok(explained && noticed * 100 >= mutants.len() * LEAST_NOTICED)
}

/// The kernel files that a change of `file` concerns: itself, or all that include it.
fn users(recipe: &Recipe, file: &str) -> Vec<String> {
    if file.ends_with(".metal") {
        return vec![file.to_owned()];
    }
    let includes = |text: &str, header: &str| text.contains(&format!("#include \"{header}\""));
    let mut headers = vec![file.to_owned()];
    while let Some((name, _)) = recipe
        .headers
        .iter()
        .find(|(name, text)| !headers.contains(name) && headers.iter().any(|h| includes(text, h)))
    {
        headers.push(name.clone());
    }
    let concerned = |text: &str| headers.iter().any(|h| includes(text, h));
    recipe.sources.iter().filter(|(_, text)| concerned(text)).map(|(name, _)| name.clone()).collect()
}

/// What the child says first about the mutant; none when it says nothing. A crash and a hang are noticed too.
fn notice(mutant: &Mutant, files: &[String]) -> io::Result<Option<String>> {
    let mut child = Command::new(env::current_exe()?)
        .args(files)
        .env(CHOICE, mutant.number.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let start = Instant::now();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if start.elapsed() > TIME_LIMIT => {
                child.kill()?;
                child.wait()?;
                return Ok(Some("hangs".to_owned()));
            }
            None => thread::sleep(Duration::from_millis(5)),
        }
    };
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("crashes").to_owned();
    match status.code() {
        Some(0) => Ok(None),
        Some(2) => Err(io::Error::other("the child cannot run its cases")),
        _ => Ok(Some(text)),
    }
}

/// Prints the reason of every survivor; false when one has none. Lines of the file: `FILE | LINE'S TEXT | REASON`.
fn explain(survivors: &[Mutant]) -> Result<bool, String> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("checks/survivors.txt");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let reasons: Vec<Vec<&str>> = text
        .lines()
        .filter(|l| !l.starts_with('#'))
        .map(|l| l.split(" | ").map(str::trim).collect())
        .filter(|fields: &Vec<_>| fields.len() == 3)
        .collect();
    let mut all = true;
    for mutant in survivors {
        let reason = reasons.iter().find(|r| r[0] == mutant.file && mutant.text.contains(r[1]));
        let said = reason.map_or("NO REASON in checks/survivors.txt", |r| r[2]);
        println!("survives: {}:{} {} `{}`: {said}", mutant.file, mutant.line, mutant.kind, mutant.text);
        all &= reason.is_some();
    }
    Ok(all)
}
