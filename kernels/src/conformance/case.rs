//! One case: a kernel, its arguments, and what must come out.

use std::fmt;

use super::data::Data;
use crate::contract::{Dims, Limits, Scalar, launch};
use crate::syntax::{Kernel, Role};

/// One argument, in the order of the buffer indices.
#[derive(Clone, Debug)]
pub enum Argument {
    /// A buffer and its contents before the launch.
    Buffer(Data),
    /// An integer constant.
    Int(i32),
    /// A float constant.
    Float(f32),
    /// No buffer.
    Nil,
}

/// What a buffer holds after the launch.
#[derive(Clone, Debug)]
pub enum Expectation {
    /// What it held before, to the bit.
    Unchanged,
    /// These values, within a tolerance. NaN stands for NaN, an infinity for itself.
    Values(Vec<f64>, Tolerance),
}

/// How far a value may be off: `absolute + relative * |wanted|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// In units of the value.
    pub absolute: f64,
    /// In parts of the wanted value.
    pub relative: f64,
}

impl Tolerance {
    /// To the bit.
    pub const EXACT: Self = Self { absolute: 0.0, relative: 0.0 };

    /// But for the rounding to the storage type.
    pub const ROUNDED: Self = Self { absolute: f64::MIN_POSITIVE, relative: 0.0 };

    /// In parts of each value.
    pub const fn relative(relative: f64) -> Self {
        Self { absolute: 0.0, relative }
    }

    /// In parts of each value and of the largest finite one: for sums whose terms cancel.
    pub fn of_scale(relative: f64, wanted: &[f64]) -> Self {
        let finite = wanted.iter().map(|v| v.abs()).filter(|v| v.is_finite());
        Self { absolute: relative * finite.fold(0.0, f64::max), relative }
    }

    /// The rounding of the storage type added: half a unit in the last place, and the smallest subnormal.
    fn with_rounding_to(self, scalar: Scalar) -> Self {
        let (relative, absolute) = match scalar {
            Scalar::F32 => (0.0, 1e-44),
            Scalar::F16 => (f64::powi(2.0, -11), f64::powi(2.0, -24)),
            Scalar::Bf16 => (f64::powi(2.0, -8), 1e-40),
            Scalar::I32 | Scalar::U32 | Scalar::U8 => (0.0, 0.0),
        };
        Self { absolute: self.absolute + absolute, relative: self.relative + relative }
    }

    fn allows(self, wanted: f64, given: f64) -> bool {
        if wanted.is_nan() || given.is_nan() {
            return wanted.is_nan() && given.is_nan();
        }
        // Equality covers infinities, which have no difference.
        wanted == given || (wanted - given).abs() <= self.absolute + self.relative * wanted.abs()
    }
}

/// A kernel, its arguments, and what must come out.
#[derive(Clone, Debug)]
pub struct Case {
    /// Kernel or instance.
    pub kernel: String,
    /// What is special about it; may be empty.
    pub about: &'static str,
    /// Dimensions; every integer constant is one.
    pub dims: Dims,
    /// Limits that fix the threadgroup.
    pub limits: Limits,
    /// Threadgroups launched beyond the geometry's, in x, y and z: they must do nothing. A runner that cannot may leave
    /// them out.
    pub surplus: [u32; 3],
    /// By buffer index.
    pub arguments: Vec<Argument>,
    /// The parameters' names, likewise.
    pub names: Vec<String>,
    /// What each holds afterwards, likewise.
    pub expected: Vec<Expectation>,
}

/// Where and how a buffer differs.
pub(super) struct Difference(String);

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Case {
    /// Kernel, dimensions and threads, for messages.
    pub fn label(&self) -> String {
        let dims: Vec<_> = self.dims.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{} {} (at most {} threads) {}", self.kernel, dims.join(" "), self.limits.threads, self.about)
    }

    pub(super) fn with_guards(mut self, count: usize) -> Self {
        for argument in &mut self.arguments {
            if let Argument::Buffer(data) = argument {
                let contents = std::mem::replace(data, Data::U8(Vec::new()));
                *data = contents.extended(count);
            }
        }
        self
    }

    pub(super) fn compare(
        &self,
        i: usize,
        before: &Data,
        after: &Data,
        guard: usize,
    ) -> Result<(), Difference> {
        if after.scalar() != before.scalar() || after.len() != before.len() {
            return Err(Difference(format!(" came back with {} elements", after.len())));
        }
        let length = before.len() - guard;
        let differs = |at: usize, wanted: f64| {
            let given = after.value(at);
            Err(Difference(format!("[{at}] is {given:e}, wanted {wanted:e}")))
        };
        if let Some(at) = (length..before.len()).find(|&at| after.value(at) != before.value(at)) {
            return Err(Difference(format!("[{at}] was written, past its end at {length}")));
        }
        match &self.expected[i] {
            Expectation::Unchanged => {
                let same = |at: &usize| Tolerance::EXACT.allows(before.value(*at), after.value(*at));
                (0..length).find(|at| !same(at)).map_or(Ok(()), |at| differs(at, before.value(at)))
            }
            Expectation::Values(wanted, tolerance) => {
                let exact = *tolerance == Tolerance::EXACT;
                let allowed = if exact { *tolerance } else { tolerance.with_rounding_to(after.scalar()) };
                let far = |at: &usize| !allowed.allows(wanted[*at], after.value(*at));
                (0..length).find(far).map_or(Ok(()), |at| differs(at, wanted[at]))
            }
        }
    }
}

/// Puts a case together by the names of the kernel's parameters.
pub(super) struct CaseOf<'k> {
    kernel: &'k Kernel,
    dims: Dims,
    about: &'static str,
    threads: u32,
    surplus: [u32; 3],
    given: Vec<(&'static str, Argument, Expectation)>,
}

impl<'k> CaseOf<'k> {
    pub(super) fn new(kernel: &'k Kernel, dims: &[(&'static str, usize)]) -> Self {
        let dims: Vec<_> = dims.iter().map(|&(name, value)| (name, value as u64)).collect();
        Self { kernel, dims: Dims::new(&dims), about: "", threads: 1024, surplus: [0; 3], given: Vec::new() }
    }

    /// One more dimension.
    pub(super) fn dim(mut self, name: &'static str, value: usize) -> Self {
        self.dims = self.dims.with(name, value as u64);
        self
    }

    pub(super) fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    /// At most this many threads a threadgroup.
    pub(super) fn threads(mut self, threads: u32) -> Self {
        self.threads = threads;
        self
    }

    /// One threadgroup more than the geometry's in dimension `i`.
    pub(super) fn surplus(mut self, i: usize) -> Self {
        self.surplus[i] = 1;
        self
    }

    /// A buffer that is only read.
    pub(super) fn read(mut self, name: &'static str, data: Data) -> Self {
        self.given.push((name, Argument::Buffer(data), Expectation::Unchanged));
        self
    }

    /// A buffer that is only written.
    pub(super) fn write(mut self, name: &'static str, wanted: Vec<f64>, tolerance: Tolerance) -> Self {
        let unwritten = Data::unwritten(scalar_of(self.kernel, name), wanted.len());
        let expected = Expectation::Values(wanted, tolerance);
        self.given.push((name, Argument::Buffer(unwritten), expected));
        self
    }

    /// A buffer that is read and written.
    pub(super) fn update(
        mut self,
        name: &'static str,
        before: Data,
        wanted: Vec<f64>,
        tolerance: Tolerance,
    ) -> Self {
        let expected = Expectation::Values(wanted, tolerance);
        self.given.push((name, Argument::Buffer(before), expected));
        self
    }

    pub(super) fn nil(mut self, name: &'static str) -> Self {
        self.given.push((name, Argument::Nil, Expectation::Unchanged));
        self
    }

    pub(super) fn float(mut self, name: &'static str, value: f32) -> Self {
        self.given.push((name, Argument::Float(value), Expectation::Unchanged));
        self
    }

    /// Hands the case over, unless the instance does not take these dimensions (as `_v4` those that 4 does not divide).
    pub(super) fn visit(mut self, visit: &mut dyn FnMut(Case)) {
        let limits = Limits { threads: self.threads, ..Limits::APPLE };
        if launch(&self.kernel.name, &self.dims, &limits).is_err() {
            return;
        }
        let mut case = Case {
            kernel: self.kernel.name.clone(),
            about: self.about,
            dims: self.dims.clone(),
            limits,
            surplus: self.surplus,
            arguments: Vec::new(),
            names: Vec::new(),
            expected: Vec::new(),
        };
        for (_, parameter) in crate::contract::bindable(self.kernel) {
            let name = &parameter.name;
            let given = self.given.iter().position(|(n, ..)| n == name);
            let (argument, expected) = match given {
                Some(i) => {
                    let (_, argument, expected) = self.given.swap_remove(i);
                    (argument, expected)
                }
                // What is not given is an integer constant, and so a dimension.
                None => {
                    let value = self.dims.get(name).ok().and_then(|v| i32::try_from(v).ok());
                    (Argument::Int(value.unwrap_or(i32::MIN)), Expectation::Unchanged)
                }
            };
            case.arguments.push(argument);
            case.names.push(name.clone());
            case.expected.push(expected);
        }
        visit(case);
    }
}

/// Element type of a kernel's buffer; F32 for names it does not have.
pub(super) fn scalar_of(kernel: &Kernel, name: &str) -> Scalar {
    let is_buffer = |role: &Role| matches!(role, Role::Buffer { .. });
    let found = kernel.parameters.iter().find(|p| p.name == name && is_buffer(&p.role));
    found.and_then(|p| Scalar::of_metal(&p.element)).unwrap_or(Scalar::F32)
}

/// `values` in the element type of the kernel's buffer `name`.
pub(super) fn stored(kernel: &Kernel, name: &str, values: &[f64]) -> Data {
    Data::store(scalar_of(kernel, name), values)
}
