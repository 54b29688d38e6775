//! Compiles the kernels into a shared library, once for every state of sources, compiler and flags.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::fmt;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::EmulatorError;
use crate::hopper::steps::{self, Variant};
use crate::sources::{self, METAL_INCLUDES};
use crate::wrap::cpp_source;

/// How the library is built, and so what it notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Build {
    /// Optimised, with guard words round every buffer. Any C++17 compiler: `$CXX`, or `c++`.
    Fast,
    /// With the address and undefined-behaviour sanitizers. Clang: `$CLANGXX`, or `clang++-19`, or `clang++`.
    Sanitized,
    /// Every access checked for races, bounds, uninitialised reads and divergent barriers. Clang, as above.
    Checked,
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fast => "fast",
            Self::Sanitized => "sanitized",
            Self::Checked => "checked",
        })
    }
}

/// Flags and files of one build.
struct Toolchain {
    /// The variable that names the compiler, and what is tried without it.
    variable: &'static str,
    compilers: &'static [&'static str],
    kernel_flags: &'static [&'static str],
    runtime_flags: &'static [&'static str],
    link_flags: &'static [&'static str],
    /// The memory backend.
    memory: &'static str,
}

const CLANG: &[&str] = &["clang++-19", "clang++"];

impl Build {
    fn toolchain(self) -> Toolchain {
        match self {
            Self::Fast => Toolchain {
                variable: "CXX",
                compilers: &["c++", "g++", "clang++"],
                kernel_flags: &["-O2"],
                runtime_flags: &["-O2"],
                link_flags: &[],
                memory: "memory_guarded.cpp",
            },
            Self::Sanitized => Toolchain {
                variable: "CLANGXX",
                compilers: CLANG,
                kernel_flags: &[
                    "-O1",
                    "-g",
                    "-fsanitize=address,undefined",
                    "-fno-sanitize-recover=undefined",
                    "-mllvm",
                    "-asan-use-stack-safety=0",
                ],
                runtime_flags: &["-O1", "-g", "-fsanitize=address"],
                link_flags: &["-fsanitize=address,undefined", "-shared-libasan"],
                memory: "memory_exact.cpp",
            },
            Self::Checked => Toolchain {
                variable: "CLANGXX",
                compilers: CLANG,
                // The instrumentation of the thread sanitizer, without its library: memory_checked.cpp stands in.
                kernel_flags: &[
                    "-O1",
                    "-g",
                    "-fsanitize=thread",
                    "-mllvm",
                    "-tsan-instrument-func-entry-exit=0",
                ],
                runtime_flags: &["-O2"],
                link_flags: &[],
                memory: "memory_checked.cpp",
            },
        }
    }
}

/// Flags of every file: no contraction, so that all machines compute alike. The builds that name lines add what they need.
const COMMON_FLAGS: &[&str] = &["-std=c++17", "-fPIC", "-w", "-ffp-contract=off"];
/// A vector that a GPU could not load or store ends the process.
const ALIGNED: &[&str] = &["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"];
const RUNTIME: &str = "fibers.cpp";

/// What is compiled, how, and where it is kept.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The build.
    pub build: Build,
    /// Kernel files as (name, text).
    pub sources: Vec<(String, String)>,
    /// The headers that they include, likewise.
    pub headers: Vec<(String, String)>,
    /// Folder of compiled objects and libraries; grows by what is compiled, and may be deleted at any time.
    pub cache: PathBuf,
}

impl Recipe {
    /// The embedded kernels, kept in `$THERMITE_CACHE`, or `thermite` in the user's cache folder.
    pub fn embedded(build: Build) -> Self {
        let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        Self {
            build,
            sources: sources::sources().map(|s| owned(&(s.file, s.text))).collect(),
            headers: sources::headers().iter().map(owned).collect(),
            cache: default_cache().join("emulator"),
        }
    }

    /// The library's path; compiles what the cache does not hold. One thread at a time: the second finds what the first has
    /// compiled.
    pub(super) fn compile(&self) -> Result<PathBuf, EmulatorError> {
        static COMPILING: Mutex<()> = Mutex::new(());
        let _compiling = COMPILING.lock().unwrap_or_else(PoisonError::into_inner);
        let toolchain = self.build.toolchain();
        let compiler = Compiler::find(self.build, &toolchain)?;
        let include = self.write_headers()?;
        let mut units = Vec::new();
        for (file, text) in &self.sources {
            units.push(Unit {
                name: file.clone(),
                text: cpp_source(file, text)?,
                flags: toolchain.kernel_flags.to_vec(),
            });
        }
        for (file, text) in sources::CPU_DIALECT {
            if *file == RUNTIME || *file == toolchain.memory {
                units.push(Unit {
                    name: (*file).to_owned(),
                    text: (*text).to_owned(),
                    flags: toolchain.runtime_flags.to_vec(),
                });
            }
        }
        let objects = compile_all(&units, |unit| compiler.object(unit, &include, &self.cache))?;
        compiler.library(&objects, toolchain.link_flags, &self.cache)
    }

    /// Writes the headers that the kernels include.
    fn write_headers(&self) -> Result<PathBuf, EmulatorError> {
        let cpu = sources::CPU_DIALECT.iter().filter(|(name, _)| name.ends_with(".h"));
        let mut headers: Vec<(&str, &str)> = cpu.chain(sources::SHARED_DIALECT).copied().collect();
        headers.extend(METAL_INCLUDES.iter().map(|name| (*name, "")));
        headers.extend(self.headers.iter().map(|(name, text)| (name.as_str(), text.as_str())));
        write_headers(&headers, &self.cache)
    }
}

/// Writes headers into a folder of `cache` that is named by their contents.
fn write_headers(headers: &[(&str, &str)], cache: &Path) -> Result<PathBuf, EmulatorError> {
    let folder = cache.join(format!("include-{:016x}", hash(&headers)));
    for (name, text) in headers {
        let path = folder.join(name);
        if !path.exists() {
            put(&path, text.as_bytes())?;
        }
    }
    Ok(folder)
}

/// The path of a library of `hopper/steps.cu` for a variant, and of what runs it; compiles what the cache does not hold.
pub(super) fn compile_steps(build: Build, variant: Variant) -> Result<PathBuf, EmulatorError> {
    let toolchain = build.toolchain();
    let compiler = Compiler::find(build, &toolchain)?;
    let cache = default_cache().join("emulator");
    let is_header = |(name, _): &&(&str, &str)| name.ends_with(".h");
    // the emulator's hopper.h stands before the GPU's
    let mut headers: Vec<(&str, &str)> = sources::RESIDENTS.iter().filter(is_header).copied().collect();
    for &(name, text) in sources::HOPPER_HEADERS.iter().chain(sources::CPU_DIALECT.iter().filter(is_header)) {
        if headers.iter().all(|(other, _)| *other != name) {
            headers.push((name, text));
        }
    }
    let include = write_headers(&headers, &cache)?;
    let kernel = Unit {
        name: steps::FILE.to_owned(),
        text: format!("{}\n#include \"steps_run.h\"\n", variant.source()),
        flags: [toolchain.kernel_flags, ALIGNED].concat(),
    };
    let runtime = sources::RESIDENTS.iter().filter(|(name, _)| name.ends_with(".cpp")).map(|(name, text)| {
        Unit { name: (*name).to_owned(), text: (*text).to_owned(), flags: toolchain.runtime_flags.to_vec() }
    });
    let units: Vec<Unit> = std::iter::once(kernel).chain(runtime).collect();
    let objects = compile_all(&units, |unit| compiler.object(unit, &include, &cache))?;
    compiler.library(&objects, toolchain.link_flags, &cache)
}

fn default_cache() -> PathBuf {
    let set = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let user = || {
        let home = || set("HOME").map(|home| home.join(".cache"));
        set("XDG_CACHE_HOME").or_else(home).map(|cache| cache.join("thermite"))
    };
    set("THERMITE_CACHE").or_else(user).unwrap_or_else(|| env::temp_dir().join("thermite"))
}

struct Unit {
    name: String,
    text: String,
    flags: Vec<&'static str>,
}

struct Compiler {
    command: String,
    /// What `--version` prints: a new compiler compiles anew.
    version: String,
}

impl Compiler {
    fn find(build: Build, toolchain: &Toolchain) -> Result<Self, EmulatorError> {
        let chosen = env::var(toolchain.variable).ok().filter(|c| !c.is_empty());
        let candidates: Vec<String> = match chosen {
            Some(command) => vec![command],
            None => toolchain.compilers.iter().map(|c| (*c).to_owned()).collect(),
        };
        for command in &candidates {
            if let Ok(output) = Command::new(command).arg("--version").output() {
                return Ok(Self {
                    command: command.clone(),
                    version: String::from_utf8_lossy(&output.stdout).into_owned(),
                });
            }
        }
        Err(EmulatorError::NoCompiler { build, tried: candidates.join(", "), variable: toolchain.variable })
    }

    /// The unit's object file.
    fn object(&self, unit: &Unit, include: &Path, cache: &Path) -> Result<PathBuf, EmulatorError> {
        let key = hash(&(&self.version, COMMON_FLAGS, &unit.flags, include, &unit.text));
        let object = cache.join(format!("{}-{key:016x}.o", unit.name));
        if object.exists() {
            return Ok(object);
        }
        let source = temporary(&object.with_extension("cpp"));
        put(&source, unit.text.as_bytes())?;
        let built = self.run(&unit.name, &object, |command| {
            command.args(COMMON_FLAGS).args(&unit.flags);
            command.arg("-I").arg(include).arg("-c").arg(&source);
        });
        let _ = fs::remove_file(&source); // only the object is kept
        built?;
        Ok(object)
    }

    /// The shared library of all objects.
    fn library(&self, objects: &[PathBuf], flags: &[&str], cache: &Path) -> Result<PathBuf, EmulatorError> {
        let key = hash(&(&self.version, flags, objects));
        let library = cache.join(format!("kernels-{key:016x}.so"));
        if !library.exists() {
            self.run("the library", &library, |command| {
                command.arg("-shared").args(flags).args(objects);
            })?;
        }
        Ok(library)
    }

    /// Runs the compiler; its output appears under its name only when it is whole.
    fn run(
        &self,
        what: &str,
        output: &Path,
        arguments: impl FnOnce(&mut Command),
    ) -> Result<(), EmulatorError> {
        let unfinished = temporary(output);
        let mut command = Command::new(&self.command);
        arguments(&mut command);
        let failed = |source| io_error(Path::new(&self.command), source);
        let result = command.arg("-o").arg(&unfinished).output().map_err(failed)?;
        if !result.status.success() {
            let text = String::from_utf8_lossy(&result.stderr);
            let errors: Vec<_> = text.lines().filter(|l| l.contains("error")).take(5).collect();
            let message = if errors.is_empty() { text.into_owned() } else { errors.join("\n") };
            let file = what.to_owned();
            return Err(EmulatorError::Compile { file, message });
        }
        fs::rename(&unfinished, output).map_err(|e| io_error(output, e))
    }
}

/// Applies `compile` to every unit on as many threads as there are processors; the first error wins.
fn compile_all(
    units: &[Unit],
    compile: impl Fn(&Unit) -> Result<PathBuf, EmulatorError> + Sync,
) -> Result<Vec<PathBuf>, EmulatorError> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let worker = || {
        while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = compile(unit);
            let Ok(mut results) = results.lock() else {
                return;
            };
            results.push(result);
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from).min(units.len());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(worker);
        }
    });
    let results = results.into_inner().unwrap_or_default();
    let mut objects = results.into_iter().collect::<Result<Vec<_>, _>>()?;
    objects.sort();
    Ok(objects)
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A name beside `path` that no other process or thread uses.
fn temporary(path: &Path) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{}-{count}-{name}", process::id()))
}

/// Writes a file so that it appears whole, and makes its folder.
fn put(path: &Path, bytes: &[u8]) -> Result<(), EmulatorError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|e| io_error(folder, e))?;
    }
    let unfinished = temporary(path);
    fs::write(&unfinished, bytes).map_err(|e| io_error(&unfinished, e))?;
    fs::rename(&unfinished, path).map_err(|e| io_error(path, e))
}

fn io_error(path: &Path, source: io::Error) -> EmulatorError {
    EmulatorError::Io { path: path.to_owned(), source }
}
