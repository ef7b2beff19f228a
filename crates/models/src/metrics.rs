//! Names of the metrics, their descriptions, and handles made once for each model.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label, Unit};

use crate::ort::Device;

/// Requests that reached a model, by outcome-independent count.
pub const INFERENCE_REQUESTS: &str = "rag8s_inference_requests_total";
/// From the request's arrival at the replica to its answer.
pub const INFERENCE_LATENCY: &str = "rag8s_inference_latency_seconds";
/// Rows in a batch.
pub const BATCH_SIZE: &str = "ray_serve_actual_batch_size";
/// One engine run.
pub const BATCH_EXECUTION_TIME: &str = "ray_serve_batch_execution_time_ms";
/// A row's time in the queue.
pub const BATCH_WAIT_TIME: &str = "ray_serve_batch_wait_time_ms";
/// Rows in a batch, relative to the most there may be.
pub const BATCH_UTILIZATION: &str = "ray_serve_batch_utilization_percent";
/// Rows that wait.
pub const BATCH_QUEUE_LENGTH: &str = "ray_serve_batch_queue_length";
/// Engine runs.
pub const BATCHES_PROCESSED: &str = "ray_serve_batches_processed_total";

/// Sessions that are loaded, by the device on which they compute.
pub const SESSIONS: &str = "mobula_model_sessions";

/// Tells the recorder what each metric is.
pub fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!(
        INFERENCE_REQUESTS,
        "Requests that a model has answered or refused."
    );
    describe_histogram!(
        INFERENCE_LATENCY,
        Unit::Seconds,
        "Time from a request's arrival at the replica to its answer."
    );
    describe_histogram!(BATCH_SIZE, "Rows in a batch.");
    describe_histogram!(
        BATCH_EXECUTION_TIME,
        Unit::Milliseconds,
        "Duration of one engine run."
    );
    describe_histogram!(
        BATCH_WAIT_TIME,
        Unit::Milliseconds,
        "Time a row waits for an engine."
    );
    describe_histogram!(
        BATCH_UTILIZATION,
        Unit::Percent,
        "Rows in a batch relative to the most there may be."
    );
    describe_gauge!(BATCH_QUEUE_LENGTH, "Rows that wait for an engine.");
    describe_counter!(BATCHES_PROCESSED, "Engine runs.");
    describe_gauge!(SESSIONS, "Sessions of a replica's model on a device.");
}

/// Where a metric comes from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The application's name.
    pub application: String,
    /// The deployment's name.
    pub deployment: String,
    /// The replica's id.
    pub replica: String,
    /// What the batch is for: `embed`, `rerank`, `classify`.
    pub function: &'static str,
}

/// Handles of one engine's batch metrics.
pub struct BatchMetrics {
    size: Histogram,
    execution: Histogram,
    wait: Histogram,
    utilization: Histogram,
    queue: Gauge,
    batches: Counter,
    labels: Vec<Label>,
}

/// A session that is counted as long as this lives.
pub struct SessionCount(Gauge);

/// Handles of one model's request metrics.
pub struct RequestMetrics {
    requests: Counter,
    latency: Histogram,
}

// === impl BatchMetrics ===

impl BatchMetrics {
    /// Handles for an engine.
    pub fn new(origin: &Origin) -> BatchMetrics {
        let labels = || {
            vec![
                Label::new("application", origin.application.clone()),
                Label::new("deployment", origin.deployment.clone()),
                Label::new("replica", origin.replica.clone()),
                Label::new("function_name", origin.function),
            ]
        };
        BatchMetrics {
            size: metrics::histogram!(BATCH_SIZE, labels()),
            execution: metrics::histogram!(BATCH_EXECUTION_TIME, labels()),
            wait: metrics::histogram!(BATCH_WAIT_TIME, labels()),
            utilization: metrics::histogram!(BATCH_UTILIZATION, labels()),
            queue: metrics::gauge!(BATCH_QUEUE_LENGTH, labels()),
            batches: metrics::counter!(BATCHES_PROCESSED, labels()),
            labels: labels(),
        }
    }

    pub(crate) fn session(&self, device: Device) -> SessionCount {
        let mut labels = self.labels.clone();
        labels.push(Label::new("device", device.to_string()));
        let sessions = metrics::gauge!(SESSIONS, labels);
        sessions.increment(1.0);
        SessionCount(sessions)
    }

    pub(crate) fn queue_length(&self, rows: usize) {
        self.queue.set(rows as f64);
    }

    pub(crate) fn taken(&self, waits: &[Duration], utilization_percent: usize) {
        for wait in waits {
            self.wait.record(wait.as_secs_f64() * 1e3);
        }
        self.utilization.record(utilization_percent as f64);
    }

    pub(crate) fn batch(&self, rows: usize, took: Duration) {
        self.size.record(rows as f64);
        self.execution.record(took.as_secs_f64() * 1e3);
        self.batches.increment(1);
    }
}

impl Drop for SessionCount {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

// === impl RequestMetrics ===

impl RequestMetrics {
    /// Handles for a model.
    pub fn new(model: &str) -> RequestMetrics {
        let label = || vec![Label::new("model", model.to_owned())];
        RequestMetrics {
            requests: metrics::counter!(INFERENCE_REQUESTS, label()),
            latency: metrics::histogram!(INFERENCE_LATENCY, label()),
        }
    }

    pub(crate) fn answered(&self, took: Duration) {
        self.requests.increment(1);
        self.latency.record(took.as_secs_f64());
    }
}
