//! From an assignment to a replica that may serve: build the application, construct, configure,
//! check health once. No time limit: loading a model takes as long as it takes, and a start that
//! nobody wants any more is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mobula_app::{BuildContext, GpuShare, Registry, Replica, ReplicaContext, ReplicaFactory};
use mobula_proto::v1::AssignedReplica;
use serde_json::{Map, Value};

use super::blocking::aside;
use super::{panic_text, unpanicked};
use crate::assignment::{Limits, UserConfig};

/// What it takes to construct any replica in this process.
pub(crate) struct Builder {
    pub registry: Registry,
    /// The process's environment.
    pub env: BTreeMap<String, String>,
}

/// Constructs the replica and makes it ready; the error is the text for the head's report.
pub(crate) async fn start(
    builder: Arc<Builder>,
    assigned: AssignedReplica,
    gpus: Vec<GpuShare>,
) -> Result<Arc<dyn Replica>, String> {
    // Most models are loaded by code that blocks.
    let starting = aside(move || unpanicked(start_unprotected(builder, assigned, gpus)));
    starting.await.map_err(|error| error.to_string())??
}

async fn start_unprotected(
    builder: Arc<Builder>,
    assigned: AssignedReplica,
    gpus: Vec<GpuShare>,
) -> Result<Arc<dyn Replica>, String> {
    let config = UserConfig::of(&assigned);
    let health_check_timeout = Limits::of(&assigned).health_check_timeout;
    let (factory, context) = build(builder, assigned, gpus).await?;
    let replica: Arc<dyn Replica> = factory(context)
        .await
        .map_err(|error| error.to_string())?
        .into();
    reconfigure(replica.as_ref(), &config).await?;
    check_health(replica.as_ref(), health_check_timeout).await?;
    Ok(replica)
}

/// Gives the code its `user_config`, if it has one.
pub(crate) async fn reconfigure(replica: &dyn Replica, config: &UserConfig) -> Result<(), String> {
    let Some(json) = &config.json else {
        return Ok(());
    };
    let user_config = serde_json::from_str(json)
        .map_err(|error| format!("user_config is not valid JSON: {error}"))?;
    unpanicked(replica.reconfigure(user_config))
        .await
        .and_then(|outcome| outcome.map_err(|error| error.to_string()))
        .map_err(|text| format!("reconfigure failed: {text}"))
}

/// One health check; taking too long is failing.
pub(crate) async fn check_health(replica: &dyn Replica, limit: Duration) -> Result<(), String> {
    match tokio::time::timeout(limit, unpanicked(replica.check_health())).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => Err(format!("health check failed: {error}")),
        Ok(Err(panic)) => Err(format!("health check {panic}")),
        Err(_) => Err(format!(
            "health check took longer than health_check_timeout_s ({} s)",
            limit.as_secs_f64()
        )),
    }
}

/// Finds the deployment's factory. Builders are plain functions that may read files, so they run
/// where blocking is allowed.
async fn build(
    builder: Arc<Builder>,
    assigned: AssignedReplica,
    gpus: Vec<GpuShare>,
) -> Result<(ReplicaFactory, ReplicaContext), String> {
    let building = move || build_blocking(&builder, assigned, gpus);
    let built = tokio::task::spawn_blocking(building).await;
    match built {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(format!(
            "building the application {}",
            panic_text(error.into_panic().as_ref())
        )),
        Err(error) => Err(error.to_string()),
    }
}

fn build_blocking(
    builder: &Builder,
    assigned: AssignedReplica,
    gpus: Vec<GpuShare>,
) -> Result<(ReplicaFactory, ReplicaContext), String> {
    let args = args(&assigned.args_json)?;
    let mut env = builder.env.clone();
    env.extend(assigned.env_vars);
    let context = BuildContext { args, env };
    let application = builder
        .registry
        .build(&assigned.import_path, &context)
        .map_err(|error| error.to_string())?;
    let deployment = application
        .deployment(&assigned.deployment)
        .ok_or_else(|| {
            format!(
                "the application '{}' has no deployment '{}'",
                assigned.import_path, assigned.deployment
            )
        })?;
    let user_config = match &assigned.user_config_json {
        None => None,
        Some(json) => Some(
            serde_json::from_str(json)
                .map_err(|error| format!("user_config is not valid JSON: {error}"))?,
        ),
    };
    let replica_context = ReplicaContext {
        application: assigned.application,
        deployment: assigned.deployment.clone(),
        replica_id: assigned.replica_id,
        args: Value::Object(context.args),
        user_config,
        env: context.env,
        num_cpus: assigned.num_cpus,
        gpus,
        max_ongoing_requests: assigned.max_ongoing_requests.max(1),
    };
    Ok((deployment.factory.clone(), replica_context))
}

fn args(json: &str) -> Result<Map<String, Value>, String> {
    if json.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(json).map_err(|error| format!("args is not a JSON object: {error}"))
}
