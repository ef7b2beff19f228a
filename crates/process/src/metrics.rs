//! The process's metrics recorder, and joining the expositions of several processes into one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use metrics::{describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use thiserror::Error;

use crate::recorders::Recorders;
pub use crate::recorders::ReplicaSeries;
use crate::release;

/// Gauge, always 1: version, commit, protocol.
pub const BUILD_INFO: &str = "mobula_build_info";

/// Gauge, seconds since 1970: when the certificate in force ends, by credential.
pub const CERTIFICATE_EXPIRY: &str = "mobula_certificate_expiry_timestamp_seconds";
/// Gauge, 0 or 1: whether the files of a credential held what can be used when last looked at.
pub const RELOAD_SUCCESSFUL: &str = "mobula_credential_last_reload_successful";
/// Counter: changed files, by credential and outcome (taken, refused).
pub const RELOADS: &str = "mobula_credential_reloads_total";

/// Ray's latency buckets in milliseconds.
pub const LATENCY_BUCKETS_MS: [f64; 19] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 300.0, 400.0, 500.0, 1000.0, 2000.0, 5000.0,
    10_000.0, 60_000.0, 120_000.0, 300_000.0, 600_000.0,
];

/// Buckets for histograms in seconds: Prometheus' defaults with one below and two above.
pub const LATENCY_BUCKETS_S: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Buckets for batch sizes and other counts.
pub const COUNT_BUCKETS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Buckets for shares in percent.
pub const PERCENT_BUCKETS: [f64; 10] =
    [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0];

/// Renders what was recorded.
#[derive(Clone)]
pub struct MetricsHandle(Arc<Recorders>);

/// Metrics cannot be recorded.
#[derive(Debug, Error)]
pub enum MetricsError {
    /// Buckets or labels are refused.
    #[error("{0}")]
    Build(#[from] BuildError),
    /// A process has one recorder.
    #[error("a recorder was installed before")]
    Installed,
}

impl MetricsHandle {
    /// The process's metrics in the Prometheus text format.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Drains histogram samples into their buckets, and lets series of replicas go that are gone;
    /// call it every few seconds, or the samples pile up until somebody renders.
    pub fn upkeep(&self) {
        self.0.upkeep(Instant::now());
    }
}

/// Installs the process's recorder and says which release it is. `labels` are put on every
/// series.
///
/// # Errors
/// When a recorder was installed before.
pub fn install(labels: &[(&str, &str)]) -> Result<MetricsHandle, MetricsError> {
    let recorders = recorders(labels)?;
    metrics::set_global_recorder(Arc::clone(&recorders)).map_err(|_| MetricsError::Installed)?;
    recorders.installed();
    describe_gauge!(BUILD_INFO, "Always 1: which release the process is.");
    let build = [
        ("version", release::VERSION.to_owned()),
        ("commit", release::commit().to_owned()),
        ("protocol", release::PROTOCOL.to_string()),
    ];
    gauge!(BUILD_INFO, &build).set(1.0);
    describe_gauge!(CERTIFICATE_EXPIRY, "When the certificate in force ends.");
    describe_gauge!(
        RELOAD_SUCCESSFUL,
        "Whether the files hold what can be used."
    );
    describe_counter!(RELOADS, "Files that changed, by what became of them.");
    Ok(MetricsHandle(recorders))
}

/// A handle whose recorder is not installed, for tests that bring several roles up in one
/// process.
///
/// # Errors
/// When the buckets are refused.
pub fn detached(labels: &[(&str, &str)]) -> Result<MetricsHandle, MetricsError> {
    Ok(MetricsHandle(recorders(labels)?))
}

fn recorders(labels: &[(&str, &str)]) -> Result<Arc<Recorders>, MetricsError> {
    let process = builder(labels)?.build_recorder();
    let labels: Vec<(String, String)> = labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let build = move || {
        let labels: Vec<_> = labels
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        // It was built once before.
        Some(builder(&labels).ok()?.build_recorder())
    };
    Ok(Recorders::new(process, Box::new(build)))
}

fn builder(labels: &[(&str, &str)]) -> Result<PrometheusBuilder, BuildError> {
    let suffix = |text: &str| Matcher::Suffix(text.to_owned());
    let mut builder = PrometheusBuilder::new()
        .set_buckets_for_metric(suffix("_ms"), &LATENCY_BUCKETS_MS)?
        .set_buckets_for_metric(suffix("_seconds"), &LATENCY_BUCKETS_S)?
        .set_buckets_for_metric(suffix("_size"), &COUNT_BUCKETS)?
        .set_buckets_for_metric(suffix("_percent"), &PERCENT_BUCKETS)?;
    for (name, value) in labels {
        builder = builder.add_global_label(*name, *value);
    }
    Ok(builder)
}

/// Joins the text expositions of several processes. The format wants all series of one name
/// together under one `# HELP` and `# TYPE`; the processes tell their series apart by labels.
pub fn merge_expositions(texts: &[String]) -> String {
    let mut families: BTreeMap<&str, Family<'_>> = BTreeMap::new();
    for text in texts {
        let mut family = "";
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            match comment_of(line) {
                Some((kind, name)) => {
                    family = name;
                    let entry = families.entry(name).or_default();
                    let slot = if kind == "HELP" {
                        &mut entry.help
                    } else {
                        &mut entry.kind
                    };
                    slot.get_or_insert(line);
                }
                None => families
                    .entry(family_of(family, line))
                    .or_default()
                    .series
                    .push(line),
            }
        }
    }
    let mut merged = String::with_capacity(texts.iter().map(String::len).sum());
    for family in families.values() {
        for line in family
            .help
            .iter()
            .chain(family.kind.iter())
            .chain(family.series.iter())
        {
            // Writing to a String cannot fail.
            let _ = writeln!(merged, "{line}");
        }
        merged.push('\n');
    }
    merged
}

#[derive(Default)]
struct Family<'a> {
    help: Option<&'a str>,
    kind: Option<&'a str>,
    series: Vec<&'a str>,
}

fn comment_of(line: &str) -> Option<(&str, &str)> {
    let mut words = line.strip_prefix("# ")?.split(' ');
    match (words.next(), words.next()) {
        (Some(kind @ ("HELP" | "TYPE")), Some(name)) => Some((kind, name)),
        _ => None,
    }
}

/// `x_bucket{…}`, `x_sum` and `x_count` belong to the family `x` that was announced before them.
fn family_of<'a>(announced: &'a str, line: &'a str) -> &'a str {
    let name = line.split(['{', ' ']).next().unwrap_or(line);
    let belongs = name == announced
        || ["_bucket", "_sum", "_count"]
            .iter()
            .any(|suffix| name.strip_suffix(suffix) == Some(announced));
    if belongs && !announced.is_empty() {
        announced
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_one_name_from_two_processes_stand_together_under_one_type() {
        let of = |worker: &str| {
            format!(
                "# HELP a_total help\n# TYPE a_total counter\na_total{{w=\"{worker}\"}} 1\n\n\
                 # TYPE b_ms histogram\nb_ms_bucket{{w=\"{worker}\",le=\"1\"}} 0\n\
                 b_ms_sum{{w=\"{worker}\"}} 2\nb_ms_count{{w=\"{worker}\"}} 1\n"
            )
        };
        let merged = merge_expositions(&[of("1"), of("2")]);
        assert_eq!(
            merged,
            "# HELP a_total help\n# TYPE a_total counter\na_total{w=\"1\"} 1\na_total{w=\"2\"} 1\n\n\
             # TYPE b_ms histogram\n\
             b_ms_bucket{w=\"1\",le=\"1\"} 0\nb_ms_sum{w=\"1\"} 2\nb_ms_count{w=\"1\"} 1\n\
             b_ms_bucket{w=\"2\",le=\"1\"} 0\nb_ms_sum{w=\"2\"} 2\nb_ms_count{w=\"2\"} 1\n\n"
        );
    }

    #[test]
    fn latencies_are_histograms_with_rays_buckets_and_the_processs_labels() {
        let recorder = builder(&[("role", "worker")]).unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("ray_x_latency_ms").record(3.0);
        });
        let text = recorder.handle().render();
        assert!(
            text.contains("ray_x_latency_ms_bucket{role=\"worker\",le=\"5\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("ray_x_latency_ms_bucket{role=\"worker\",le=\"600000\"}"),
            "{text}"
        );
    }
}
