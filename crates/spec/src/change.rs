//! What a change of a deployment costs: nothing, the head's attention, a word to the replicas,
//! or new processes.
//!
//! One function sorts every field into one of three parts; `diff` compares the parts and the
//! versions hash them, so the two cannot disagree. A field added to [`DeploymentConfig`] does
//! not compile until it has its part.

use serde_json::{Value, json};

use crate::resolve::{DeploymentConfig, Replicas};
use crate::version::hash;

/// What a change costs; each one includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    Nothing,
    /// Counts and periods that the head acts on; replicas are not told.
    Retarget,
    /// Replicas keep their process and are told.
    Reconfigure,
    /// Every replica gets a new process.
    Replace,
}

/// The fields of a deployment by what a change of them costs.
struct Parts {
    retarget: Value,
    reconfigure: Value,
    replace: Value,
}

/// What it costs to get from one to the other.
pub fn diff(old: &DeploymentConfig, new: &DeploymentConfig) -> Change {
    let (old, new) = (parts(old), parts(new));
    if old.replace != new.replace {
        Change::Replace
    } else if old.reconfigure != new.reconfigure {
        Change::Reconfigure
    } else if old.retarget != new.retarget {
        Change::Retarget
    } else {
        Change::Nothing
    }
}

// === impl DeploymentConfig ===

impl DeploymentConfig {
    /// A hash of what makes a process: replicas of another one are replaced.
    pub fn process_version(&self) -> String {
        hash(&parts(self).replace)
    }

    /// A hash of what a running replica is told: replicas of another one are reconfigured.
    pub fn settings_version(&self) -> String {
        hash(&parts(self).reconfigure)
    }
}

fn parts(config: &DeploymentConfig) -> Parts {
    let DeploymentConfig {
        name,
        replicas,
        max_ongoing_requests,
        max_queued_requests,
        backpressure_config,
        user_config,
        graceful_shutdown_wait_loop_s,
        graceful_shutdown_timeout_s,
        health_check_period_s,
        health_check_timeout_s,
        ray_actor_options,
        runtime_env,
        placement_group_bundles,
        placement_group_strategy,
        placement_group_bundle_label_selector,
        max_replicas_per_node,
        logging_config,
        request_router_config,
        gang_scheduling_config,
        deployment_actors,
        rolling_update_percentage,
        max_surge_percent,
        traffic,
        scaling,
        queueing,
        route_prefix,
        code_version,
    } = config;
    let (count, load_periods) = count_parts(replicas);
    Parts {
        retarget: json!({
            "count": count,
            "max_queued_requests": max_queued_requests.as_i64(),
            "graceful_shutdown_timeout_s": graceful_shutdown_timeout_s,
            "health_check_period_s": health_check_period_s,
            "health_check_timeout_s": health_check_timeout_s,
            "rolling_update_percentage": rolling_update_percentage,
            "max_surge_percent": max_surge_percent,
            "traffic": traffic,
            "scaling": scaling,
            "queueing": queueing,
        }),
        reconfigure: json!({
            "load_periods": load_periods,
            "max_ongoing_requests": max_ongoing_requests,
            "user_config": user_config,
            "backpressure_config": backpressure_config,
            "graceful_shutdown_wait_loop_s": graceful_shutdown_wait_loop_s,
            "request_router_config": request_router_config,
            "logging_config": logging_config,
            "route_prefix": route_prefix,
        }),
        replace: json!({
            "name": name,
            "code_version": code_version,
            "ray_actor_options": ray_actor_options,
            "runtime_env": runtime_env,
            "placement_group_bundles": placement_group_bundles,
            "placement_group_strategy": placement_group_strategy,
            "placement_group_bundle_label_selector": placement_group_bundle_label_selector,
            "max_replicas_per_node": max_replicas_per_node,
            "gang_scheduling_config": gang_scheduling_config,
            "deployment_actors": deployment_actors,
        }),
    }
}

/// What the head acts on, and what replicas are told: they measure the load that autoscaling
/// needs, so they know its periods.
fn count_parts(replicas: &Replicas) -> (Value, Value) {
    match replicas {
        Replicas::Fixed(count) => (json!(count), Value::Null),
        Replicas::Autoscaled(config) => {
            let policy = &config.policy;
            // A foreign policy is left out of what is shown, so it is added here.
            let all = json!([config, policy.policy_function, policy.policy_kwargs]);
            (
                all,
                json!([config.metrics_interval_s, config.look_back_period_s]),
            )
        }
    }
}
