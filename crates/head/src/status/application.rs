//! One application of the document: its deployments, their replicas.

use serde_json::{Map, Value, json};

use super::{About, ids};
use crate::world::application_status::status;
use crate::world::deployment_status::State;
use crate::world::health::{has_its_config, on_draining_worker};
use crate::world::intent::{Application, DeadReplica, Deployment, Phase, Replica};
use crate::world::spec::BuiltApplication;
use crate::world::{Now, ReplicaId, World};

pub fn details(
    world: &World,
    about: &About,
    name: &str,
    application: &Application,
    now: Now,
) -> Value {
    let (state, message) = status(application);
    let built = application.built.as_ref();
    let deployments: Map<String, Value> = application
        .deployments
        .iter()
        .map(|(deployment, value)| {
            (
                deployment.clone(),
                deployment_details(world, about, name, value, now),
            )
        })
        .collect();
    let mut details = json!({
        "name": name,
        "route_prefix": built.and_then(|built| built.route_prefix.clone()),
        "docs_path": null,
        "status": state.name(),
        "message": message,
        "last_deployed_time_s": application.declared.deployed_time_s,
        "deployed_app_config": application.declared.raw,
        "source": "declarative",
        "deployments": deployments,
    });
    if about.ray_version.has_topology() {
        details["external_scaler_enabled"] =
            Value::Bool(application.declared.external_scaler_enabled);
        details["deployment_topology"] =
            built.map_or(Value::Null, |built| topology(name, application, built));
    }
    details
}

fn topology(name: &str, application: &Application, built: &BuiltApplication) -> Value {
    let nodes: Map<String, Value> = application
        .deployments
        .keys()
        .map(|deployment| {
            let node = json!({
                "name": deployment,
                "app_name": name,
                "outbound_deployments": [],
                "is_ingress": *deployment == built.ingress,
            });
            (deployment.clone(), node)
        })
        .collect();
    json!({"app_name": name, "ingress_deployment": built.ingress, "nodes": nodes})
}

fn deployment_details(
    world: &World,
    about: &About,
    application: &str,
    deployment: &Deployment,
    now: Now,
) -> Value {
    let spec = &deployment.spec;
    let replicas: Vec<Value> = deployment
        .replicas
        .iter()
        .map(|(id, replica)| {
            let node = world.workers.get(&replica.worker);
            replica_details(Shown {
                application,
                deployment: &spec.name,
                id,
                worker: &replica.worker,
                node_id: node.map_or("", |worker| &worker.node_id),
                node_ip: node.map_or("", |worker| &worker.node_ip),
                pid: node.map(|worker| worker.pid),
                start_time_s: replica.start_time_s,
                state: replica_state(world, id, replica),
            })
        })
        .collect();
    let mut details = json!({
        "name": spec.name,
        "status": deployment_status(about, deployment.status.state),
        "status_trigger": deployment.status.trigger.name(),
        "message": deployment.message(now),
        "deployment_config": spec.config,
        "target_num_replicas": deployment.target,
        "replicas": replicas,
    });
    if about.ray_version.has_target_groups() {
        details["required_resources"] = spec
            .replica
            .required
            .iter()
            .map(|(name, units)| (name.to_owned(), json!(units)))
            .collect::<Map<_, _>>()
            .into();
    }
    if about.ray_version.is_at_least_2_60() {
        let dead = deployment.dead.iter().rev();
        details["recent_dead_replicas"] = dead
            .map(|dead| dead_details(application, &spec.name, dead))
            .collect();
    }
    details
}

/// Ray 2.40 called a deployment that cannot start unhealthy; it refuses the newer word.
fn deployment_status(about: &About, state: State) -> &'static str {
    match state {
        State::DeployFailed if !about.ray_version.has_failed_deployments() => {
            State::Unhealthy.name()
        }
        state => state.name(),
    }
}

/// What is shown of a replica, dead or alive.
struct Shown<'a> {
    application: &'a str,
    deployment: &'a str,
    id: &'a str,
    worker: &'a str,
    node_id: &'a str,
    node_ip: &'a str,
    pid: Option<u32>,
    start_time_s: f64,
    state: &'static str,
}

fn dead_details(application: &str, deployment: &str, dead: &DeadReplica) -> Value {
    replica_details(Shown {
        application,
        deployment,
        id: &dead.id,
        worker: &dead.worker,
        node_id: &dead.node_id,
        node_ip: &dead.node_ip,
        pid: Some(dead.pid),
        start_time_s: dead.start_time_s,
        state: "STOPPED",
    })
}

fn replica_details(shown: Shown<'_>) -> Value {
    let Shown {
        application,
        deployment,
        id,
        ..
    } = shown;
    json!({
        "node_id": shown.node_id,
        "node_ip": shown.node_ip,
        "node_instance_id": "",
        "actor_id": ids::actor_id("replica", id),
        "actor_name": format!("SERVE_REPLICA::{application}#{deployment}#{id}"),
        "worker_id": shown.worker,
        "log_file_path": format!("/serve/replica_{application}_{deployment}_{id}.log"),
        "replica_id": id,
        "state": shown.state,
        "pid": shown.pid,
        "start_time_s": shown.start_time_s,
    })
}

/// Ray has no word for "answers, but is not well"; it stops such a replica at once, we when
/// its replacement is up, so until then it is a running one.
pub(crate) fn replica_state(world: &World, id: &ReplicaId, replica: &Replica) -> &'static str {
    match replica.phase {
        Phase::Starting => "STARTING",
        Phase::Running | Phase::Unhealthy
            if on_draining_worker(world, replica) || world.compaction.moves(id) =>
        {
            "PENDING_MIGRATION"
        }
        Phase::Running if !has_its_config(world, id, replica) => "UPDATING",
        Phase::Running | Phase::Unhealthy => "RUNNING",
        Phase::Withdrawing { .. } | Phase::Stopping => "STOPPING",
    }
}
