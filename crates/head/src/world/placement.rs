//! Where a new replica goes. Replicas of one deployment are spread over machines, then over
//! workers, so that the end of one does not take them all while there is a choice. Among equals
//! it is the fullest worker that has room, so that large replicas find room later and workers
//! can be emptied. What needs no GPU goes where GPUs are only when there is no room elsewhere.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::intent::{Deployment, Replica};
use super::observed::Worker;
use super::reason::Room;
use super::resources::{CPU, GPU};
use super::spec::DeploymentSpec;
use super::{Reason, ReplicaId, Resources, WorkerId, World};

/// What each worker has free, as the plan goes on.
pub struct Free(BTreeMap<WorkerId, Resources>);

/// The replicas of one deployment, by where they are.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    /// Those that stay, by machine: a new one is kept apart from them.
    on_nodes: BTreeMap<String, usize>,
    /// The same by worker.
    on_workers: BTreeMap<WorkerId, usize>,
    /// All that exist, leaving ones included, by machine: what the limit per machine counts.
    existing: BTreeMap<String, usize>,
}

/// How well a worker suits; the smallest is taken. The order of the fields is the policy.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    /// Machines with GPUs are kept for who needs them.
    wastes_gpus: bool,
    /// The machine with the fewest of the same deployment.
    peers_on_node: usize,
    /// The worker with the fewest of the same deployment.
    peers_on_worker: usize,
    /// The one with the fewest GPUs left.
    gpus_left: u64,
    /// The fullest first.
    cpus_left: u64,
    /// Among equals the one with more replicas.
    replicas: Reverse<usize>,
    /// Any order, as long as it is always the same.
    worker: WorkerId,
}

// === impl Peers ===

impl Peers {
    /// All replicas of a deployment, and those of them that stay.
    pub fn of<'a>(
        world: &World,
        all: impl Iterator<Item = &'a Replica>,
        staying: impl Iterator<Item = &'a Replica>,
    ) -> Peers {
        let mut peers = Peers::default();
        for replica in all {
            if let Some(worker) = world.workers.get(&replica.worker) {
                *peers.existing.entry(worker.node_id.clone()).or_default() += 1;
            }
        }
        for replica in staying {
            peers.stay(world, replica, 1);
        }
        peers
    }

    /// How many stay on the machine and the worker of a replica.
    pub fn beside(&self, world: &World, replica: &Replica) -> (usize, usize) {
        let node = world.workers.get(&replica.worker).map(|w| &w.node_id);
        let on_node = node.and_then(|node| self.on_nodes.get(node));
        let on_worker = self.on_workers.get(&replica.worker);
        (count(on_node), count(on_worker))
    }

    /// One that stayed leaves.
    pub fn leaves(&mut self, world: &World, replica: &Replica) {
        self.stay(world, replica, -1);
    }

    fn stay(&mut self, world: &World, replica: &Replica, by: isize) {
        let Some(worker) = world.workers.get(&replica.worker) else {
            return;
        };
        let on_node = self.on_nodes.entry(worker.node_id.clone()).or_default();
        *on_node = on_node.saturating_add_signed(by);
        let on_worker = self.on_workers.entry(worker.id.clone()).or_default();
        *on_worker = on_worker.saturating_add_signed(by);
    }

    fn add(&mut self, worker: &Worker) {
        for (counts, key) in [
            (&mut self.on_nodes, &worker.node_id),
            (&mut self.on_workers, &worker.id),
            (&mut self.existing, &worker.node_id),
        ] {
            *counts.entry(key.clone()).or_default() += 1;
        }
    }

    /// Whether the machine may have one more, `leaving` of which are thought away.
    fn node_has_room(&self, worker: &Worker, spec: &DeploymentSpec, leaving: usize) -> bool {
        let there = count(self.existing.get(&worker.node_id)).saturating_sub(leaving);
        spec.replicas_per_node_max
            .is_none_or(|limit| there < limit as usize)
    }
}

fn count(count: Option<&usize>) -> usize {
    count.copied().unwrap_or(0)
}

// === impl Free ===

impl Free {
    /// Capacities less what every replica occupies, leaving ones included: they hold their
    /// memory until they are gone.
    pub fn of(world: &World) -> Free {
        let mut free: BTreeMap<WorkerId, Resources> = world
            .workers
            .values()
            .map(|worker| (worker.id.clone(), worker.capacity.clone()))
            .collect();
        for (_, deployment) in world.deployments() {
            for replica in deployment.replicas.values() {
                if let Some(free) = free.get_mut(&replica.worker) {
                    free.take(&replica.spec.required);
                }
            }
        }
        Free(free)
    }

    /// Takes room for one replica; None: no worker has it.
    pub fn place(
        &mut self,
        world: &World,
        spec: &DeploymentSpec,
        peers: &mut Peers,
    ) -> Option<WorkerId> {
        let need = &spec.replica.required;
        let best = eligible(world, spec)
            .filter(|worker| peers.node_has_room(worker, spec, 0))
            .filter_map(|worker| Some((self.score(worker, need, peers)?, worker)))
            .min_by(|(one, _), (other, _)| one.cmp(other));
        let (_, worker) = best?;
        peers.add(worker);
        if let Some(free) = self.0.get_mut(&worker.id) {
            free.take(need);
        }
        Some(worker.id.clone())
    }

    /// None: no room.
    fn score(&self, worker: &Worker, need: &Resources, peers: &Peers) -> Option<Score> {
        let free = self.0.get(&worker.id)?;
        free.has_room_for(need, &worker.capacity).then(|| Score {
            wastes_gpus: need.parts(GPU) == 0 && worker.capacity.parts(GPU) > 0,
            peers_on_node: count(peers.on_nodes.get(&worker.node_id)),
            peers_on_worker: count(peers.on_workers.get(&worker.id)),
            gpus_left: free.parts(GPU).saturating_sub(need.parts(GPU)),
            cpus_left: free.parts(CPU).saturating_sub(need.parts(CPU)),
            replicas: Reverse(worker.replicas.len()),
            worker: worker.id.clone(),
        })
    }

    /// A replica is thought away.
    pub fn give_back(&mut self, replica: &Replica) {
        if let Some(free) = self.0.get_mut(&replica.worker) {
            free.add(&replica.spec.required);
        }
    }

    /// Whether another replica would fit where `replica` is, if that one were gone.
    pub fn would_fit_without(
        &self,
        world: &World,
        replica: &Replica,
        spec: &DeploymentSpec,
        peers: &Peers,
    ) -> bool {
        let (Some(worker), Some(free)) = (
            world.workers.get(&replica.worker),
            self.0.get(&replica.worker),
        ) else {
            return false;
        };
        let mut free = free.clone();
        free.add(&replica.spec.required);
        worker.takes_replicas()
            && spec.labels.matches(&worker.labels)
            && peers.node_has_room(worker, spec, 1)
            && free.has_room_for(&spec.replica.required, &worker.capacity)
    }

    /// What to say of a replica that found no room.
    pub fn waiting(
        &self,
        world: &World,
        deployment: &Deployment,
        peers: &Peers,
        placed: u32,
    ) -> Reason {
        let spec = &deployment.spec;
        Reason::Waiting {
            placed,
            target: deployment.target,
            needs: spec.replica.required.clone(),
            room: self.room(world, spec, peers),
        }
    }

    fn room(&self, world: &World, spec: &DeploymentSpec, peers: &Peers) -> Room {
        let taking = world.workers.values().filter(|w| w.takes_replicas());
        let all = taking.count();
        if all == 0 {
            return Room::NoWorkers;
        }
        let eligible: Vec<_> = eligible(world, spec).collect();
        if eligible.is_empty() {
            let labels = spec.labels.clone();
            return Room::NoneWithLabels {
                workers: all,
                labels,
            };
        }
        let needs = &spec.replica.required;
        let open = |worker: &&Worker| peers.node_has_room(worker, spec, 0);
        let fits = |worker: &Worker| {
            let free = self.0.get(&worker.id);
            free.is_some_and(|free| free.has_room_for(needs, &worker.capacity))
        };
        // Room there is, where no more may go: the limit is what is in the way.
        if let Some(limit) = spec.replicas_per_node_max
            && eligible.iter().any(|w| fits(w) && !open(w))
        {
            return Room::NodesFull { limit };
        }
        let best = eligible
            .iter()
            .filter_map(|worker| self.0.get(&worker.id))
            .max_by_key(|free| (free.parts(GPU), free.parts(CPU)));
        // Only what is asked for; the rest would not help the reader.
        let units = |free: &Resources| {
            let units = needs.iter().map(|(name, _)| (name, free.units(name)));
            Resources::from_units(units)
        };
        Room::Best {
            workers: eligible.len(),
            free: best.map(units).unwrap_or_default(),
        }
    }
}

/// The workers that may have replicas of the deployment at all.
fn eligible<'a>(world: &'a World, spec: &DeploymentSpec) -> impl Iterator<Item = &'a Worker> {
    world
        .workers
        .values()
        .filter(|worker| worker.takes_replicas() && spec.labels.matches(&worker.labels))
}

/// The replicas of a deployment without their ids.
pub fn replicas<'a>(
    pairs: &'a [(&'a ReplicaId, &'a Replica)],
) -> impl Iterator<Item = &'a Replica> {
    pairs.iter().map(|(_, replica)| *replica)
}
