//! How long launches take, beside what the machine's memory and its vendor's product reach in the same run.
//!
//! Data is random. Launches of one kernel go round several sets of buffers, together larger than any cache, unless one set
//! is; what a launch takes once its own set is cached is measured apart. Launches are queued together, as one recording
//! where the machine records; a sample is the time on the clock from the first to the end of the last, over their number;
//! a figure is the median of the samples. So launches may overlap as they do at work, and what a single one waits for is in it.

use std::time::{Duration, Instant};

use thermite_kernels::catalogue;
use thermite_kernels::contract::{Access, Dims, Scalar, contract_of};
use thermite_kernels::syntax::Role;

use super::{Argument, Launched, LaunchedMatrix, Launcher, Product, scalar, whole};
use crate::{Dtype, Error, Result};

/// Sets of buffers are made until they have so many bytes together, more than the cache of any GPU, or until there are
/// `MOST_SETS`.
const ROUND: u64 = 512 << 20;
const MOST_SETS: u64 = 24;
/// A set of so many bytes or fewer is also measured alone.
const CACHED: u64 = 48 << 20;
/// Samples of a figure, and how long each lasts at least.
const SAMPLES: usize = 15;
const SAMPLE: Duration = Duration::from_millis(2);
const MOST_LAUNCHES: usize = 400;

/// A kernel at one size.
#[derive(Debug, Clone)]
pub struct Work {
    /// Kernel or instance.
    pub kernel: String,
    /// The size, for people.
    pub size: String,
    /// Its dimensions.
    pub dims: Vec<(&'static str, usize)>,
    /// Its float constants, in their order.
    pub floats: Vec<f32>,
    /// Additions, multiplications, comparisons, exponentials and the like of a launch, a fused multiply-add as two.
    pub operations: f64,
    /// Whether its products could run on matrix units.
    pub matrix: bool,
}

/// What was measured of one [`Work`].
#[derive(Debug, Clone)]
pub struct Figure {
    /// What was measured.
    pub work: Work,
    /// Seconds a launch.
    pub seconds: f64,
    /// The same with its buffers in the cache, where they are small.
    pub cached: Option<f64>,
    /// Bytes a launch must read and write: every input once, every output once.
    pub read: u64,
    /// Of these, those written.
    pub written: u64,
}

impl Figure {
    /// Bytes a second.
    #[must_use]
    pub fn bandwidth(&self) -> f64 {
        (self.read + self.written) as f64 / self.seconds
    }

    /// Operations a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.work.operations / self.seconds
    }
}

/// What the machine reaches with the simplest work, in the same run.
#[derive(Debug, Clone, Copy)]
pub struct Ceilings {
    /// Bytes a second of an addition, which reads two arrays and writes one.
    pub add: f64,
    /// Bytes a second, read.
    pub read: f64,
    /// Operations a second of the vendor's product of bfloat16 matrices of 8,192 x 8,192; none without one.
    pub product: Option<f64>,
}

impl<L: Launcher> Launched<L> {
    /// Measures one kernel.
    ///
    /// # Errors
    /// Where memory is short, or a launch fails.
    pub fn bench(&self, work: &Work) -> Result<Figure> {
        let (read, written) = traffic(work)?;
        let sets = ROUND.div_ceil((read + written).max(1)).min(MOST_SETS);
        let mut buffers = Vec::new();
        for seed in 0..sets {
            buffers.push(self.buffers(work, seed)?);
        }
        let run = |set: usize| {
            let set: Vec<_> = buffers[set % buffers.len()]
                .iter()
                .map(|b| b.as_ref().map_or(Argument::Nil, whole))
                .collect();
            self.run(&work.kernel, &work.dims, &set, &work.floats)
        };
        let seconds = self.time(&run)?;
        let cached = if read + written <= CACHED { Some(self.time(&|_| run(0))?) } else { None };
        Ok(Figure { work: work.clone(), seconds, cached, read, written })
    }

    /// Measures what to compare with.
    ///
    /// # Errors
    /// As [`Launched::bench`].
    pub fn ceilings(&self) -> Result<Ceilings> {
        let add = Work {
            kernel: "residual_add_v4".to_owned(),
            size: String::new(),
            dims: vec![("N", 1 << 28)],
            floats: Vec::new(),
            operations: 0.0,
            matrix: false,
        };
        let read = Work {
            kernel: "matvec_bf16_rows4".to_owned(),
            dims: vec![("N", 1), ("K", 4096), ("M", 1 << 18)],
            ..add.clone()
        };
        Ok(Ceilings {
            add: self.bench(&add)?.bandwidth(),
            read: self.bench(&read)?.bandwidth(),
            product: self.vendors_product()?,
        })
    }

    /// Operations a second of the vendor's product.
    fn vendors_product(&self) -> Result<Option<f64>> {
        const SIDE: usize = 8192;
        let random = |seed| self.random(Dtype::BF16, SIDE * SIDE, seed);
        let (dtype, stored) = (Dtype::BF16, Dtype::BF16.into());
        let weight =
            LaunchedMatrix { buffer: random(1)?, dtype, stored, rows: SIDE, cols: SIDE, adopted: false };
        let (x, out) = (random(2)?, self.launcher.alloc(Dtype::F32, SIDE * SIDE)?);
        let product = Product { x: &x, weight: &weight, bias: None, accumulates: false, out: &out, n: SIDE };
        let Some(first) = self.launcher.product(&product) else { return Ok(None) };
        first?;
        let seconds = self.time(&|_| self.launcher.product(&product).unwrap_or(Ok(())))?;
        Ok(Some(2.0 * (SIDE as f64).powi(3) / seconds))
    }

    /// Seconds of one `run(i)` among many in the queue.
    fn time(&self, run: &dyn Fn(usize) -> Result<()>) -> Result<f64> {
        let several = |count: usize| (0..count).try_for_each(run);
        let on_the_clock = |work: &dyn Fn() -> Result<()>| {
            let start = Instant::now();
            work()?;
            self.launcher.submit()?;
            Ok::<_, Error>(start.elapsed())
        };
        several(4)?; // compiles, chooses, warms up
        self.launcher.submit()?;
        let first = on_the_clock(&|| several(4))?.max(Duration::from_nanos(1)) / 4;
        let count = (SAMPLE.as_nanos() / first.as_nanos().max(1)).clamp(1, MOST_LAUNCHES as u128) as usize;
        let recording = if count > 1 { self.launcher.record(&mut || several(count))? } else { None };
        let (mut samples, repeats) = (Vec::new(), if count == MOST_LAUNCHES { 4 } else { 1 });
        for _ in 0..=SAMPLES {
            let took = on_the_clock(&|| match &recording {
                Some(recording) => (0..repeats).try_for_each(|_| self.launcher.replay(recording)),
                None => (0..repeats).try_for_each(|_| several(count)),
            })?;
            samples.push(took.as_secs_f64() / (repeats * count) as f64);
        }
        samples.remove(0); // the first uploads the recording
        samples.sort_by(f64::total_cmp);
        Ok(samples[SAMPLES / 2])
    }

    /// One set of buffers, in the order of the contract; none where the kernel takes nil.
    fn buffers(&self, work: &Work, seed: u64) -> Result<Vec<Option<L::Buffer>>> {
        let random = |(i, binding): (usize, Binding)| match binding {
            Binding { optional: true, .. } => Ok(None),
            Binding { dtype, length, .. } => self.random(dtype, length, seed * 31 + i as u64).map(Some),
        };
        bindings(work)?.into_iter().enumerate().map(random).collect()
    }

    /// Random numbers between -1 and 1; zeros of an integer type.
    fn random(&self, dtype: Dtype, length: usize, seed: u64) -> Result<L::Buffer> {
        const BLOCK: usize = 1 << 22;
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut bytes = Vec::with_capacity(length.min(BLOCK) * dtype.bytes());
        for _ in 0..length.min(BLOCK) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let x = (state >> 40) as f32 / (1 << 23) as f32 - 1.0;
            match dtype {
                Dtype::F32 => bytes.extend_from_slice(&x.to_le_bytes()),
                Dtype::F16 => bytes.extend_from_slice(&half::f16::from_f32(x).to_le_bytes()),
                Dtype::BF16 => bytes.extend_from_slice(&half::bf16::from_f32(x).to_le_bytes()),
                Dtype::I32 | Dtype::U32 => bytes.extend_from_slice(&[0; 4]),
                Dtype::U8 | Dtype::Q8_0 => bytes.resize(bytes.len() + dtype.bytes(), 0),
            }
        }
        let mut buffer = self.launcher.alloc(dtype, length)?;
        let whole = length * dtype.bytes();
        while bytes.len() < whole {
            bytes.extend_from_within(..bytes.len().min(whole - bytes.len()));
        }
        self.launcher.write(&mut buffer, &bytes)?;
        Ok(buffer)
    }
}

struct Binding {
    dtype: Dtype,
    length: usize,
    access: Access,
    optional: bool,
}

/// The buffers that a kernel wants at these dimensions.
fn bindings(work: &Work) -> Result<Vec<Binding>> {
    let failed = |reason: String| Error::Launch { kernel: work.kernel.clone(), reason };
    let found = catalogue::find(&work.kernel).map_err(|e| failed(e.to_string()))?;
    let kernel = &found.ok_or_else(|| failed("there is no such kernel".to_owned()))?.kernel;
    let contract = contract_of(&kernel.name).ok_or_else(|| failed("it has no contract".to_owned()))?;
    let dims: Vec<_> = work.dims.iter().map(|&(name, value)| (name, value as u64)).collect();
    let dims = Dims::new(&dims);
    let mut all = Vec::new();
    for rule in contract.buffers {
        let parameter = kernel.parameters.iter().find(|p| p.name == rule.name);
        let element = parameter.filter(|p| matches!(p.role, Role::Buffer { .. })).map(|p| p.element.as_str());
        let types = [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::I32, Dtype::U32, Dtype::U8];
        let of_metal = element.and_then(Scalar::of_metal);
        let dtype = types.into_iter().find(|&dtype| Some(scalar(dtype)) == of_metal);
        let dtype = dtype.ok_or_else(|| failed(format!("{} has no type that is known", rule.name)))?;
        let length = rule.length(&dims).map_err(|e| failed(e.to_string()))?;
        let length = usize::try_from(length).map_err(|e| failed(e.to_string()))?;
        all.push(Binding { dtype, length, access: rule.access, optional: rule.optional });
    }
    Ok(all)
}

/// Bytes that a launch must read, and write.
fn traffic(work: &Work) -> Result<(u64, u64)> {
    let (mut read, mut written) = (0, 0);
    for binding in bindings(work)?.iter().filter(|binding| !binding.optional) {
        let bytes = (binding.length * binding.dtype.bytes()) as u64;
        read += if binding.access == Access::Write { 0 } else { bytes };
        written += if binding.access == Access::Read { 0 } else { bytes };
    }
    Ok((read, written))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_counts_each_input_and_output_once() {
        let work = Work {
            kernel: "residual_rmsnorm_v4".to_owned(),
            size: String::new(),
            dims: vec![("N", 10), ("C", 8)],
            floats: vec![1e-5],
            operations: 0.0,
            matrix: false,
        };
        // residual twice, x, gamma, out
        assert_eq!(traffic(&work).unwrap(), (4 * (80 + 80 + 8), 4 * (80 + 80)));
        let product =
            Work { kernel: "matvec_bf16".to_owned(), dims: vec![("N", 1), ("K", 8), ("M", 3)], ..work };
        assert_eq!(traffic(&product).unwrap(), (4 * 8 + 2 * 24, 4 * 3));
    }
}
