//! Wrappers: what makes a kernel file, attributes blanked, a complete C++ or CUDA translation unit.

use std::fmt::Write as _;

use crate::contract::contract_of;
use crate::sources::{self, METAL_INCLUDES, Source};
use crate::syntax::{Kernel, Role, SyntaxError, blank_attributes, parse};

/// A translation unit for NVRTC, with the headers it includes.
#[derive(Clone, Debug)]
pub struct CudaProgram {
    /// CUDA source. NVRTC's options are [`NVRTC_OPTIONS`] and the architecture.
    pub source: String,
    /// Headers as (name, text), all that the source includes.
    pub headers: Vec<(&'static str, &'static str)>,
    /// The kernels of the file; [`cuda_entry`] names the function of each.
    pub kernels: Vec<Kernel>,
}

/// Options with which NVRTC compiles a [`CudaProgram`]: everything is a device function, warnings about unknown
/// pragmas and unused attributes are off.
pub const NVRTC_OPTIONS: &[&str] =
    &["-default-device", "-std=c++17", "-diag-suppress=161", "-diag-suppress=1866"];

/// The `__global__` function that launches kernel `name`.
///
/// Its parameters are the kernel's buffers (pointers) and constants (values) in the order written, then one `uint`
/// byte offset for every threadgroup argument after the first: where it starts in dynamic shared memory, a multiple
/// of 16.
pub fn cuda_entry(name: &str) -> String {
    format!("thermite_{name}")
}

/// The file as CUDA.
///
/// # Errors
/// [`SyntaxError`] when a signature cannot be read.
pub fn cuda_program(source: Source<'_>) -> Result<CudaProgram, SyntaxError> {
    let kernels = parse(source.file, source.text)?;
    let mut text = translation_unit(source);
    for kernel in &kernels {
        text += &cuda_wrapper(kernel);
    }
    let overridden = |name: &str| sources::CUDA_DIALECT.iter().any(|(n, _)| *n == name);
    let own_headers = sources::headers().iter().filter(|(name, _)| !overridden(name));
    let headers = sources::CUDA_DIALECT
        .iter()
        .chain(sources::SHARED_DIALECT)
        .chain(own_headers)
        .copied()
        .chain(METAL_INCLUDES.iter().map(|name| (*name, "\n")))
        .collect();
    Ok(CudaProgram { source: text, headers, kernels })
}

/// The file as C++ for the emulator: compiled beside the headers of `dialect/cpu`.
///
/// # Errors
/// [`SyntaxError`] when a signature cannot be read.
pub fn cpp_source(file: &str, text: &str) -> Result<String, SyntaxError> {
    let kernels = parse(file, text)?;
    let mut unit = translation_unit(Source { file, text });
    for kernel in &kernels {
        unit += &cpp_wrapper(kernel);
    }
    Ok(unit)
}

/// The file with its attributes blanked, behind the dialect's header; messages name the `.metal` file's lines.
pub(crate) fn translation_unit(source: Source<'_>) -> String {
    let Source { file, text } = source;
    let blanked = blank_attributes(text);
    format!("#include \"metal.h\"\n#line 1 \"{file}\"\n{blanked}\n#line 1 \"wrappers of {file}\"\n")
}

fn cuda_wrapper(kernel: &Kernel) -> String {
    let (mut parameters, mut arguments) = (Vec::new(), Vec::new());
    let mut threadgroup_count = 0;
    for p in &kernel.parameters {
        let (name, element) = (&p.name, &p.element);
        let dereference = if p.pointer { "" } else { "*" };
        match &p.role {
            Role::Buffer { writable, .. } => {
                let constness = if *writable { "" } else { "const " };
                parameters.push(format!("{constness}{element}* {name}"));
                arguments.push(format!("{dereference}{name}"));
            }
            Role::Constant { .. } => {
                parameters.push(format!("{element} {name}"));
                arguments.push(name.clone());
            }
            Role::Threadgroup { .. } => {
                let offset = match threadgroup_count {
                    0 => String::new(),
                    n => format!(" + threadgroup_offset_{n}"),
                };
                arguments.push(format!("{dereference}({element}*)(threadgroup_memory{offset})"));
                threadgroup_count += 1;
            }
            Role::Position { attribute } => arguments.push(format!("dialect::{attribute}()")),
        }
    }
    parameters.extend((1..threadgroup_count).map(|n| format!("uint threadgroup_offset_{n}")));
    let bounds =
        kernel.max_threads.as_ref().map_or(String::new(), |threads| format!("__launch_bounds__({threads}) "));
    let shared = if threadgroup_count > 0 {
        "    extern __shared__ __align__(16) unsigned char threadgroup_memory[];\n"
    } else {
        ""
    };
    format!(
        "extern \"C\" __global__ void {bounds}{}({}) {{\n{}{shared}    {}({});\n}}\n",
        cuda_entry(&kernel.name),
        parameters.join(", "),
        order(&kernel.name),
        kernel.call(),
        arguments.join(", "),
    )
}

/// How a kernel stands to the ones launched before and after it, which it may overlap where the GPU can: those after may
/// start, and what they do not read ahead waits for the end of this one; so does this one for those before.
fn order(kernel: &str) -> String {
    let contract = contract_of(kernel);
    let line =
        |wanted: bool, call: &str| if wanted { format!("    dialect::{call}();\n") } else { String::new() };
    line(!contract.is_some_and(|c| c.holds_back()), "let_dependents_start")
        + &line(!contract.is_some_and(|c| c.reads_ahead()), "await_dependency")
}

fn cpp_wrapper(kernel: &Kernel) -> String {
    let argument = |p: &crate::syntax::Parameter| {
        let element = &p.element;
        let dereference = if p.pointer { "" } else { "*" };
        match &p.role {
            Role::Buffer { index, writable } => {
                let constness = if *writable { "" } else { " const" };
                format!("{dereference}({element}{constness}*)a.buffers[{index}]")
            }
            Role::Constant { index } => {
                format!("{dereference}({element} const*)a.buffers[{index}]")
            }
            Role::Threadgroup { index } => {
                format!("{dereference}({element}*)a.shared[{index}]")
            }
            Role::Position { attribute } => format!("dialect::{attribute}()"),
        }
    };
    let arguments: Vec<_> = kernel.parameters.iter().map(argument).collect();
    let (name, call) = (&kernel.name, kernel.call());
    let mut wrapper = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        wrapper,
        "static void run_{name}(const EmulatorArguments& a) {{ (void)a; {call}({}); }}\n\
         static dialect::Registration register_{name}(\"{name}\", run_{name});",
        arguments.join(", ")
    );
    wrapper
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Source<'_> = Source {
        file: "k.metal",
        text: "kernel void k(device const half4* x [[buffer(2)]], device float& y [[buffer(0)]], constant int& n [[buffer(1)]],\n\
               threadgroup float* s [[threadgroup(0)]], threadgroup int* t [[threadgroup(1)]], uint i [[thread_position_in_grid]]) {}",
    };

    #[test]
    fn cpp_casts_every_argument() {
        let unit = cpp_source(SOURCE.file, SOURCE.text).unwrap();
        assert!(unit.contains(
            "k((half4 const*)a.buffers[2], *(float*)a.buffers[0], *(int const*)a.buffers[1], (float*)a.shared[0], \
             (int*)a.shared[1], dialect::thread_position_in_grid())"
        ), "{unit}");
    }

    #[test]
    fn cuda_passes_constants_by_value_and_offsets_last() {
        let kernel = &parse(SOURCE.file, SOURCE.text).unwrap()[0];
        let wrapper = cuda_wrapper(kernel);
        assert!(
            wrapper.contains("thermite_k(const half4* x, float* y, int n, uint threadgroup_offset_1)"),
            "{wrapper}"
        );
        assert!(wrapper.contains("(int*)(threadgroup_memory + threadgroup_offset_1)"), "{wrapper}");
        let order = wrapper
            .find("let_dependents_start")
            .zip(wrapper.find("await_dependency"))
            .zip(wrapper.find(" k("));
        assert!(order.is_some_and(|((start, wait), call)| start < wait && wait < call), "{wrapper}");
    }
}
