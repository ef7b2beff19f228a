//! `mobula.traffic`: a new version of the code gets a growing part of the requests, and is
//! promoted or taken back by how it answers them. Ray has nothing of the kind.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::acting::Place;
use crate::decode::{At, Fields, Given, POSITIVE, RATIO, Unknown, float_in, integer_in, list};
use crate::error::Findings;
use crate::schema::{Extension, TRAFFIC};

/// Parts of the requests; the last step is followed by the whole.
pub const TRAFFIC_STEPS_DEFAULT: [u32; 3] = [5, 25, 50];
pub const TRAFFIC_STEP_S_DEFAULT: f64 = 60.0;
pub const TRAFFIC_ERROR_RATE_MAX_DEFAULT: f64 = 0.01;
/// Below it a rate says little: one failed answer of a hundred is the default limit.
pub const TRAFFIC_REQUESTS_MIN_DEFAULT: u32 = 100;

/// Steps of one rollout: more are no more careful, only slower.
const STEPS_MAX: usize = 20;

/// A step of a week: longer is forgotten.
const STEP_S_MAX: f64 = 7.0 * 24.0 * 3600.0;

/// The largest latency that routers tell from a larger one.
const P99_MS_MAX: f64 = 60_000.0;

/// How a new version takes over the requests of the old one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Percent of the requests, growing.
    pub steps: Vec<u32>,
    /// How long each step takes at least.
    pub step_s: f64,
    /// Part of the answers that may fail.
    pub error_rate_max: f64,
    /// None: latency is not looked at.
    pub p99_ms_max: Option<f64>,
    /// Answers of the new version in a step before it is judged.
    pub requests_min: u32,
}

// === impl Traffic ===

impl Default for Traffic {
    fn default() -> Self {
        Self {
            steps: TRAFFIC_STEPS_DEFAULT.to_vec(),
            step_s: TRAFFIC_STEP_S_DEFAULT,
            error_rate_max: TRAFFIC_ERROR_RATE_MAX_DEFAULT,
            p99_ms_max: None,
            requests_min: TRAFFIC_REQUESTS_MIN_DEFAULT,
        }
    }
}

impl Traffic {
    pub(crate) fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let mut fields = Fields::open(findings, at, Place::Traffic)?;
        let or = Self::default();
        let traffic = Self {
            steps: fields.get(findings, "steps", steps).unwrap_or(or.steps),
            step_s: fields
                .get(findings, "step_s", |findings, at| {
                    at_most(findings, at, STEP_S_MAX)
                })
                .unwrap_or(or.step_s),
            error_rate_max: fields
                .get(findings, "error_rate_max", float_in(RATIO))
                .unwrap_or(or.error_rate_max),
            p99_ms_max: fields.optional(findings, "p99_ms_max", |findings, at| {
                at_most(findings, at, P99_MS_MAX)
            }),
            requests_min: fields
                .get(findings, "requests_min", integer_in(1, 1_000_000))
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or(or.requests_min),
        };
        fields.close(findings, Unknown::Reject);
        Some(traffic)
    }
}

fn at_most(findings: &mut Findings, at: &At<'_>, most: f64) -> Option<f64> {
    let value = float_in(POSITIVE)(findings, at)?;
    if value > most {
        at.problem(findings, format!("must be at most {most}, got {value}"));
        return None;
    }
    Some(value)
}

fn steps(findings: &mut Findings, at: &At<'_>) -> Option<Vec<u32>> {
    let steps: Vec<u32> = list(findings, at, integer_in(1, 99))?
        .into_iter()
        .filter_map(|step| u32::try_from(step).ok())
        .collect();
    if steps.is_empty() || steps.len() > STEPS_MAX {
        let count = steps.len();
        at.problem(
            findings,
            format!("must have 1 to {STEPS_MAX} steps, got {count}"),
        );
    } else if let Some(pair) = steps.windows(2).find(|pair| pair[0] >= pair[1]) {
        at.problem(
            findings,
            format!(
                "must grow from step to step, got {} after {}",
                pair[1], pair[0]
            ),
        );
    }
    Some(steps)
}

/// What a block says about traffic: null switches off what a block above it says.
pub(crate) fn traffic(extension: Option<&Extension>) -> Given<Traffic> {
    match extension.and_then(|extension| extension.get(TRAFFIC)) {
        None => Given::Absent,
        Some(Value::Null) => Given::Null,
        // What is kept has been read before, so it can be read again.
        Some(value) => Traffic::deserialize(value).map_or(Given::Absent, Given::Value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ServeConfig;

    fn config(application: &str, deployment: &str) -> ServeConfig {
        let text = format!(
            "applications: [{{import_path: 'a:b', {application} \
             deployments: [{{name: D, {deployment}}}]}}]"
        );
        let config = ServeConfig::from_yaml(&text).unwrap().config;
        // What is stored says the same.
        let stored = config.to_json().to_string();
        assert_eq!(
            ServeConfig::from_json(stored.as_bytes()).unwrap().config,
            config
        );
        config
    }

    fn of(application: &str, deployment: &str) -> Option<Traffic> {
        let config = config(application, deployment);
        let application = &config.applications[0];
        application.traffic(application.deployment("D"))
    }

    #[test]
    fn a_deployment_says_how_its_traffic_moves_before_its_application_does() {
        assert_eq!(of("", ""), None);
        let all = "mobula: {traffic: {steps: [10], step_s: 5}},";
        let moved = of(all, "").unwrap();
        assert_eq!((moved.steps, moved.step_s), (vec![10], 5.0));
        assert_eq!(moved.error_rate_max, TRAFFIC_ERROR_RATE_MAX_DEFAULT);
        let own = of(all, "mobula: {traffic: {p99_ms_max: 200}}").unwrap();
        assert_eq!(own.steps, TRAFFIC_STEPS_DEFAULT);
        assert_eq!(own.p99_ms_max, Some(200.0));
        assert_eq!(of(all, "mobula: {traffic: null}"), None);
        assert_eq!(of("mobula: {traffic: {}},", ""), Some(Traffic::default()));
        assert_eq!(of("mobula: {traffic: null},", ""), None);
    }

    #[test]
    fn wrong_values_say_what_is_allowed() {
        for (traffic, named) in [
            (
                "{steps: []}",
                "traffic.steps: must have 1 to 20 steps, got 0",
            ),
            (
                "{steps: [5, 5]}",
                "traffic.steps: must grow from step to step, got 5 after 5",
            ),
            (
                "{steps: [0]}",
                "traffic.steps[0]: must be an integer from 1 to 99, got 0",
            ),
            (
                "{steps: [100]}",
                "traffic.steps[0]: must be an integer from 1 to 99, got 100",
            ),
            (
                "{steps: 5}",
                "traffic.steps: must be a list, got an integer",
            ),
            (
                "{step_s: 0}",
                "traffic.step_s: must be a number above 0, got 0",
            ),
            (
                "{step_s: 1e9}",
                "traffic.step_s: must be at most 604800, got 1000000000",
            ),
            (
                "{error_rate_max: 1.5}",
                "traffic.error_rate_max: must be a number from 0 to 1, got 1.5",
            ),
            (
                "{p99_ms_max: 100000}",
                "traffic.p99_ms_max: must be at most 60000, got 100000",
            ),
            (
                "{requests_min: 0}",
                "traffic.requests_min: must be an integer from 1 to 1000000, got 0",
            ),
            (
                "{step: 5}",
                "traffic.step: the key is not known here, allowed: steps, step_s, \
                 error_rate_max, p99_ms_max, requests_min",
            ),
            ("yes", "traffic: must be an object, got"),
        ] {
            for place in [
                format!("mobula: {{traffic: {traffic}}}"),
                format!("deployments: [{{name: D, mobula: {{traffic: {traffic}}}}}]"),
            ] {
                let text = format!("applications: [{{import_path: 'a:b', {place}}}]");
                let errors = ServeConfig::from_yaml(&text).unwrap_err().to_string();
                let plain = errors.replace(" (line 1)", "");
                assert!(plain.contains(named), "{plain}\nis not\n{named}");
            }
        }
        let top = "applications: []\nmobula: {traffic: {}}";
        let errors = ServeConfig::from_yaml(top).unwrap_err().to_string();
        assert!(errors.ends_with("the key is not known here, allowed: rollback, compaction"));
    }
}
