//! What runs: the code's options, the config's over them, the defaults under both.
//!
//! Field by field and shallow: an object that the config gives replaces the code's. One
//! difference to Ray on purpose: a number of replicas in the config switches off autoscaling
//! that the code asks for; Ray takes the number and goes on autoscaling.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::capacity::scaled_count;
use crate::decode::Given;
use crate::error::LateError;
use crate::late::{
    late_check_autoscaling, late_check_deployment_names, late_check_route_prefix, with_name,
};
use crate::schema::actor_options::{NUM_CPUS_DEFAULT, RayActorOptions};
use crate::schema::application::Application;
use crate::schema::autoscaling::AutoscalingConfig;
use crate::schema::deployment::{
    BackpressureConfig, DeploymentDefaults, DeploymentOptions, DeploymentOverride, MaxQueued,
    NumReplicas,
};
use crate::schema::logging::LoggingConfig;
use crate::schema::placement::{DeploymentActor, GangSchedulingConfig};
use crate::schema::queueing::Queueing;
use crate::schema::request_router::RequestRouterConfig;
use crate::schema::scaling::Scaling;
use crate::schema::traffic::Traffic;
use crate::schema::{bundles, read_late, runtime_env};

pub const NUM_REPLICAS_DEFAULT: u32 = 1;
pub const MAX_ONGOING_REQUESTS_DEFAULT: u32 = 5;
pub const GRACEFUL_SHUTDOWN_WAIT_LOOP_S_DEFAULT: f64 = 2.0;
pub const GRACEFUL_SHUTDOWN_TIMEOUT_S_DEFAULT: f64 = 20.0;
pub const HEALTH_CHECK_PERIOD_S_DEFAULT: f64 = 10.0;
pub const HEALTH_CHECK_TIMEOUT_S_DEFAULT: f64 = 30.0;
pub const ROLLING_UPDATE_PERCENTAGE_DEFAULT: f64 = 0.2;

const REPLICAS_PER_NODE_MAX: i64 = 100;

const PLACEMENT_STRATEGIES: &[&str] = &["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"];

/// One deployment with every option settled. `Serialize` gives the `deployment_config` object
/// of the status document (see `details`), `diff` compares two.
#[derive(Debug, Clone, PartialEq)]
pub struct DeploymentConfig {
    pub name: String,
    pub replicas: Replicas,
    pub max_ongoing_requests: u32,
    pub max_queued_requests: MaxQueued,
    pub backpressure_config: BackpressureConfig,
    pub user_config: Option<Map<String, Value>>,
    pub graceful_shutdown_wait_loop_s: f64,
    pub graceful_shutdown_timeout_s: f64,
    pub health_check_period_s: f64,
    pub health_check_timeout_s: f64,
    /// With `num_cpus` settled. Its `runtime_env` is the deployment's own.
    pub ray_actor_options: RayActorOptions,
    /// The deployment's environment over the application's: what a replica's process gets.
    pub runtime_env: Map<String, Value>,
    pub placement_group_bundles: Option<Vec<BTreeMap<String, f64>>>,
    pub placement_group_strategy: Option<String>,
    pub placement_group_bundle_label_selector: Option<Vec<BTreeMap<String, String>>>,
    pub max_replicas_per_node: Option<u32>,
    pub logging_config: Option<LoggingConfig>,
    pub request_router_config: RequestRouterConfig,
    pub gang_scheduling_config: Option<GangSchedulingConfig>,
    pub deployment_actors: Option<Vec<DeploymentActor>>,
    pub rolling_update_percentage: f64,
    /// None: not given, start-first with one wave. Zero: stop-first.
    pub max_surge_percent: Option<u32>,
    /// How a new version takes over the requests; None: as its replicas come.
    pub traffic: Option<Traffic>,
    /// How an autoscaled count is found, beyond Ray's words.
    pub scaling: Scaling,
    /// In which order requests that wait are started; None: in which they came.
    pub queueing: Option<Queueing>,
    /// The application's, on its ingress deployment only.
    pub route_prefix: Option<String>,
    /// The application's, see [`crate::code_version`].
    pub code_version: String,
}

/// How the count of replicas comes about.
#[derive(Debug, Clone, PartialEq)]
pub enum Replicas {
    Fixed(u32),
    Autoscaled(Box<AutoscalingConfig>),
}

/// Settles one deployment of an application. What the config says about it is `entry`, if
/// anything. An error becomes the application's `DEPLOY_FAILED` message.
pub fn resolve(
    defaults: &DeploymentDefaults,
    entry: Option<&DeploymentOverride>,
    app: &Application,
) -> Result<DeploymentConfig, LateError> {
    settle(defaults, entry, app).map_err(|error| with_name(&defaults.name, error))
}

/// Settles all deployments of an application, in the code's order, with all checks that Ray
/// makes after it answered 200.
pub fn resolve_application(
    code: &[DeploymentDefaults],
    app: &Application,
) -> Result<Vec<DeploymentConfig>, LateError> {
    let names: Vec<&str> = code.iter().map(|defaults| defaults.name.as_str()).collect();
    late_check_deployment_names(app, &names)?;
    let configs = code
        .iter()
        .map(|defaults| resolve(defaults, app.deployment(&defaults.name), app))
        .collect::<Result<_, _>>()?;
    late_check_route_prefix(app.route_prefix.as_deref())?;
    Ok(configs)
}

// === impl DeploymentConfig ===

impl DeploymentConfig {
    /// The count at a first deployment, before any autoscaling.
    pub fn first_replicas(&self, target_capacity: Option<f64>) -> u32 {
        let count = match &self.replicas {
            Replicas::Fixed(count) => *count,
            Replicas::Autoscaled(config) => config.first_replicas(),
        };
        scaled_count(count, target_capacity)
    }

    /// The environment variables of a replica's process.
    pub fn env_vars(&self) -> BTreeMap<String, String> {
        runtime_env::env_vars(&self.runtime_env)
    }
}

fn settle(
    defaults: &DeploymentDefaults,
    entry: Option<&DeploymentOverride>,
    app: &Application,
) -> Result<DeploymentConfig, LateError> {
    let given = entry.map(|entry| entry.options.clone()).unwrap_or_default();
    let replicas = replicas(&defaults.options, &given)?;
    let options = given.or(defaults.options.clone());
    check_placement(&options)?;
    check_gang(&options, &replicas)?;
    let mut actor_options = options.ray_actor_options.clone().unwrap_or_default();
    actor_options.num_cpus.get_or_insert(NUM_CPUS_DEFAULT);
    bundles::check_resources(&actor_options)?;
    bundles::check(&options, &actor_options)?;
    let seconds = |given: Option<f64>, default: f64| given.unwrap_or(default);
    Ok(DeploymentConfig {
        name: defaults.name.clone(),
        replicas,
        max_ongoing_requests: options
            .max_ongoing_requests
            .unwrap_or(MAX_ONGOING_REQUESTS_DEFAULT),
        max_queued_requests: options.max_queued_requests.unwrap_or_default(),
        backpressure_config: options.backpressure_config.unwrap_or_default(),
        user_config: options.user_config.into_value(),
        graceful_shutdown_wait_loop_s: seconds(
            options.graceful_shutdown_wait_loop_s,
            GRACEFUL_SHUTDOWN_WAIT_LOOP_S_DEFAULT,
        ),
        graceful_shutdown_timeout_s: seconds(
            options.graceful_shutdown_timeout_s,
            GRACEFUL_SHUTDOWN_TIMEOUT_S_DEFAULT,
        ),
        health_check_period_s: seconds(
            options.health_check_period_s,
            HEALTH_CHECK_PERIOD_S_DEFAULT,
        ),
        health_check_timeout_s: seconds(
            options.health_check_timeout_s,
            HEALTH_CHECK_TIMEOUT_S_DEFAULT,
        ),
        runtime_env: runtime_env::merge(&app.runtime_env, &actor_options.runtime_env),
        ray_actor_options: actor_options,
        placement_group_bundles: options.placement_group_bundles,
        placement_group_strategy: options.placement_group_strategy,
        placement_group_bundle_label_selector: options.placement_group_bundle_label_selector,
        max_replicas_per_node: replicas_per_node(options.max_replicas_per_node)?,
        logging_config: options
            .logging_config
            .or_else(|| app.logging_config.clone()),
        request_router_config: router(options.request_router_config.as_ref())?,
        gang_scheduling_config: options.gang_scheduling_config.into_value(),
        deployment_actors: actors(options.deployment_actors.value())?,
        rolling_update_percentage: options
            .rolling_update_percentage
            .unwrap_or(ROLLING_UPDATE_PERCENTAGE_DEFAULT),
        max_surge_percent: options.max_surge_percent,
        traffic: app.traffic(entry),
        scaling: Scaling::of(entry.and_then(|entry| entry.mobula.as_ref())).unwrap_or_default(),
        queueing: Queueing::of(entry.and_then(|entry| entry.mobula.as_ref())),
        route_prefix: app.route_prefix.clone().filter(|_| defaults.ingress),
        code_version: app.code_version().to_owned(),
    })
}

/// The one place where number, `auto` and autoscaling object of both sides meet.
fn replicas(code: &DeploymentOptions, given: &DeploymentOptions) -> Result<Replicas, LateError> {
    let autoscaled = |config| Ok(Replicas::Autoscaled(Box::new(config)));
    match (&given.num_replicas, &given.autoscaling_config) {
        (Given::Value(NumReplicas::Count(count)), _) => Ok(Replicas::Fixed(*count)),
        (Given::Value(NumReplicas::Auto), Given::Value(config)) => {
            autoscaled(late_check_autoscaling(config, true)?)
        }
        (Given::Value(NumReplicas::Auto), Given::Absent | Given::Null) => {
            autoscaled(code_autoscaling(code)?.unwrap_or_else(AutoscalingConfig::auto))
        }
        (Given::Absent | Given::Null, Given::Value(config)) => {
            autoscaled(late_check_autoscaling(config, false)?)
        }
        (Given::Absent | Given::Null, Given::Absent) => match code_autoscaling(code)? {
            Some(config) => autoscaled(config),
            None => Ok(Replicas::Fixed(code_count(code, given))),
        },
        (Given::Absent | Given::Null, Given::Null) => Ok(Replicas::Fixed(code_count(code, given))),
    }
}

fn code_autoscaling(code: &DeploymentOptions) -> Result<Option<AutoscalingConfig>, LateError> {
    let auto = code.num_replicas == Given::Value(NumReplicas::Auto);
    match code.autoscaling_config.value() {
        Some(config) => late_check_autoscaling(config, auto).map(Some),
        None => Ok(auto.then(AutoscalingConfig::auto)),
    }
}

/// A null in the config takes the code's number back.
fn code_count(code: &DeploymentOptions, given: &DeploymentOptions) -> u32 {
    match (&given.num_replicas, &code.num_replicas) {
        (Given::Absent, Given::Value(NumReplicas::Count(count))) => *count,
        (_, _) => NUM_REPLICAS_DEFAULT,
    }
}

fn check_placement(options: &DeploymentOptions) -> Result<(), LateError> {
    let Some(strategy) = &options.placement_group_strategy else {
        return Ok(());
    };
    if options.placement_group_bundles.is_none() {
        return Err(LateError::new(
            "If `placement_group_strategy` is provided, `placement_group_bundles` must also be \
             provided.",
        ));
    }
    if !PLACEMENT_STRATEGIES.contains(&strategy.as_str()) {
        let allowed = PLACEMENT_STRATEGIES.join(", ");
        let got = crate::error::quoted(strategy);
        let message = format!("placement_group_strategy must be one of {allowed}, got {got}");
        return Err(LateError::new(message));
    }
    Ok(())
}

fn check_gang(options: &DeploymentOptions, replicas: &Replicas) -> Result<(), LateError> {
    let Some(gang) = options.gang_scheduling_config.value() else {
        return Ok(());
    };
    let size = gang.gang_size;
    match replicas {
        Replicas::Fixed(count) if count % size != 0 => Err(LateError::new(format!(
            "num_replicas ({count}) must be a multiple of gang_size ({size})."
        ))),
        Replicas::Fixed(_) | Replicas::Autoscaled(_) => Ok(()),
    }
}

fn replicas_per_node(given: Option<i64>) -> Result<Option<u32>, LateError> {
    let Some(count) = given else { return Ok(None) };
    if !(1..=REPLICAS_PER_NODE_MAX).contains(&count) {
        return Err(LateError::new(format!(
            "Invalid max_replicas_per_node {count}. Valid values are None or an integer in the \
             range of [1, {REPLICAS_PER_NODE_MAX}]."
        )));
    }
    Ok(u32::try_from(count).ok())
}

fn router(given: Option<&Map<String, Value>>) -> Result<RequestRouterConfig, LateError> {
    match given {
        Some(config) => read_late(config, "request_router_config", RequestRouterConfig::read),
        None => Ok(RequestRouterConfig::default()),
    }
}

fn actors(
    given: Option<&Vec<Map<String, Value>>>,
) -> Result<Option<Vec<DeploymentActor>>, LateError> {
    let Some(given) = given else { return Ok(None) };
    let mut actors = Vec::with_capacity(given.len());
    for (index, actor) in given.iter().enumerate() {
        let path = format!("deployment_actors[{index}]");
        actors.push(read_late(actor, &path, DeploymentActor::read)?);
    }
    DeploymentActor::check_names(&actors).map_err(LateError::new)?;
    Ok(Some(actors))
}
