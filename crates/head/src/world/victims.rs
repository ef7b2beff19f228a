//! Which replicas go when there are too many (Ray's order).

use std::cmp::Reverse;

use super::intent::{Phase, Replica};
use super::{ReplicaId, World};

/// How dear a replica is; the smallest goes first. The order of the fields is the policy.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    /// What does not answer yet costs nobody anything.
    is_running: bool,
    /// The head's own machine stays anyway.
    on_head_node: bool,
    /// Machines with few replicas can be emptied.
    replicas_on_node: usize,
    /// The newest first: it has served least.
    age: Reverse<u64>,
}

/// The `count` least dear of the candidates.
pub fn choose<'a>(
    world: &World,
    candidates: &[(&'a ReplicaId, &'a Replica)],
    count: usize,
) -> Vec<(&'a ReplicaId, &'a Replica)> {
    if count == 0 {
        return Vec::new();
    }
    let mut sorted = candidates.to_vec();
    sorted.sort_by_cached_key(|(_, replica)| worth(world, replica));
    sorted.truncate(count);
    sorted
}

fn worth(world: &World, replica: &Replica) -> Worth {
    let node = |replica: &Replica| {
        world
            .workers
            .get(&replica.worker)
            .map(|worker| worker.node_id.as_str())
    };
    let here = node(replica);
    let replicas_on_node = world
        .deployments()
        .flat_map(|(_, deployment)| deployment.replicas.values())
        .filter(|other| node(other) == here)
        .count();
    Worth {
        is_running: replica.phase == Phase::Running,
        on_head_node: here == Some(world.node_id.as_str()),
        replicas_on_node,
        age: Reverse(replica.serial),
    }
}
