//! Where the replicas of one deployment are, so that the next one is kept apart from them.

use std::collections::{BTreeMap, BTreeSet};

use crate::world::group::Placed;
use crate::world::intent::Replica;
use crate::world::observed::Worker;
use crate::world::spec::DeploymentSpec;
use crate::world::{WorkerId, World};

/// The replicas of one deployment, by where they are. One with bundles is everywhere where it
/// has one: it fails with each of them.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    /// Those that stay, by machine: a new one is kept apart from them.
    on_nodes: BTreeMap<String, usize>,
    /// The same by worker.
    on_workers: BTreeMap<WorkerId, usize>,
    /// All that exist, leaving ones included, by machine: what the limit per machine counts.
    existing: BTreeMap<String, usize>,
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
            peers.stay(world, replica.workers(), 1);
        }
        peers
    }

    /// How many stay on the machine and the worker of a replica; with bundles: where most do.
    pub fn beside(&self, world: &World, replica: &Replica) -> (usize, usize) {
        let on = |id: &WorkerId| match world.workers.get(id) {
            Some(worker) => (self.on_node(worker), self.on_worker(worker)),
            None => (0, 0),
        };
        replica.workers().map(on).max().unwrap_or((0, 0))
    }

    /// One that stayed leaves.
    pub fn leaves(&mut self, world: &World, replica: &Replica) {
        self.stay(world, replica.workers(), -1);
    }

    /// A new one comes.
    pub fn comes(&mut self, world: &World, placed: &Placed) {
        let others = placed
            .reserved
            .iter()
            .map(|reservation| &reservation.worker);
        let others = others.filter(|other| **other != placed.worker);
        self.stay(world, std::iter::once(&placed.worker).chain(others), 1);
        if let Some(worker) = world.workers.get(&placed.worker) {
            *self.existing.entry(worker.node_id.clone()).or_default() += 1;
        }
    }

    pub fn on_node(&self, worker: &Worker) -> usize {
        count(self.on_nodes.get(&worker.node_id))
    }

    pub fn on_worker(&self, worker: &Worker) -> usize {
        count(self.on_workers.get(&worker.id))
    }

    /// Whether the machine may have one more, `leaving` of which are thought away.
    pub fn node_has_room(&self, worker: &Worker, spec: &DeploymentSpec, leaving: usize) -> bool {
        let there = count(self.existing.get(&worker.node_id)).saturating_sub(leaving);
        spec.replicas_per_node_max
            .is_none_or(|limit| there < limit as usize)
    }

    fn stay<'a>(&mut self, world: &World, ids: impl Iterator<Item = &'a WorkerId>, by: isize) {
        let mut nodes = BTreeSet::new();
        for worker in ids.filter_map(|id| world.workers.get(id)) {
            let on_worker = self.on_workers.entry(worker.id.clone()).or_default();
            *on_worker = on_worker.saturating_add_signed(by);
            if nodes.insert(&worker.node_id) {
                let on_node = self.on_nodes.entry(worker.node_id.clone()).or_default();
                *on_node = on_node.saturating_add_signed(by);
            }
        }
    }
}

fn count(count: Option<&usize>) -> usize {
    count.copied().unwrap_or(0)
}
