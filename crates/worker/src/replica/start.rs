//! From an assignment to a replica that may serve: build the application, construct, configure,
//! check health once. No time limit: loading a model takes as long as it takes, and a start that
//! nobody wants any more is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use mobula_app::{BuildContext, GpuShare, Registry, Replica, ReplicaContext, ReplicaFactory};
use mobula_proto::v1::AssignedReplica;
use serde_json::{Map, Value};

use super::checks::Checks;
use super::threads::Threads;
use super::unpanicked;
use crate::assignment::{Limits, UserConfig};

/// What it takes to construct any replica in this process.
pub(crate) struct Builder {
    pub registry: Registry,
    /// The process's environment.
    pub env: BTreeMap<String, String>,
    /// What the code of replicas runs on besides its calls.
    pub threads: Threads,
}

/// Constructs the replica and makes it ready; the error is the text for the head's report.
pub(crate) async fn start(
    builder: Arc<Builder>,
    assigned: AssignedReplica,
    gpus: Vec<GpuShare>,
) -> Result<Arc<dyn Replica>, String> {
    let threads = builder.threads.clone();
    let health_check_timeout = Limits::of(&assigned).health_check_timeout;
    let constructing = threads.run(move || construct(builder, assigned, gpus));
    let replica = constructing.await.flatten()?;
    let checks = Checks::new(Arc::clone(&replica), threads);
    checks.check(health_check_timeout).await?;
    Ok(replica)
}

async fn construct(
    builder: Arc<Builder>,
    assigned: AssignedReplica,
    gpus: Vec<GpuShare>,
) -> Result<Arc<dyn Replica>, String> {
    let config = UserConfig::of(&assigned);
    let (factory, context) = unpanicked(async { build(&builder, assigned, gpus) })
        .await
        .unwrap_or_else(|panic| Err(format!("building the application {panic}")))?;
    let replica: Arc<dyn Replica> = factory(context)
        .await
        .map_err(|error| error.to_string())?
        .into();
    reconfigure(replica.as_ref(), &config).await?;
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

/// Finds the deployment's factory. Builders are plain functions that may read files.
fn build(
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
