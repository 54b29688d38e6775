//! What the server counts, for Prometheus.

use std::fmt;
use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
    with_local_recorder,
};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::worker::ModelMetrics;

/// Bounds of the buckets of times, in seconds.
const SECONDS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 120.0,
];

/// Bounds of the buckets of requests in a batch.
const REQUESTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

const GAUGES: &[(&str, &str)] = &[
    ("thermite_requests_running", "Requests that are computed"),
    ("thermite_requests_waiting", "Requests that wait to be computed"),
    ("thermite_kv_blocks", "Blocks of the KV cache"),
    ("thermite_kv_blocks_free", "Blocks of the KV cache in no sequence"),
    ("thermite_http_connections", "Open connections"),
];

const COUNTERS: &[(&str, &str)] = &[
    ("thermite_steps_total", "Batches that were run"),
    ("thermite_rows_total", "Rows of those batches: tokens of prompts and chosen ones"),
    ("thermite_prefix_tokens_reused_total", "Tokens of prompts that were found in the cache"),
    ("thermite_preemptions_total", "Times that a request gave its blocks back, to be computed again"),
    ("thermite_prompt_tokens_total", "Tokens of prompts that were read"),
    ("thermite_generated_tokens_total", "Tokens that were chosen"),
    ("thermite_requests_cancelled_total", "Requests whose client went away"),
    ("thermite_requests_failed_total", "Requests that the engine failed"),
    ("thermite_http_requests_total", "Answers by method, route and status"),
];

const HISTOGRAMS: &[(&str, Unit, &str)] = &[
    ("thermite_batch_requests", Unit::Count, "Requests that a step chose a token for"),
    ("thermite_time_to_first_token_seconds", Unit::Seconds, "From a request to its first token"),
    ("thermite_inter_token_seconds", Unit::Seconds, "From a request's token to its next"),
    ("thermite_http_request_seconds", Unit::Seconds, "From a request to the head of its answer"),
];

/// What the server counts. Each server has counters of its own.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Metrics {
    /// How often histograms are folded: in between, each value takes memory.
    pub(crate) const UPKEEP: Duration = Duration::from_secs(1);

    /// Counters at zero.
    ///
    /// # Errors
    /// Buckets that are none.
    pub(crate) fn new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
            .set_buckets_for_metric(Matcher::Full("thermite_batch_requests".to_owned()), REQUESTS)?
            .build_recorder();
        with_local_recorder(&recorder, || {
            GAUGES.iter().for_each(|&(name, help)| describe_gauge!(name, help));
            COUNTERS.iter().for_each(|&(name, help)| describe_counter!(name, help));
            HISTOGRAMS.iter().for_each(|&(name, unit, help)| describe_histogram!(name, unit, help));
        });
        let handle = recorder.handle();
        Ok(Self { recorder, handle })
    }

    /// The counters of a model.
    pub(crate) fn of_model(&self, id: &str) -> ModelMetrics {
        with_local_recorder(&self.recorder, || ModelMetrics::new(id))
    }

    /// Takes note of an answer.
    pub(crate) fn answered(&self, method: &'static str, route: String, status: u16, after: Duration) {
        with_local_recorder(&self.recorder, || {
            histogram!("thermite_http_request_seconds", "route" => route.clone()).record(after);
            let labels = [("method", method.to_owned()), ("route", route), ("status", status.to_string())];
            counter!("thermite_http_requests_total", &labels).increment(1);
        });
    }

    /// The number of open connections.
    pub(crate) fn connections(&self) -> metrics::Gauge {
        with_local_recorder(&self.recorder, || gauge!("thermite_http_connections"))
    }

    /// Folds what histograms have gathered.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// All of it, in the text format of Prometheus.
    pub(crate) fn render(&self) -> String {
        self.handle.render()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
