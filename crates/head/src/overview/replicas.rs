//! The replicas of one deployment.

use serde::Serialize;

use super::shortened;
use crate::status::replica_state;
use crate::world::health::is_out_of_reach;
use crate::world::intent::{Deployment, Phase, Replica};
use crate::world::{DeploymentId, Now, World};

/// Replicas in one answer. Those that do not run come first, so that the limit hides none of
/// them that somebody looks for.
pub const REPLICAS_SHOWN_MAX: usize = 1_000;

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Replicas {
    /// Unix time at which it was made.
    pub time_s: f64,
    pub application: String,
    pub deployment: String,
    /// All there are.
    pub total: usize,
    pub replicas: Vec<ReplicaView>,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplicaView {
    pub id: String,
    /// As in the Serve document.
    pub state: &'static str,
    /// Its worker said nothing of late.
    pub out_of_reach: bool,
    /// It is of the newest code.
    pub newest: bool,
    pub worker: String,
    pub node_ip: String,
    pub pid: Option<u32>,
    /// Unix time.
    pub start_time_s: f64,
    /// Requests in progress, as its worker says.
    pub ongoing: Option<u32>,
    /// Why it failed or is not well.
    pub message: String,
}

/// None: there is no such deployment.
pub fn replicas(world: &World, id: &DeploymentId, now: Now) -> Option<Replicas> {
    let application = world.applications.get(&id.application)?;
    let deployment = application.deployments.get(&id.deployment)?;
    let mut all: Vec<_> = deployment.replicas.iter().collect();
    all.sort_by_key(|(_, replica)| (replica.phase == Phase::Running, replica.serial));
    let shown = all.iter().take(REPLICAS_SHOWN_MAX);
    Some(Replicas {
        time_s: now.unix_s,
        application: id.application.clone(),
        deployment: id.deployment.clone(),
        total: all.len(),
        replicas: shown
            .map(|(id, replica)| view(world, deployment, id, replica))
            .collect(),
    })
}

fn view(world: &World, deployment: &Deployment, id: &String, replica: &Replica) -> ReplicaView {
    let worker = world.workers.get(&replica.worker);
    let report = worker.and_then(|worker| worker.replicas.get(id));
    ReplicaView {
        id: id.clone(),
        state: replica_state(world, id, replica),
        out_of_reach: is_out_of_reach(world, replica),
        newest: deployment.is_current(replica),
        worker: replica.worker.clone(),
        node_ip: worker.map_or_else(String::new, |worker| worker.node_ip.clone()),
        pid: worker.map(|worker| worker.pid),
        start_time_s: replica.start_time_s,
        ongoing: report.map(|report| report.ongoing_requests),
        message: report.map_or_else(String::new, |report| shortened(&report.message)),
    }
}
