//! `thermite eval`.

use indicatif::{ProgressBar, ProgressStyle};
use thermite_device::Device;
use thermite_engine::{Engine, EngineOptions, open_model, windows_of};

use crate::cli::EvalArgs;
use crate::error::Error;
use crate::open::on_device;
use crate::output::{print, print_json, read_text};

/// Tokens of a window, if nothing is said of it.
const WINDOW: usize = 512;

/// Floats of logits that are held at once: 64 MiB.
const LOGITS: usize = 16 << 20;

pub(crate) fn run(args: &EvalArgs) -> Result<(), Error> {
    let text = read_text(&args.file)?;
    on_device!(&args.model.run, |device| eval(args, &text, device))
}

fn eval<D: Device>(args: &EvalArgs, text: &str, device: D) -> Result<(), Error> {
    let files = open_model(&args.model.model)?;
    let options = args.model.run.options();
    // as many rows of logits as fit, for the largest vocabularies there are
    let max_outputs = options.chunk.clamp(1, LOGITS >> 18);
    let options = EngineOptions { max_outputs, ..options };
    let mut engine = Engine::load(&files, device, &options)?;
    let tokens = engine.encode(text)?;
    let window = args.window.unwrap_or(WINDOW.min(engine.context()));
    let bar = ProgressBar::new(windows_of(tokens.len(), window) as u64).with_style(style());
    let result = engine.evaluate(&tokens, window, |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    if args.json {
        return print_json(&result);
    }
    print(&format!(
        "nll {:.6} | perplexity {:.4} | {} of {} tokens scored, in {} windows of {}\n",
        result.nll, result.perplexity, result.scored, result.tokens, result.windows, result.window,
    ))
}

fn style() -> ProgressStyle {
    let template = "{wide_bar} window {pos}/{len}, {eta} left";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
