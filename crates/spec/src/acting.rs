//! What is accepted and does nothing: the one table of it.
//!
//! Every field of Ray's schema is read and checked. Those that nothing acts on yet are named
//! here, and a config that gives one is warned. Whoever makes a field act deletes its line.

/// The objects of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Top,
    HttpOptions,
    GrpcOptions,
    ControllerOptions,
    LoggingConfig,
    TracingConfig,
    Application,
    Deployment,
    BackpressureConfig,
    AutoscalingConfig,
    AutoscalingPolicy,
    Budget,
    RayActorOptions,
    RequestRouterConfig,
    GangSchedulingConfig,
    DeploymentActor,
    Scaling,
    Schedule,
    Traffic,
    Queueing,
}

/// Fields that are checked and kept and have no effect in this release.
const NOT_ACTING: &[(Place, &str)] = &[
    (Place::Top, "controller_options"),
    (Place::Top, "logging_config"),
    (Place::Top, "tracing_config"),
    (Place::GrpcOptions, "grpc_servicer_functions"),
    (Place::Application, "logging_config"),
    (Place::Deployment, "logging_config"),
    (Place::Deployment, "request_router_config"),
    (Place::Deployment, "deployment_actors"),
    (Place::RayActorOptions, "accelerator_type"),
    (Place::RayActorOptions, "fallback_strategy"),
];

/// Fields that will never have an effect here, and why.
const NOT_NEEDED: &[(Place, &str, &str)] = &[
    (
        Place::Deployment,
        "graceful_shutdown_wait_loop_s",
        "has no effect: a replica stops as soon as its last request has ended",
    ),
    (
        Place::Application,
        "autoscaling_policy",
        "has no effect: Python code cannot run here, each deployment is scaled by its own \
         `autoscaling_config`. What exists: `mobula.autoscaling` of the application shares \
         max_replicas, max_cpus, max_gpus between its deployments by `priorities`, \
         `mobula.autoscaling.policy` of a deployment is one of default, reactive, and with \
         `external_scaler_enabled` counts are set by POST \
         /api/v1/applications/{application}/deployments/{deployment}/scale",
    ),
];

/// The keys of a `runtime_env`, which is an open object, that act.
const RUNTIME_ENV_ACTING: &[&str] = &["env_vars"];

/// Names of older releases that Ray ignores as it ignores any unknown key.
const LEGACY: &[(Place, &str, &str)] = &[
    (
        Place::Deployment,
        "max_concurrent_queries",
        "max_ongoing_requests",
    ),
    (
        Place::AutoscalingConfig,
        "target_num_ongoing_requests_per_replica",
        "target_ongoing_requests",
    ),
];

pub(crate) const NOT_YET: &str = "accepted, does not act yet";

/// Why a field has no effect, if it has none.
pub(crate) fn without_effect(place: Place, key: &str) -> Option<String> {
    if let Some((.., today)) = LEGACY
        .iter()
        .find(|(at, name, _)| *at == place && *name == key)
    {
        return Some(format!(
            "is an old name without effect, the field is now `{today}`"
        ));
    }
    if let Some((.., why)) = NOT_NEEDED
        .iter()
        .find(|(at, name, _)| *at == place && *name == key)
    {
        return Some((*why).to_owned());
    }
    NOT_ACTING
        .contains(&(place, key))
        .then(|| NOT_YET.to_owned())
}

pub(crate) fn runtime_env_acts(key: &str) -> bool {
    RUNTIME_ENV_ACTING.contains(&key)
}
