//! How far a file has come.

use hf_hub::api::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// A line on the terminal, where there is one.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new(0);
        let line = "{wide_msg} {bytes}/{total_bytes} {bytes_per_sec} {eta:>4}";
        if let Ok(style) = ProgressStyle::with_template(line) {
            bar.set_style(style);
        }
        Self(bar)
    }
}

impl Progress for Bar {
    fn init(&mut self, size: usize, filename: &str) {
        self.0.set_length(size as u64);
        self.0.set_message(filename.to_owned());
        // what was there before counts for the position, not for the speed
        self.0.reset();
    }

    fn update(&mut self, size: usize) {
        self.0.inc(size as u64);
    }

    fn finish(&mut self) {
        self.0.finish();
    }
}
