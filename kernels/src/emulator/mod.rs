//! Runs the kernels on the CPU: the `.metal` files compiled by a C++ compiler, every GPU thread a fiber.
//!
//! For tests and checks, never for speed. The library is compiled when it is first asked for and kept in a cache
//! folder; a C++ compiler (`$CXX`, or `c++`) is all it needs. Three builds: [`Build`].

mod buffer;
mod compile;
#[cfg(feature = "conformance")]
mod conformance;
mod library;
mod steps;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::contract::{Access, check_binding, check_indices, contract_of, launch};
use crate::contract::{BindingError, Bound, Dims, GeometryError, Launch, Limits, Scalar};
use crate::syntax::{Kernel, SyntaxError, parse};

pub use buffer::Buffer;
pub use compile::{Build, Recipe};
pub use steps::Steps;

use library::{Call, Library};

/// A loaded library of kernels.
#[derive(Clone, Debug)]
pub struct Emulator {
    library: Arc<Library>,
    build: Build,
    kernels: Arc<[Kernel]>,
}

/// One argument of a launch, in the order of the buffer indices.
#[derive(Clone, Copy, Debug)]
pub enum Argument<'b> {
    /// A buffer. The same buffer may be bound at several indices where the kernel allows it.
    Buffer(&'b Buffer),
    /// An integer constant.
    Int(i32),
    /// A float constant.
    Float(f32),
    /// No buffer.
    Nil,
}

/// Why the emulator cannot do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// A kernel source cannot be read.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// No C++ compiler of the wanted kind starts.
    #[error("no C++ compiler for the {build} build: tried {tried} (set {variable})")]
    NoCompiler {
        /// The build.
        build: Build,
        /// The commands tried.
        tried: String,
        /// The environment variable that names one.
        variable: &'static str,
    },
    /// The compiler rejects a file.
    #[error("{file} does not compile: {message}")]
    Compile {
        /// The file.
        file: String,
        /// The compiler's first errors.
        message: String,
    },
    /// A file of the cache cannot be written or read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The compiled library cannot be loaded.
    #[error("{path}: {message}")]
    Load {
        /// The library.
        path: PathBuf,
        /// What the loader says.
        message: String,
    },
    /// No such kernel.
    #[error("no kernel {kernel}")]
    UnknownKernel {
        /// The name.
        kernel: String,
    },
    /// What is bound does not fit.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// No memory for a buffer.
    #[error("no memory for {name}: {bytes} bytes")]
    OutOfMemory {
        /// The buffer.
        name: String,
        /// Its size.
        bytes: u64,
    },
    /// A transfer past the end of a buffer, or of another element size.
    #[error("{name}: {message}")]
    Transfer {
        /// The buffer.
        name: String,
        /// What does not fit.
        message: String,
    },
    /// The kernel did something that no kernel may do.
    #[error("{kernel}: {message}")]
    Fault {
        /// The kernel.
        kernel: String,
        /// Where and what: a divergent barrier, a race, an access out of bounds.
        message: String,
    },
}

impl From<GeometryError> for EmulatorError {
    fn from(error: GeometryError) -> Self {
        Self::Binding(error.into())
    }
}

impl Emulator {
    /// The embedded kernels, compiled for `build` into the user's cache folder, or loaded from there.
    ///
    /// # Errors
    /// [`EmulatorError`] when there is no compiler, or a file does not compile or load.
    pub fn new(build: Build) -> Result<Self, EmulatorError> {
        Self::from_recipe(&Recipe::embedded(build))
    }

    /// As [`Emulator::new`], from given sources and into a given folder.
    ///
    /// # Errors
    /// As [`Emulator::new`].
    pub fn from_recipe(recipe: &Recipe) -> Result<Self, EmulatorError> {
        let mut kernels = Vec::new();
        for (file, text) in &recipe.sources {
            kernels.extend(parse(file, text)?);
        }
        let path = recipe.compile()?;
        let library = Arc::new(Library::load(&path, recipe.build)?);
        Ok(Self { library, build: recipe.build, kernels: kernels.into() })
    }

    /// How the library was built.
    pub fn build(&self) -> Build {
        self.build
    }

    /// Whether the library has this kernel or instance.
    pub fn has(&self, kernel: &str) -> bool {
        self.kernels.iter().any(|k| k.name == kernel) && self.library.has(kernel)
    }

    /// A buffer of `length` zeros. Large buffers are reserved, not filled: only pages that are touched take memory.
    ///
    /// # Errors
    /// [`EmulatorError::OutOfMemory`].
    pub fn buffer(&self, name: &str, scalar: Scalar, length: u64) -> Result<Buffer, EmulatorError> {
        Buffer::new(Arc::clone(&self.library), name, scalar, length)
    }

    /// Launches `kernel` with the geometry of its contract, and says which it was.
    ///
    /// # Errors
    /// [`EmulatorError::Binding`] when the arguments do not fit (then nothing runs), [`EmulatorError::Fault`] for what
    /// the kernel does wrong.
    pub fn launch(
        &self,
        kernel: &str,
        dims: &Dims,
        limits: &Limits,
        arguments: &[Argument<'_>],
    ) -> Result<Launch, EmulatorError> {
        let launch = launch(kernel, dims, limits)?;
        let [x, y, z] = launch.grid;
        self.run(kernel, dims, &launch, [0..x, 0..y, 0..z], arguments)?;
        Ok(launch)
    }

    /// Launches only the threadgroups in `part` of the grid, which the kernel sees whole: how a test looks at the far
    /// end of a grid that would take hours.
    ///
    /// # Errors
    /// As [`Emulator::launch`].
    pub fn launch_part(
        &self,
        kernel: &str,
        dims: &Dims,
        limits: &Limits,
        part: &[Range<u32>; 3],
        arguments: &[Argument<'_>],
    ) -> Result<Launch, EmulatorError> {
        let launch = launch(kernel, dims, limits)?;
        let within = |i: usize| part[i].start..part[i].end.min(launch.grid[i]);
        self.run(kernel, dims, &launch, [within(0), within(1), within(2)], arguments)?;
        Ok(launch)
    }

    /// As [`Emulator::launch`], with more threadgroups than the geometry's.
    #[cfg(feature = "conformance")]
    fn launch_with_surplus(
        &self,
        kernel: &str,
        dims: &Dims,
        limits: &Limits,
        surplus: [u32; 3],
        arguments: &[Argument<'_>],
    ) -> Result<(), EmulatorError> {
        let mut launch = launch(kernel, dims, limits)?;
        if !launch.is_empty() {
            for (groups, more) in launch.grid.iter_mut().zip(surplus) {
                *groups = groups.saturating_add(more);
            }
        }
        let [x, y, z] = launch.grid;
        self.run(kernel, dims, &launch, [0..x, 0..y, 0..z], arguments)
    }

    fn run(
        &self,
        name: &str,
        dims: &Dims,
        launch: &Launch,
        part: [Range<u32>; 3],
        arguments: &[Argument<'_>],
    ) -> Result<(), EmulatorError> {
        let unknown = || EmulatorError::UnknownKernel { kernel: name.to_owned() };
        let kernel = self.kernels.iter().find(|k| k.name == name).ok_or_else(unknown)?;
        if !self.library.has(name) {
            return Err(unknown());
        }
        let bound: Vec<_> = arguments.iter().map(Argument::bound).collect();
        check_binding(kernel, dims, &bound)?;
        let contract = contract_of(name).ok_or_else(unknown)?;

        let mut slots = Vec::with_capacity(arguments.len());
        let mut access = Vec::with_capacity(arguments.len());
        for ((index, parameter), argument) in crate::contract::bindable(kernel).into_iter().zip(arguments) {
            let rule = contract.buffers.iter().find(|rule| rule.name == parameter.name);
            if let (Argument::Buffer(buffer), Some(rule)) = (argument, rule.filter(|r| r.below.is_some())) {
                let count = rule.length(dims)?;
                check_indices(name, &parameter.name, &buffer.first_ints(count)?, dims)?;
            }
            slots.resize(index, Argument::Nil);
            access.resize(index, Access::ReadWrite);
            slots.push(*argument);
            access.push(rule.map_or(Access::Read, |r| r.access));
        }
        if launch.is_empty() {
            return Ok(());
        }
        let call = Call { kernel: name, launch, part, arguments: &slots, access: &access };
        self.library
            .launch(&call)
            .map_err(|message| EmulatorError::Fault { kernel: name.to_owned(), message })
    }
}

impl Argument<'_> {
    fn bound(&self) -> Bound {
        match self {
            Self::Buffer(buffer) => Bound::Buffer { scalar: buffer.scalar(), length: buffer.length() },
            Self::Int(value) => Bound::Int(*value),
            Self::Float(value) => Bound::Float(*value),
            Self::Nil => Bound::Nil,
        }
    }
}
