//! From the world to what one worker shall run. Pure.

use mobula_proto::v1;

use crate::world::intent::{Phase, Replica};
use crate::world::{DeploymentId, World};

/// The whole assignment of a worker, without a version.
pub fn assignment(world: &World, worker: &str) -> v1::WorkerAssignment {
    let mut replicas = Vec::new();
    let mut exists = false;
    for (id, deployment) in world.deployments() {
        for (replica_id, replica) in &deployment.replicas {
            if replica.worker != worker {
                continue;
            }
            exists = true;
            match replica.phase {
                Phase::Starting | Phase::Running | Phase::Unhealthy | Phase::Withdrawing { .. } => {
                    replicas.push(assigned(&id, replica_id, replica))
                }
                Phase::Stopping => {}
            }
        }
    }
    let draining = world
        .workers
        .get(worker)
        .is_some_and(|worker| worker.draining);
    v1::WorkerAssignment {
        version: 0,
        replicas,
        retire: draining && !exists,
    }
}

fn assigned(id: &DeploymentId, replica_id: &str, replica: &Replica) -> v1::AssignedReplica {
    let spec = &replica.spec;
    v1::AssignedReplica {
        replica_id: replica_id.to_owned(),
        application: id.application.clone(),
        deployment: id.deployment.clone(),
        import_path: spec.import_path.clone(),
        args_json: spec.args_json.clone(),
        env_vars: spec.env_vars.clone().into_iter().collect(),
        code_version: spec.code_version.clone(),
        user_config_json: spec.user_config_json.clone(),
        config_version: spec.config_version.clone(),
        max_ongoing_requests: spec.max_ongoing_requests,
        num_cpus: spec.num_cpus,
        graceful_shutdown_timeout_s: spec.graceful_shutdown_timeout_s,
        health_check_period_s: spec.health_check_period_s,
        health_check_timeout_s: spec.health_check_timeout_s,
        route_prefix: spec.route_prefix.clone(),
    }
}
