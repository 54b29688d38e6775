//! Kernel signatures: names, and what every parameter is.

/// A kernel as the host sees it: a plain kernel, or one instance of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The name by which the host asks for it: the function's, or the instance's `host_name`.
    pub name: String,
    /// The function's name in the source.
    pub function: String,
    /// Template arguments, empty for a plain kernel.
    pub template_arguments: Vec<String>,
    /// Parameters in the order written, their types with the template arguments put in.
    pub parameters: Vec<Parameter>,
    /// The argument of `max_total_threads_per_threadgroup`, if the kernel has that attribute.
    pub max_threads: Option<String>,
    /// Line of the kernel's name.
    pub line: usize,
}

/// One parameter of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// What it points at, or its type: `float`, `half4`, `uint2`.
    pub element: String,
    /// What it is.
    pub role: Role,
    /// Whether it is a pointer (otherwise a reference, or a value).
    pub pointer: bool,
}

/// What a parameter is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Device memory at `[[buffer(index)]]`; `writable` unless it is const.
    Buffer {
        /// The buffer index.
        index: usize,
        /// Whether the signature allows writes.
        writable: bool,
    },
    /// `constant T&` at `[[buffer(index)]]`: its bytes are given at dispatch.
    Constant {
        /// The buffer index.
        index: usize,
    },
    /// Threadgroup memory at `[[threadgroup(index)]]`, sized at dispatch.
    Threadgroup {
        /// The threadgroup memory index.
        index: usize,
    },
    /// A position attribute such as `thread_position_in_grid`.
    Position {
        /// The attribute's name.
        attribute: String,
    },
}

/// Source that is not a kernel file of the kind this crate reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct SyntaxError {
    /// The file.
    pub file: String,
    /// One-based line.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl Kernel {
    /// The name by which C++ calls it: `function` or `function<arguments>`.
    pub fn call(&self) -> String {
        if self.template_arguments.is_empty() {
            return self.function.clone();
        }
        format!("{}<{}>", self.function, self.template_arguments.join(", "))
    }
}
