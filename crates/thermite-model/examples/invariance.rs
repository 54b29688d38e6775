//! Whether logits on an NVIDIA GPU are the same bits from run to run, and with the batch-invariant kernels whatever the batch
//! and however a prompt is cut.
//!
//! ```text
//! cargo run --release -p thermite-model --example invariance -- SHAPE
//! ```
//!
//! SHAPE is one of `thermite bench --shape`, smollm2-135m say, with random bfloat16 weights. Prints a table; fails where bits
//! differ that must not.

#[cfg(all(feature = "cuda", any(target_os = "linux", target_os = "windows")))]
fn main() -> std::process::ExitCode {
    match invariance::run(std::env::args().nth(1).as_deref().unwrap_or("smollm2-135m")) {
        Ok(0) => std::process::ExitCode::SUCCESS,
        Ok(differing) => {
            eprintln!("{differing} rows differ");
            std::process::ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(all(feature = "cuda", any(target_os = "linux", target_os = "windows"))))]
fn main() {
    eprintln!("built without CUDA");
}

#[cfg(all(feature = "cuda", any(target_os = "linux", target_os = "windows")))]
mod invariance {
    use std::error::Error;

    use thermite_device::cuda::{Cuda, Options as CudaOptions};
    use thermite_device::launched::Variants;
    use thermite_device::{Batch, Device, Dtype, Outputs};
    use thermite_formats::DType;
    use thermite_model::random::Shape;
    use thermite_model::{KvCache, Model, Options};

    const BLOCK: usize = 16;
    /// Tokens of the longest prompt, decoding steps behind each, sequences at most.
    const PROMPT: usize = 200;
    const STEPS: usize = 8;
    const MOST: usize = 64;

    type Result<T> = std::result::Result<T, Box<dyn Error>>;
    /// Logits of a sequence: of its prompt's last token, and of each step behind it.
    type Rows = Vec<Vec<u32>>;

    struct Runner {
        model: Model<Cuda>,
        cache: KvCache<Cuda>,
    }

    impl Runner {
        fn open(shape: &Shape, variants: Variants) -> Result<Self> {
            let device = Cuda::open(CudaOptions { variants, ..CudaOptions::default() })?;
            let options =
                Options { max_outputs: MOST, max_rows: 512, context: Some(256), ..Options::default() };
            let model = Model::load(&shape.model(DType::BF16)?, device, options)?;
            let blocks = MOST * model.context().div_ceil(BLOCK);
            let cache = KvCache::new(model.device(), model.config(), blocks, BLOCK, Dtype::F16)?;
            Ok(Self { model, cache })
        }

        /// Runs the tokens of each sequence from its position on; the logits of the last of each.
        fn forward(&mut self, spans: &[(usize, &[u32], usize)]) -> Result<Rows> {
            let each = self.model.context().div_ceil(BLOCK);
            let mut batch = Batch::default();
            for &(sequence, tokens, start) in spans {
                let blocks: Vec<i32> = (0..each).rev().map(|i| (i * MOST + sequence) as i32).collect();
                batch.push(tokens, start, &blocks, BLOCK, Outputs::Last)?;
            }
            self.model.forward(&batch, &mut self.cache)?;
            let mut logits = vec![0.0; self.model.config().n_vocab];
            (0..spans.len())
                .map(|row| {
                    self.model.read_logits(row, &mut logits)?;
                    Ok(logits.iter().map(|x| x.to_bits()).collect())
                })
                .collect()
        }

        /// Prompts one after the other in chunks, then all sequences step by step together.
        fn sequences(&mut self, count: usize, chunk: usize) -> Result<Vec<Rows>> {
            let n_vocab = self.model.config().n_vocab as u32;
            let mut all = Vec::new();
            for sequence in 0..count {
                let prompt = prompt(sequence, n_vocab);
                let mut last = Vec::new();
                for (i, part) in prompt.chunks(chunk).enumerate() {
                    last = self.forward(&[(sequence, part, i * chunk)])?;
                }
                all.push(last);
            }
            for step in 0..STEPS {
                let tokens: Vec<_> = (0..count).map(|i| [(step * 131 + i * 7) as u32 % n_vocab]).collect();
                let spans: Vec<_> = tokens
                    .iter()
                    .enumerate()
                    .map(|(i, token)| (i, &token[..], prompt(i, n_vocab).len() + step))
                    .collect();
                let rows = self.forward(&spans)?;
                all.iter_mut().zip(rows).for_each(|(rows, row)| rows.push(row));
            }
            Ok(all)
        }
    }

    /// The first is the longest.
    fn prompt(sequence: usize, n_vocab: u32) -> Vec<u32> {
        let len = if sequence == 0 { PROMPT } else { 1 + sequence * 37 % PROMPT };
        (0..len as u32).map(|i| (i * i * 31 + i * 7 + sequence as u32 * 977) % n_vocab).collect()
    }

    /// Prints a line; how many rows of the first sequences differ.
    fn compare(what: &str, want: &[Rows], have: &[Rows]) -> usize {
        let pairs = || want.iter().flatten().zip(have.iter().flatten());
        let differing = pairs().filter(|(want, have)| want != have).count();
        println!("| {what} | {} | {differing} |", pairs().count());
        differing
    }

    pub(super) fn run(name: &str) -> Result<usize> {
        let shape = Shape::named(name).ok_or_else(|| format!("there is no shape {name}"))?;
        let mut differing = 0;
        let mut fast = Runner::open(&shape, Variants::Fast)?;
        println!("{name}, {}", fast.model.device().describe());
        println!("| logits | rows | that differ |\n|---|---|---|");
        for count in [1, 7, 64] {
            let first = fast.sequences(count, 64)?;
            let again = fast.sequences(count, 64)?;
            differing += compare(&format!("{count} sequences, run to run"), &first, &again);
        }
        drop(fast);
        let mut invariant = Runner::open(&shape, Variants::Invariant)?;
        let alone = invariant.sequences(1, PROMPT)?;
        for (count, chunk) in [(1, 1), (1, 7), (1, 64), (7, 64), (64, 64), (64, 7)] {
            let have = invariant.sequences(count, chunk)?;
            let what =
                format!("batch-invariant: the first of {count} in chunks of {chunk}, and alone in one");
            differing += compare(&what, &alone, &have);
        }
        let (first, again) = (invariant.sequences(64, 64)?, invariant.sequences(64, 3)?);
        differing += compare("batch-invariant: all of 64, in chunks of 64 and of 3", &first, &again);
        Ok(differing)
    }
}
