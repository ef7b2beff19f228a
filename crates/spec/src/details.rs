//! A settled deployment as the status document shows it: the `deployment_config` object.
//!
//! Either a number of replicas or an autoscaling object, never both. Names of foreign Python
//! code are left out, because Ray's command line imports what it finds there. The inherited
//! environment is left out too: it would repeat the application's variables per deployment.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::resolve::{DeploymentConfig, Replicas};
use crate::schema::actor_options::RayActorOptions;
use crate::schema::autoscaling::AutoscalingConfig;
use crate::schema::deployment::BackpressureConfig;
use crate::schema::placement::{DeploymentActor, GangSchedulingConfig};
use crate::schema::request_router::RequestRouterConfig;

#[derive(Serialize)]
struct Details<'c> {
    name: &'c str,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_replicas: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    autoscaling_config: Option<&'c AutoscalingConfig>,
    max_ongoing_requests: u32,
    max_queued_requests: i64,
    backpressure_config: &'c BackpressureConfig,
    user_config: Option<&'c Map<String, Value>>,
    graceful_shutdown_wait_loop_s: f64,
    graceful_shutdown_timeout_s: f64,
    health_check_period_s: f64,
    health_check_timeout_s: f64,
    ray_actor_options: &'c RayActorOptions,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_router_config: Option<&'c RequestRouterConfig>,
    rolling_update_percentage: f64,
    max_surge_percent: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    placement_group_bundles: Option<&'c Vec<BTreeMap<String, f64>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    placement_group_strategy: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    placement_group_bundle_label_selector: Option<&'c Vec<BTreeMap<String, String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gang_scheduling_config: Option<&'c GangSchedulingConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment_actors: Option<&'c Vec<DeploymentActor>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_replicas_per_node: Option<u32>,
}

impl Serialize for DeploymentConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (num_replicas, autoscaling_config) = match &self.replicas {
            Replicas::Fixed(count) => (Some(*count), None),
            Replicas::Autoscaled(config) => (None, Some(config.as_ref())),
        };
        let router = &self.request_router_config;
        Details {
            name: &self.name,
            num_replicas,
            autoscaling_config,
            max_ongoing_requests: self.max_ongoing_requests,
            max_queued_requests: self.max_queued_requests.as_i64(),
            backpressure_config: &self.backpressure_config,
            user_config: self.user_config.as_ref(),
            graceful_shutdown_wait_loop_s: self.graceful_shutdown_wait_loop_s,
            graceful_shutdown_timeout_s: self.graceful_shutdown_timeout_s,
            health_check_period_s: self.health_check_period_s,
            health_check_timeout_s: self.health_check_timeout_s,
            ray_actor_options: &self.ray_actor_options,
            request_router_config: (!router.is_foreign()).then_some(router),
            rolling_update_percentage: self.rolling_update_percentage,
            // The document has Ray's default where the config gives none.
            max_surge_percent: self.max_surge_percent.unwrap_or(0),
            placement_group_bundles: self.placement_group_bundles.as_ref(),
            placement_group_strategy: self.placement_group_strategy.as_deref(),
            placement_group_bundle_label_selector: self
                .placement_group_bundle_label_selector
                .as_ref(),
            gang_scheduling_config: self.gang_scheduling_config.as_ref(),
            deployment_actors: self.deployment_actors.as_ref(),
            max_replicas_per_node: self.max_replicas_per_node,
        }
        .serialize(serializer)
    }
}
