//! `autoscaling_config`: between which counts a deployment moves, and how fast. The policy
//! that decides is not here.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::acting::Place;
use crate::decode::{At, Fields, NON_NEGATIVE, POSITIVE, Unknown, count, float_in, object, string};
use crate::error::Findings;

pub const TARGET_ONGOING_REQUESTS_DEFAULT: f64 = 2.0;

/// `max_replicas` where `num_replicas: auto` stands and no other is given.
pub const AUTO_MAX_REPLICAS_DEFAULT: u32 = 100;

/// Ray's own policy. Its command line imports what a status document names here, so no other
/// name is ever shown.
pub const POLICY_FUNCTION_DEFAULT: &str = "ray.serve.autoscaling_policy:default_autoscaling_policy";

/// Said of a policy that somebody else wrote.
const FOREIGN_POLICY: &str = "Python code cannot run here: `mobula.autoscaling.policy` of the \
     deployment decides instead, one of default (Ray's, where none is given), reactive; with \
     `external_scaler_enabled` of the application counts are set from outside";

/// A checked autoscaling object with its defaults. `Serialize` gives the object of the status
/// document.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AutoscalingConfig {
    pub min_replicas: u32,
    pub initial_replicas: Option<u32>,
    pub max_replicas: u32,
    /// Per replica. `None` was given as null; [`Self::target`] says what counts then.
    pub target_ongoing_requests: Option<f64>,
    pub metrics_interval_s: f64,
    pub look_back_period_s: f64,
    pub smoothing_factor: f64,
    pub upscale_smoothing_factor: Option<f64>,
    pub downscale_smoothing_factor: Option<f64>,
    pub upscaling_factor: Option<f64>,
    pub downscaling_factor: Option<f64>,
    pub downscale_delay_s: f64,
    pub downscale_to_zero_delay_s: Option<f64>,
    pub upscale_delay_s: f64,
    pub aggregation_function: AggregationFunction,
    #[serde(skip_serializing_if = "AutoscalingPolicy::is_foreign")]
    pub policy: AutoscalingPolicy,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AggregationFunction {
    #[default]
    Mean,
    Max,
    Min,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AutoscalingPolicy {
    pub policy_function: String,
    pub policy_kwargs: Map<String, Value>,
}

// === impl AutoscalingConfig ===

impl Default for AutoscalingConfig {
    fn default() -> Self {
        Self {
            min_replicas: 1,
            initial_replicas: None,
            max_replicas: 1,
            target_ongoing_requests: Some(TARGET_ONGOING_REQUESTS_DEFAULT),
            metrics_interval_s: 10.0,
            look_back_period_s: 30.0,
            smoothing_factor: 1.0,
            upscale_smoothing_factor: None,
            downscale_smoothing_factor: None,
            upscaling_factor: None,
            downscaling_factor: None,
            downscale_delay_s: 600.0,
            downscale_to_zero_delay_s: None,
            upscale_delay_s: 30.0,
            aggregation_function: AggregationFunction::Mean,
            policy: AutoscalingPolicy::default(),
        }
    }
}

impl AutoscalingConfig {
    /// What `num_replicas: auto` starts from.
    pub fn auto() -> Self {
        Self {
            max_replicas: AUTO_MAX_REPLICAS_DEFAULT,
            ..Self::default()
        }
    }

    /// What an object lies over.
    pub(crate) fn base(auto: bool) -> Self {
        if auto { Self::auto() } else { Self::default() }
    }

    /// Reads an object over `base`: fields that are not given keep its values.
    pub(crate) fn read(findings: &mut Findings, at: &At<'_>, base: Self) -> Option<Self> {
        let mut fields = Fields::open(findings, at, Place::AutoscalingConfig)?;
        let positive = || float_in(POSITIVE);
        let delay = || float_in(NON_NEGATIVE);
        let mut config = base;
        let f = findings;
        put(
            &mut config.min_replicas,
            fields.get(f, "min_replicas", count(0)),
        );
        fields
            .nullable(f, "initial_replicas", count(0))
            .put(&mut config.initial_replicas);
        put(
            &mut config.max_replicas,
            fields.get(f, "max_replicas", count(1)),
        );
        fields
            .nullable(f, "target_ongoing_requests", positive())
            .put(&mut config.target_ongoing_requests);
        put(
            &mut config.metrics_interval_s,
            fields.get(f, "metrics_interval_s", positive()),
        );
        put(
            &mut config.look_back_period_s,
            fields.get(f, "look_back_period_s", positive()),
        );
        put(
            &mut config.smoothing_factor,
            fields.get(f, "smoothing_factor", positive()),
        );
        for (key, factor) in [
            (
                "upscale_smoothing_factor",
                &mut config.upscale_smoothing_factor,
            ),
            (
                "downscale_smoothing_factor",
                &mut config.downscale_smoothing_factor,
            ),
            ("upscaling_factor", &mut config.upscaling_factor),
            ("downscaling_factor", &mut config.downscaling_factor),
        ] {
            fields.nullable(f, key, positive()).put(factor);
        }
        put(
            &mut config.downscale_delay_s,
            fields.get(f, "downscale_delay_s", delay()),
        );
        fields
            .nullable(f, "downscale_to_zero_delay_s", delay())
            .put(&mut config.downscale_to_zero_delay_s);
        put(
            &mut config.upscale_delay_s,
            fields.get(f, "upscale_delay_s", delay()),
        );
        let function = fields.get(f, "aggregation_function", AggregationFunction::read);
        put(&mut config.aggregation_function, function);
        put(
            &mut config.policy,
            fields.get(f, "policy", AutoscalingPolicy::read),
        );
        fields.close(f, Unknown::Warn);
        Some(config)
    }

    /// What is wrong between the counts, in Ray's words.
    pub(crate) fn check_counts(&self) -> Result<(), String> {
        let (min, max) = (self.min_replicas, self.max_replicas);
        if max < min {
            return Err(format!(
                "max_replicas ({max}) must be greater than or equal to min_replicas ({min})!"
            ));
        }
        match self.initial_replicas {
            Some(initial) if initial < min => Err(format!(
                "min_replicas ({min}) must be less than or equal to initial_replicas ({initial})!"
            )),
            Some(initial) if initial > max => Err(format!(
                "max_replicas ({max}) must be greater than or equal to initial_replicas \
                 ({initial})!"
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Ongoing requests per replica that scaling aims at.
    pub fn target(&self) -> f64 {
        self.target_ongoing_requests
            .unwrap_or(TARGET_ONGOING_REQUESTS_DEFAULT)
    }

    pub fn upscaling(&self) -> f64 {
        let older = self
            .upscale_smoothing_factor
            .unwrap_or(self.smoothing_factor);
        self.upscaling_factor.unwrap_or(older)
    }

    pub fn downscaling(&self) -> f64 {
        let older = self
            .downscale_smoothing_factor
            .unwrap_or(self.smoothing_factor);
        self.downscaling_factor.unwrap_or(older)
    }

    /// The count of a first deployment.
    pub fn first_replicas(&self) -> u32 {
        self.initial_replicas.unwrap_or(self.min_replicas)
    }
}

// === impl AggregationFunction ===

impl AggregationFunction {
    fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let text = string(findings, at)?;
        match text.to_ascii_lowercase().as_str() {
            "mean" => Some(Self::Mean),
            "max" => Some(Self::Max),
            "min" => Some(Self::Min),
            _ => {
                let text = crate::error::quoted(&text);
                at.problem(
                    findings,
                    format!("must be one of mean, max, min, got {text}"),
                );
                None
            }
        }
    }
}

// === impl AutoscalingPolicy ===

impl Default for AutoscalingPolicy {
    fn default() -> Self {
        Self {
            policy_function: POLICY_FUNCTION_DEFAULT.to_owned(),
            policy_kwargs: Map::new(),
        }
    }
}

impl AutoscalingPolicy {
    fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let mut fields = Fields::open(findings, at, Place::AutoscalingPolicy)?;
        let default = Self::default();
        let policy = Self {
            policy_function: fields
                .get(findings, "policy_function", string)
                .unwrap_or(default.policy_function),
            policy_kwargs: fields
                .get(findings, "policy_kwargs", object)
                .unwrap_or_default(),
        };
        if policy.is_foreign() {
            at.warning(findings, FOREIGN_POLICY);
        }
        fields.close(findings, Unknown::Warn);
        Some(policy)
    }

    /// Not the default: left out of the status document, see [`POLICY_FUNCTION_DEFAULT`].
    pub fn is_foreign(&self) -> bool {
        self.policy_function != POLICY_FUNCTION_DEFAULT
    }
}

/// Writes a value where one was given.
fn put<T>(slot: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *slot = value;
    }
}
