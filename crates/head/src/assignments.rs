//! From the world to what each worker shall run. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use mobula_proto::v1;

use crate::world::intent::Phase;
use crate::world::resources::GPU;
use crate::world::spec::ReplicaSpec;
use crate::world::{ReplicaKey, WorkerId, World};

/// What the assignment of one worker is made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// In the order of the assignment.
    replicas: Vec<(ReplicaKey, Arc<ReplicaSpec>)>,
    retire: bool,
}

/// What each worker shall run, in one look at all replicas.
pub fn sources(world: &World) -> BTreeMap<WorkerId, Source> {
    let mut sources: BTreeMap<WorkerId, Source> = world
        .workers
        .values()
        .map(|worker| {
            let source = Source {
                replicas: Vec::new(),
                retire: worker.draining && !world.supply.is_resting(worker),
            };
            (worker.id.clone(), source)
        })
        .collect();
    for (id, deployment) in world.deployments() {
        for (replica_id, replica) in &deployment.replicas {
            // A worker that only holds bundles is needed as well.
            for worker in replica.workers() {
                if let Some(source) = sources.get_mut(worker) {
                    source.retire = false;
                }
            }
            let Some(source) = sources.get_mut(&replica.worker) else {
                continue;
            };
            match replica.phase {
                Phase::Starting | Phase::Running | Phase::Unhealthy | Phase::Withdrawing { .. } => {
                    let key = ReplicaKey {
                        deployment: id.clone(),
                        replica: replica_id.clone(),
                    };
                    source.replicas.push((key, Arc::clone(&replica.spec)));
                }
                Phase::Stopping => {}
            }
        }
    }
    sources
}

/// The whole assignment of a worker.
pub fn assignment(source: &Source, version: u64) -> v1::WorkerAssignment {
    let replicas = source.replicas.iter();
    v1::WorkerAssignment {
        version,
        replicas: replicas.map(|(key, spec)| assigned(key, spec)).collect(),
        retire: source.retire,
    }
}

fn assigned(key: &ReplicaKey, spec: &ReplicaSpec) -> v1::AssignedReplica {
    v1::AssignedReplica {
        replica_id: key.replica.clone(),
        application: key.deployment.application.clone(),
        deployment: key.deployment.deployment.clone(),
        import_path: spec.import_path.clone(),
        args_json: spec.args_json.clone(),
        env_vars: spec.env_vars.clone().into_iter().collect(),
        code_version: spec.code_version.clone(),
        user_config_json: spec.user_config_json.clone(),
        config_version: spec.config_version.clone(),
        max_ongoing_requests: spec.max_ongoing_requests,
        num_cpus: spec.num_cpus,
        num_gpus: spec.required.units(GPU),
        graceful_shutdown_timeout_s: spec.graceful_shutdown_timeout_s,
        health_check_period_s: spec.health_check_period_s,
        health_check_timeout_s: spec.health_check_timeout_s,
        route_prefix: spec.route_prefix.clone(),
    }
}
