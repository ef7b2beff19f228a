//! The head's metrics, by Ray's names.
//!
//! State (statuses, counts) is written straight from the world, so that a series ends with the
//! thing it is about. What only an event knows is counted through the `metrics` recorder.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

use crate::world::World;
use crate::world::application_status::status;
use crate::world::intent::Phase;

/// Gauge: application.
pub const APPLICATION_STATUS: &str = "ray_serve_application_status";
/// Gauge: deployment, application.
pub const DEPLOYMENT_STATUS: &str = "ray_serve_deployment_status";
/// Gauge: deployment, application, replica.
pub const REPLICA_HEALTHY: &str = "ray_serve_deployment_replica_healthy";
/// Gauge: deployment, application.
pub const TARGET_REPLICAS: &str = "ray_serve_autoscaling_target_replicas";
/// Gauge: deployment, application.
pub const DESIRED_REPLICAS: &str = "ray_serve_autoscaling_desired_replicas";
/// Gauge: deployment, application.
pub const TOTAL_REQUESTS: &str = "ray_serve_autoscaling_total_requests";
/// Gauge: deployment, application.
pub const TARGET_ONGOING_REQUESTS: &str = "ray_serve_autoscaling_target_ongoing_requests";
/// Histogram: deployment, application.
pub const REPLICA_STARTUP_LATENCY_MS: &str = "ray_serve_replica_startup_latency_ms";
/// Counter: deployment, application, replica.
pub const HEALTH_CHECK_FAILURES: &str = "ray_serve_health_check_failures_total";
/// Counter: workers that were emptied to be taken away.
pub const COMPACTED_NODES: &str = "ray_serve_num_compacted_nodes_total";
/// Gauge.
pub const CONTROL_LOOP_DURATION_S: &str = "ray_serve_controller_control_loop_duration_s";
/// Gauge.
pub const CONTROL_LOOPS: &str = "ray_serve_controller_num_control_loops";
/// Gauge: workers that have a session.
pub const WORKERS: &str = "mobula_head_workers";
/// Gauge: routers that have a session.
pub const ROUTERS: &str = "mobula_head_routers";
/// Gauge: role, version; workers and routers that have a session.
pub const MEMBERS: &str = "mobula_head_members";

/// Describes what goes through the recorder.
pub fn describe() {
    describe_histogram!(
        REPLICA_STARTUP_LATENCY_MS,
        Unit::Milliseconds,
        "From the decision to start a replica until it is ready."
    );
    describe_counter!(
        HEALTH_CHECK_FAILURES,
        "Replicas that became unhealthy or died."
    );
    describe_counter!(
        COMPACTED_NODES,
        "Workers that were emptied so that they can be taken away."
    );
    describe_gauge!(
        CONTROL_LOOP_DURATION_S,
        Unit::Seconds,
        "The last pass of the controller."
    );
    describe_gauge!(
        CONTROL_LOOPS,
        "Passes of the controller since the head started."
    );
}

/// Labels and value of one series.
type Series = (Vec<(&'static str, String)>, f64);

/// The state of the world in the Prometheus text format.
pub fn exposition(world: &World) -> String {
    let applications = world.applications.iter().map(|(name, application)| {
        (
            vec![("application", name.clone())],
            f64::from(status(application).0.number()),
        )
    });
    let mut statuses = Vec::new();
    let mut targets = Vec::new();
    let mut healthy = Vec::new();
    let (mut desired, mut requests, mut per_replica) = (Vec::new(), Vec::new(), Vec::new());
    for (id, deployment) in world.deployments() {
        let labels = vec![
            ("deployment", id.deployment),
            ("application", id.application),
        ];
        statuses.push((labels.clone(), deployment.status.state.number().into()));
        targets.push((labels.clone(), deployment.target.into()));
        if let Some(autoscaling) = &deployment.spec.autoscaling {
            per_replica.push((labels.clone(), autoscaling.target_ongoing_requests));
            if let Some(wish) = &deployment.autoscaler.wish {
                desired.push((labels.clone(), wish.replicas.into()));
                requests.push((labels.clone(), wish.requests));
            }
        }
        for (replica, state) in &deployment.replicas {
            let mut labels = labels.clone();
            labels.push(("replica", replica.clone()));
            healthy.push((labels, f64::from(u8::from(state.phase == Phase::Running))));
        }
    }
    let workers = world
        .workers
        .values()
        .filter(|w| w.disconnected_since_ms.is_none())
        .count();
    let mut text = String::new();
    family(
        &mut text,
        APPLICATION_STATUS,
        "1 DEPLOY_FAILED, 2 UNHEALTHY, 3 NOT_STARTED, 4 DELETING, 5 DEPLOYING, 6 RUNNING.",
        applications.collect(),
    );
    family(
        &mut text,
        DEPLOYMENT_STATUS,
        "1 DEPLOY_FAILED, 2 UNHEALTHY, 3 UPDATING, 4 UPSCALING, 5 DOWNSCALING, 6 HEALTHY.",
        statuses,
    );
    family(
        &mut text,
        TARGET_REPLICAS,
        "Replicas that shall run.",
        targets,
    );
    for (name, help, series) in [
        (
            DESIRED_REPLICAS,
            "Replicas that the load asks for, before delays and bounds.",
            desired,
        ),
        (
            TOTAL_REQUESTS,
            "Requests waiting or in progress, as the policy sums them up.",
            requests,
        ),
        (
            TARGET_ONGOING_REQUESTS,
            "Requests that each replica shall have.",
            per_replica,
        ),
    ] {
        family(&mut text, name, help, series);
    }
    family(
        &mut text,
        REPLICA_HEALTHY,
        "Whether the replica runs and is well.",
        healthy,
    );
    let one = |value: usize| vec![(Vec::new(), value as f64)];
    family(&mut text, WORKERS, "Workers with a session.", one(workers));
    family(
        &mut text,
        ROUTERS,
        "Routers with a session.",
        one(world.routers.len()),
    );
    family(
        &mut text,
        MEMBERS,
        "Workers and routers with a session, by release.",
        members(world),
    );
    text
}

/// How many workers and routers there are of each release.
fn members(world: &World) -> Vec<Series> {
    let workers = world.workers.values();
    let connected = workers.filter(|worker| worker.disconnected_since_ms.is_none());
    let workers = connected.map(|worker| ("worker", &worker.version));
    let routers = world.routers.values();
    let routers = routers.map(|router| ("router", &router.version));
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for (role, version) in workers.chain(routers) {
        *counts.entry((role, version)).or_default() += 1;
    }
    let series = counts.into_iter().map(|((role, version), count)| {
        let labels = vec![("role", role.to_owned()), ("version", version.to_owned())];
        (labels, f64::from(count))
    });
    series.collect()
}

fn family(text: &mut String, name: &str, help: &str, series: Vec<Series>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
    for (labels, value) in series {
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{}\"", escaped(value)))
            .collect();
        let _ = if labels.is_empty() {
            writeln!(text, "{name} {value}")
        } else {
            writeln!(text, "{name}{{{}}} {value}", labels.join(","))
        };
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
