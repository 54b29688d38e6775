//! What a model's thread counts.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use thermite_engine::scheduler::Status;

/// What a model's thread counts. The names, with their units, are those of `/metrics`.
pub(crate) struct ModelMetrics {
    running: Gauge,
    waiting: Gauge,
    blocks: Gauge,
    free_blocks: Gauge,
    steps: Counter,
    rows: Counter,
    reused: Counter,
    preemptions: Counter,
    pub(super) batch: Histogram,
    pub(super) first_token: Histogram,
    pub(super) between_tokens: Histogram,
    pub(super) prompt_tokens: Counter,
    pub(super) generated_tokens: Counter,
    pub(super) cancelled: Counter,
    pub(super) failed: Counter,
}

impl ModelMetrics {
    /// Those of `model`, in the recorder that is set.
    pub(crate) fn new(model: &str) -> Self {
        let label = || [("model", model.to_owned())];
        Self {
            running: gauge!("thermite_requests_running", &label()),
            waiting: gauge!("thermite_requests_waiting", &label()),
            blocks: gauge!("thermite_kv_blocks", &label()),
            free_blocks: gauge!("thermite_kv_blocks_free", &label()),
            steps: counter!("thermite_steps_total", &label()),
            rows: counter!("thermite_rows_total", &label()),
            reused: counter!("thermite_prefix_tokens_reused_total", &label()),
            preemptions: counter!("thermite_preemptions_total", &label()),
            batch: histogram!("thermite_batch_requests", &label()),
            first_token: histogram!("thermite_time_to_first_token_seconds", &label()),
            between_tokens: histogram!("thermite_inter_token_seconds", &label()),
            prompt_tokens: counter!("thermite_prompt_tokens_total", &label()),
            generated_tokens: counter!("thermite_generated_tokens_total", &label()),
            cancelled: counter!("thermite_requests_cancelled_total", &label()),
            failed: counter!("thermite_requests_failed_total", &label()),
        }
    }

    /// Takes the scheduler's own figures over.
    pub(super) fn observe(&self, status: &Status) {
        self.running.set(status.running as f64);
        self.waiting.set(status.waiting as f64);
        self.blocks.set(status.blocks as f64);
        self.free_blocks.set(status.free_blocks as f64);
        self.steps.absolute(status.steps);
        self.rows.absolute(status.rows);
        self.reused.absolute(status.reused_tokens);
        self.preemptions.absolute(status.preemptions);
    }
}
