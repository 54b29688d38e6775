//! Decodes on an NVIDIA GPU for many steps, and tells speed and memory as it goes: neither may change.
//!
//! ```text
//! cargo run --release -p thermite-model --example steady -- SHAPE [STEPS [DEPTH [SEQUENCES]]]
//! ```
//!
//! SHAPE is one of `thermite bench --shape`, gpt2-124m say, with random bfloat16 weights.

#[cfg(all(feature = "cuda", any(target_os = "linux", target_os = "windows")))]
fn main() -> std::process::ExitCode {
    match steady::run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
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
mod steady {
    use std::error::Error;
    use std::fs;
    use std::time::Instant;

    use thermite_device::cuda::{Cuda, Options as CudaOptions};
    use thermite_device::{Batch, Device, Dtype, Outputs};
    use thermite_formats::DType;
    use thermite_model::random::Shape;
    use thermite_model::{DecodingRow, KvCache, Model, Options, Stepper};

    const BLOCK: usize = 16;
    /// Lines that are printed.
    const REPORTS: usize = 10;

    /// Bytes of this process in memory.
    fn resident() -> Option<usize> {
        let text = fs::read_to_string("/proc/self/statm").ok()?;
        text.split_whitespace().nth(1)?.parse::<usize>().ok().map(|pages| pages * 4096)
    }

    pub(super) fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
        let number = |i: usize, default: usize| args.get(i).map_or(Ok(default), |text| text.parse::<usize>());
        let (steps, depth, sequences) = (number(1, 200_000)?, number(2, 512)?, number(3, 1)?);
        let name = args.first().map_or("gpt2-124m", String::as_str);
        let shape = Shape::named(name).ok_or_else(|| format!("there is no shape {name}"))?;
        let device = Cuda::open(CudaOptions::default())?;
        let options =
            Options { max_outputs: sequences, max_rows: 512, context: Some(1024), ..Options::default() };
        let files = shape.model(DType::BF16)?;
        let mut model = Model::load(&files, device, options)?;
        drop(files);
        let blocks = model.context().div_ceil(BLOCK);
        let mut cache = KvCache::new(model.device(), model.config(), sequences * blocks, BLOCK, Dtype::F16)?;
        let tables: Vec<Vec<i32>> = (0..sequences)
            .map(|i| (i * blocks..(i + 1) * blocks).map(|block| block as i32).collect())
            .collect();
        let n_vocab = model.config().n_vocab;
        let tokens: Vec<u32> = (0..depth).map(|i| (i * 31 % n_vocab) as u32).collect();
        for table in &tables {
            let mut batch = Batch::default();
            batch.push(&tokens, 0, table, BLOCK, Outputs::Last)?;
            model.forward(&batch, &mut cache)?;
        }
        model.device().submit()?;

        let mut stepper = Stepper::new(&model, sequences)?;
        let (mut done, mut reported, mut since, mut begin) = (0, 0, 0, Instant::now());
        println!("{name}, {}, {sequences} sequences from position {depth} on", model.device().describe());
        println!("| steps | steps/s | bytes on the GPU | bytes of the process |\n|---|---|---|---|");
        while done < steps {
            let rows: Vec<_> =
                tables.iter().map(|blocks| DecodingRow { token: 1, position: depth, blocks }).collect();
            stepper.start(&model, &rows, &cache)?;
            let run = (steps - done).min(stepper.room()).min(256);
            let mark = stepper.run(&mut model, &mut cache, run)?;
            let mut last = [0];
            stepper.read(&model, &mark, 0, 0, &mut last)?;
            done += run;
            if done * REPORTS / steps > reported {
                reported = done * REPORTS / steps;
                let rate = (done - since) as f64 / begin.elapsed().as_secs_f64();
                let used = model.device().launcher().memory_used()?;
                println!("| {done} | {rate:.0} | {used} | {} |", resident().unwrap_or(0));
                (since, begin) = (done, Instant::now());
            }
        }
        Ok(())
    }
}
