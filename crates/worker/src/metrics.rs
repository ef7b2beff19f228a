//! The metrics of a replica, with Ray Serve's names and labels. Handles are made once per
//! replica; a call only adds numbers.
//!
//! Not here: the recorder and its buckets (`mobula_process::metrics`).

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use mobula_process::metrics::ReplicaSeries;

/// Calls that a replica answered or failed.
pub const REQUESTS_TOTAL: &str = "ray_serve_deployment_request_counter_total";
/// Calls that failed in the replica's code.
pub const ERRORS_TOTAL: &str = "ray_serve_deployment_error_counter_total";
/// From the permit to the last byte of the answer.
pub const PROCESSING_LATENCY_MS: &str = "ray_serve_deployment_processing_latency_ms";
/// Calls in progress.
pub const PROCESSING_QUERIES: &str = "ray_serve_replica_processing_queries";
/// Replicas that became ready.
pub const REPLICA_STARTS_TOTAL: &str = "ray_serve_deployment_replica_starts_total";

/// Tells the recorder what the metrics are; once per process.
pub fn describe() {
    describe_counter!(REQUESTS_TOTAL, "calls that a replica answered or failed");
    describe_counter!(ERRORS_TOTAL, "calls that failed in the replica's code");
    describe_histogram!(
        PROCESSING_LATENCY_MS,
        Unit::Milliseconds,
        "time from the permit to the last byte of the answer"
    );
    describe_gauge!(PROCESSING_QUERIES, "calls in progress");
    describe_counter!(REPLICA_STARTS_TOTAL, "replicas that became ready");
}

/// Why a call failed, as the label `exception_type`: a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The code returned an error.
    Error,
    /// The code panicked.
    Panic,
}

/// One replica's handles.
pub(crate) struct ReplicaMetrics {
    /// Whose they are, also for logs.
    pub replica: String,
    requests: Counter,
    errors: Counter,
    panics: Counter,
    latency_ms: Histogram,
    processing: Gauge,
    starts: Counter,
    _series: ReplicaSeries,
}

// === impl ReplicaMetrics ===

impl ReplicaMetrics {
    pub(crate) fn new(
        application: &str,
        deployment: &str,
        replica: &str,
        route: &str,
    ) -> ReplicaMetrics {
        // Before the first handle, so that there is no moment in which nobody holds them.
        let series = ReplicaSeries::hold(replica);
        let place = [
            ("application", application.to_owned()),
            ("deployment", deployment.to_owned()),
            ("replica", replica.to_owned()),
        ];
        let mut routed = place.to_vec();
        routed.push(("route", route.to_owned()));
        let failed = |exception_type: &str| {
            let mut labels = routed.clone();
            labels.push(("exception_type", exception_type.to_owned()));
            counter!(ERRORS_TOTAL, &labels)
        };
        ReplicaMetrics {
            replica: replica.to_owned(),
            requests: counter!(REQUESTS_TOTAL, &routed),
            errors: failed("CallError"),
            panics: failed("panic"),
            latency_ms: histogram!(PROCESSING_LATENCY_MS, &routed),
            processing: gauge!(PROCESSING_QUERIES, &place),
            starts: counter!(REPLICA_STARTS_TOTAL, &place),
            _series: series,
        }
    }

    pub(crate) fn started(&self) {
        self.starts.increment(1);
    }

    pub(crate) fn call_began(&self) {
        self.processing.increment(1.0);
    }

    pub(crate) fn call_ended(&self, took: Duration, failure: Option<Failure>) {
        self.processing.decrement(1.0);
        self.requests.increment(1);
        self.latency_ms.record(took.as_secs_f64() * 1000.0);
        match failure {
            None => {}
            Some(Failure::Error) => self.errors.increment(1),
            Some(Failure::Panic) => self.panics.increment(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn a_replicas_series_have_rays_names_and_labels() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            describe();
            let metrics = ReplicaMetrics::new("app", "Embedder", "abcd1234", "/embed");
            metrics.started();
            metrics.call_began();
            metrics.call_began();
            metrics.call_ended(Duration::from_millis(3), None);
            metrics.call_began();
            metrics.call_ended(Duration::from_millis(4), Some(Failure::Panic));
        });
        let text = recorder.handle().render();
        let place = r#"application="app",deployment="Embedder",replica="abcd1234""#;
        for line in [
            format!("{REQUESTS_TOTAL}{{{place},route=\"/embed\"}} 2"),
            format!("{ERRORS_TOTAL}{{{place},route=\"/embed\",exception_type=\"panic\"}} 1"),
            format!("{PROCESSING_LATENCY_MS}_count{{{place},route=\"/embed\"}} 2"),
            format!("{PROCESSING_QUERIES}{{{place}}} 1"),
            format!("{REPLICA_STARTS_TOTAL}{{{place}}} 1"),
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
    }
}
