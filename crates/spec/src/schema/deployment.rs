//! One deployment's options, as a config overrides them and as code declares them.
//!
//! Both are [`DeploymentOptions`], in which everything may be absent; `resolve` makes a
//! [`crate::DeploymentConfig`] of the two. Rules between fields are in `deployment_rules`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::acting::Place;
use crate::decode::{
    At, FRACTION, Fields, Given, NON_NEGATIVE, POSITIVE, Unknown, count, float_in, integer_in,
    list, object, strict_integer, string,
};
use crate::error::Findings;
use crate::node::Data;
use crate::schema::actor_options::RayActorOptions;
use crate::schema::autoscaling::AutoscalingConfig;
use crate::schema::logging::LoggingConfig;
use crate::schema::placement::GangSchedulingConfig;
use crate::schema::request_router::RequestRouterConfig;
use crate::schema::{Extension, Level, deployment_rules, extension, label_selector, warn_early};

/// How many replicas: a number, or as many as the load asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NumReplicas {
    Count(u32),
    Auto,
}

/// How many requests may wait beyond what the replicas work on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum MaxQueued {
    /// Written as -1.
    #[default]
    Unlimited,
    Limit(u32),
}

/// The answer to a request that finds the queue full.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackpressureConfig {
    /// 503 or 429.
    pub status_code: u16,
    /// The `retry-after` header.
    pub retry_after_s: Option<f64>,
}

/// Options of a deployment, each of which may not be given.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeploymentOptions {
    pub num_replicas: Given<NumReplicas>,
    pub max_ongoing_requests: Option<u32>,
    pub max_queued_requests: Option<MaxQueued>,
    pub backpressure_config: Option<BackpressureConfig>,
    pub user_config: Given<Map<String, Value>>,
    /// As written: checked when the deployment is resolved.
    pub autoscaling_config: Given<Map<String, Value>>,
    pub graceful_shutdown_wait_loop_s: Option<f64>,
    pub graceful_shutdown_timeout_s: Option<f64>,
    pub health_check_period_s: Option<f64>,
    pub health_check_timeout_s: Option<f64>,
    pub ray_actor_options: Option<RayActorOptions>,
    pub placement_group_bundles: Option<Vec<BTreeMap<String, f64>>>,
    /// Any word: checked when the deployment is resolved.
    pub placement_group_strategy: Option<String>,
    pub placement_group_bundle_label_selector: Option<Vec<BTreeMap<String, String>>>,
    /// Any integer: checked when the deployment is resolved.
    pub max_replicas_per_node: Option<i64>,
    pub logging_config: Option<LoggingConfig>,
    /// As written: checked when the deployment is resolved.
    pub request_router_config: Option<Map<String, Value>>,
    pub gang_scheduling_config: Given<GangSchedulingConfig>,
    /// As written: checked when the deployment is resolved.
    pub deployment_actors: Given<Vec<Map<String, Value>>>,
    pub rolling_update_percentage: Option<f64>,
    pub max_surge_percent: Option<u32>,
}

/// One entry of an application's `deployments`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeploymentOverride {
    pub name: String,
    pub options: DeploymentOptions,
    pub mobula: Option<Extension>,
}

/// What the code says about one of its deployments.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeploymentDefaults {
    pub name: String,
    /// It takes the application's requests from outside.
    pub ingress: bool,
    pub options: DeploymentOptions,
}

// === impl DeploymentOverride ===

impl DeploymentOverride {
    pub(crate) fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let mut fields = Fields::open(findings, at, Place::Deployment)?;
        let name = fields.require(findings, "name", string);
        let options = DeploymentOptions::read(findings, &mut fields);
        deployment_rules::check(findings, at, &options);
        let mobula = fields.optional(findings, "mobula", |findings, at| {
            extension(findings, at, Level::Deployment)
        });
        fields.close(findings, Unknown::Warn);
        Some(Self {
            name: name?,
            options,
            mobula,
        })
    }
}

// === impl DeploymentOptions ===

impl DeploymentOptions {
    fn read(f: &mut Findings, fields: &mut Fields<'_>) -> Self {
        let num_replicas = fields.nullable(f, "num_replicas", NumReplicas::read);
        let auto = num_replicas == Given::Value(NumReplicas::Auto);
        Self {
            num_replicas,
            max_ongoing_requests: fields.get(f, "max_ongoing_requests", count(1)),
            max_queued_requests: fields.get(f, "max_queued_requests", MaxQueued::read),
            backpressure_config: fields.get(f, "backpressure_config", BackpressureConfig::read),
            user_config: fields.nullable(f, "user_config", object),
            autoscaling_config: fields
                .nullable(f, "autoscaling_config", |f, at| autoscaling(f, at, auto)),
            graceful_shutdown_wait_loop_s: fields.get(
                f,
                "graceful_shutdown_wait_loop_s",
                float_in(NON_NEGATIVE),
            ),
            graceful_shutdown_timeout_s: fields.get(
                f,
                "graceful_shutdown_timeout_s",
                float_in(NON_NEGATIVE),
            ),
            health_check_period_s: fields.get(f, "health_check_period_s", float_in(POSITIVE)),
            health_check_timeout_s: fields.get(f, "health_check_timeout_s", float_in(POSITIVE)),
            ray_actor_options: fields.get(f, "ray_actor_options", RayActorOptions::read),
            placement_group_bundles: fields.get(f, "placement_group_bundles", |f, at| {
                list(f, at, |f, at| {
                    crate::decode::values(f, at, crate::decode::float)
                })
            }),
            placement_group_strategy: fields.get(f, "placement_group_strategy", string),
            placement_group_bundle_label_selector: fields.get(
                f,
                "placement_group_bundle_label_selector",
                |f, at| list(f, at, label_selector::unchecked),
            ),
            max_replicas_per_node: fields.get(
                f,
                "max_replicas_per_node",
                integer_in(i64::MIN, i64::MAX),
            ),
            logging_config: fields.get(f, "logging_config", LoggingConfig::read),
            request_router_config: fields.get(f, "request_router_config", |f, at| {
                warn_early(f, at, RequestRouterConfig::read);
                object(f, at)
            }),
            gang_scheduling_config: fields.nullable(
                f,
                "gang_scheduling_config",
                GangSchedulingConfig::read,
            ),
            deployment_actors: fields.nullable(f, "deployment_actors", |f, at| list(f, at, object)),
            rolling_update_percentage: fields.get(
                f,
                "rolling_update_percentage",
                float_in(FRACTION),
            ),
            max_surge_percent: fields
                .get(f, "max_surge_percent", integer_in(0, 100))
                .and_then(|percent| u32::try_from(percent).ok()),
        }
    }

    /// These options, and the other's where nothing is given here.
    pub fn or(self, other: Self) -> Self {
        Self {
            num_replicas: self.num_replicas.or(other.num_replicas),
            max_ongoing_requests: self.max_ongoing_requests.or(other.max_ongoing_requests),
            max_queued_requests: self.max_queued_requests.or(other.max_queued_requests),
            backpressure_config: self.backpressure_config.or(other.backpressure_config),
            user_config: self.user_config.or(other.user_config),
            autoscaling_config: self.autoscaling_config.or(other.autoscaling_config),
            graceful_shutdown_wait_loop_s: self
                .graceful_shutdown_wait_loop_s
                .or(other.graceful_shutdown_wait_loop_s),
            graceful_shutdown_timeout_s: self
                .graceful_shutdown_timeout_s
                .or(other.graceful_shutdown_timeout_s),
            health_check_period_s: self.health_check_period_s.or(other.health_check_period_s),
            health_check_timeout_s: self.health_check_timeout_s.or(other.health_check_timeout_s),
            ray_actor_options: self.ray_actor_options.or(other.ray_actor_options),
            placement_group_bundles: self
                .placement_group_bundles
                .or(other.placement_group_bundles),
            placement_group_strategy: self
                .placement_group_strategy
                .or(other.placement_group_strategy),
            placement_group_bundle_label_selector: self
                .placement_group_bundle_label_selector
                .or(other.placement_group_bundle_label_selector),
            max_replicas_per_node: self.max_replicas_per_node.or(other.max_replicas_per_node),
            logging_config: self.logging_config.or(other.logging_config),
            request_router_config: self.request_router_config.or(other.request_router_config),
            gang_scheduling_config: self.gang_scheduling_config.or(other.gang_scheduling_config),
            deployment_actors: self.deployment_actors.or(other.deployment_actors),
            rolling_update_percentage: self
                .rolling_update_percentage
                .or(other.rolling_update_percentage),
            max_surge_percent: self.max_surge_percent.or(other.max_surge_percent),
        }
    }

    /// The count follows the load.
    pub fn autoscales(&self) -> bool {
        self.num_replicas == Given::Value(NumReplicas::Auto)
            || self.autoscaling_config.value().is_some()
    }
}

/// Keeps the object, and says now what Ray says after it answered 200.
fn autoscaling(findings: &mut Findings, at: &At<'_>, auto: bool) -> Option<Map<String, Value>> {
    warn_early(findings, at, |findings, at| {
        let config = AutoscalingConfig::read(findings, at, AutoscalingConfig::base(auto))?;
        if let Err(message) = config.check_counts() {
            at.problem(findings, message);
        }
        Some(config)
    });
    object(findings, at)
}

// === impl NumReplicas ===

impl NumReplicas {
    fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        match &at.node.data {
            Data::Text(text) if text == "auto" => {
                return Some(Self::Auto);
            }
            Data::Int(value) if *value < 1 => {
                let text = format!("must be an integer of at least 1 or `auto`, got {value}");
                at.problem(findings, text);
                return None;
            }
            // Python's True is the integer one.
            Data::Int(_) | Data::Bool(_) => {}
            Data::Null | Data::Float(_) | Data::Text(_) | Data::List(_) | Data::Object(_) => {
                at.wrong_kind(findings, "an integer of at least 1 or `auto`");
                return None;
            }
        }
        count(1)(findings, at).map(Self::Count)
    }
}

// === impl MaxQueued ===

impl MaxQueued {
    fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let value = strict_integer(findings, at)?;
        if value == -1 {
            return Some(Self::Unlimited);
        }
        let limit = u32::try_from(value).ok().filter(|limit| *limit > 0);
        if limit.is_none() {
            at.problem(
                findings,
                format!("must be -1 (no limit) or an integer of at least 1, got {value}"),
            );
        }
        limit.map(Self::Limit)
    }

    /// The number as the config and the status document write it.
    pub fn as_i64(self) -> i64 {
        match self {
            Self::Unlimited => -1,
            Self::Limit(limit) => limit.into(),
        }
    }
}

// === impl BackpressureConfig ===

impl Default for BackpressureConfig {
    fn default() -> Self {
        Self {
            status_code: 503,
            retry_after_s: None,
        }
    }
}

impl BackpressureConfig {
    fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let mut fields = Fields::open(findings, at, Place::BackpressureConfig)?;
        let status_code = fields.get(findings, "status_code", status_code);
        let retry_after_s = fields.optional(findings, "retry_after_s", float_in(NON_NEGATIVE));
        fields.close(findings, Unknown::Reject);
        Some(Self {
            status_code: status_code.unwrap_or(503),
            retry_after_s,
        })
    }
}

/// Equal to one of the two numbers; a string is not.
fn status_code(findings: &mut Findings, at: &At<'_>) -> Option<u16> {
    let value = match &at.node.data {
        Data::Int(value) => *value as f64,
        Data::Float(value) => *value,
        Data::Null | Data::Bool(_) | Data::Text(_) | Data::List(_) | Data::Object(_) => {
            at.wrong_kind(findings, "503 or 429");
            return None;
        }
    };
    if value == 503.0 {
        return Some(503);
    }
    if value == 429.0 {
        return Some(429);
    }
    at.problem(findings, format!("must be 503 or 429, got {value}"));
    None
}
