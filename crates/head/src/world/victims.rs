//! Which replicas go when there are too many: Ray's order, after what keeps the rest spread.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::gangs::{Pair, Together, together};
use super::intent::{Phase, Replica};
use super::placement::{Peers, replicas};
use super::{ReplicaId, World};

/// How dear a replica is; the smallest goes first. The order of the fields is the policy.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    /// What does not answer yet costs nobody anything.
    is_running: bool,
    /// Machines, then workers, with many of the same deployment can lose one, and the rest
    /// stays spread.
    peers: Reverse<(usize, usize)>,
    /// The head's own machine stays anyway.
    on_head_node: bool,
    /// Machines with few replicas can be emptied.
    replicas_on_node: usize,
    /// Requests in progress: who has few is soon drained.
    load: u32,
    /// The newest first: it has served least.
    age: Reverse<u64>,
}

/// The least dear of the candidates, which are all of one deployment that stay: `count` of them,
/// or fewer where gangs, which go whole, would be more.
pub fn choose<'a>(world: &World, candidates: &[Pair<'a>], count: usize) -> Vec<Pair<'a>> {
    if count == 0 {
        // The usual case; what follows looks at every replica of every deployment.
        return Vec::new();
    }
    let mut left = together(candidates.iter().copied());
    let mut peers = Peers::of(world, std::iter::empty(), replicas(candidates));
    let on_nodes = replicas_on_nodes(world);
    let mut chosen = Vec::new();
    // One after the other: each that goes changes how crowded its machine is.
    while chosen.len() < count {
        let room = count - chosen.len();
        let fitting = left.iter().enumerate();
        let fitting = fitting.filter(|(_, group)| group.members.len() <= room);
        let worth = |(_, group): &(usize, &Together<'_>)| {
            let members = group.members.iter();
            members
                .map(|(id, replica)| Worth::of(id, replica, world, &peers, &on_nodes))
                .min()
        };
        let Some((index, _)) = fitting.min_by_key(worth) else {
            break;
        };
        for (id, replica) in left.swap_remove(index).members {
            peers.leaves(world, replica);
            chosen.push((id, replica));
        }
    }
    chosen
}

/// All replicas of all deployments, by machine.
fn replicas_on_nodes(world: &World) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for replica in world.deployments().flat_map(|(_, d)| d.replicas.values()) {
        if let Some(node) = node_of(world, replica) {
            *counts.entry(node).or_default() += 1;
        }
    }
    counts
}

fn node_of<'a>(world: &'a World, replica: &Replica) -> Option<&'a str> {
    let worker = world.workers.get(&replica.worker)?;
    Some(worker.node_id.as_str())
}

// === impl Worth ===

impl Worth {
    fn of(
        id: &ReplicaId,
        replica: &Replica,
        world: &World,
        peers: &Peers,
        on_nodes: &BTreeMap<&str, usize>,
    ) -> Worth {
        let node = node_of(world, replica);
        let on_node = node.and_then(|node| on_nodes.get(node));
        let worker = world.workers.get(&replica.worker);
        let report = worker.and_then(|worker| worker.replicas.get(id));
        Worth {
            is_running: replica.phase == Phase::Running,
            peers: Reverse(peers.beside(world, replica)),
            on_head_node: node == Some(world.node_id.as_str()),
            replicas_on_node: on_node.copied().unwrap_or(0),
            load: report.map_or(0, |report| report.ongoing_requests),
            age: Reverse(replica.serial),
        }
    }
}
