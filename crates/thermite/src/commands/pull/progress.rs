//! How far a file has come.

use indicatif::{ProgressBar, ProgressStyle};

/// A line on the terminal, where there is one.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// For a file of `size` bytes.
    pub(super) fn new(file: &str, size: u64) -> Self {
        let bar = ProgressBar::new(size).with_message(file.to_owned());
        let line = "{wide_msg} {bytes}/{total_bytes} {bytes_per_sec} {eta:>4}";
        if let Ok(style) = ProgressStyle::with_template(line) {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// What was there before counts for the position, not for the speed.
    pub(super) fn begin_at(&self, bytes: u64) {
        self.0.set_position(bytes);
        self.0.reset_eta();
    }

    pub(super) fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    pub(super) fn finish(&self) {
        self.0.finish();
    }
}
