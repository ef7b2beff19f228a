//! Where new replicas go. Replicas of one deployment are spread over machines, then over
//! workers, so that the end of one does not take them all while there is a choice. Among equals
//! it is the fullest worker that has room, so that large replicas find room later and workers
//! can be emptied. What needs no GPU goes where GPUs are only when there is no room elsewhere.
//! Bundles and gangs are placed whole or not at all, as their strategy says.

mod peers;
mod room;
mod search;
mod unit;

use std::collections::{BTreeMap, BTreeSet};

use super::group::Placed;
use super::intent::Replica;
use super::observed::Worker;
use super::resources::GPU;
use super::spec::{DeploymentSpec, ReplicaSpec};
use super::{ReplicaId, Resources, WorkerId, World};

pub use peers::Peers;

use unit::Unit;

/// What each worker has free, as the plan goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Free(BTreeMap<WorkerId, Resources>);

/// What a worker has that is not known.
static NOTHING: Resources = Resources::NONE;

// === impl Free ===

impl Free {
    /// Capacities less what every replica occupies, leaving ones included: they hold their
    /// memory until they are gone.
    pub fn of(world: &World) -> Free {
        let workers = world.workers.values();
        let capacities = workers.map(|worker| (worker.id.clone(), worker.capacity.clone()));
        let mut free = Free(capacities.collect());
        for (_, deployment) in world.deployments() {
            for replica in deployment.replicas.values() {
                free.take(&replica.worker, replica.spec.hosted());
                for reservation in &replica.reserved {
                    free.take(&reservation.worker, &reservation.resources);
                }
            }
        }
        for reservation in world.remembered.values().flat_map(|r| &r.reserved) {
            free.take(&reservation.worker, &reservation.resources);
        }
        free
    }

    /// What a worker has free.
    pub fn on(&self, worker: &Worker) -> &Resources {
        self.0.get(&worker.id).unwrap_or(&NOTHING)
    }

    fn take(&mut self, worker: &str, resources: &Resources) {
        if let Some(free) = self.0.get_mut(worker) {
            free.take(resources);
        }
    }

    fn add(&mut self, worker: &str, resources: &Resources) {
        if let Some(free) = self.0.get_mut(worker) {
            free.add(resources);
        }
    }

    /// Takes room for one replica, or for one gang; None: there is none.
    pub fn place(
        &mut self,
        world: &World,
        spec: &DeploymentSpec,
        peers: &mut Peers,
    ) -> Option<Vec<Placed>> {
        let unit = Unit::of(spec);
        let workers = search::find(self, world, &unit, peers)?;
        let placed = unit.placed(&workers);
        for replica in &placed {
            self.occupy(&spec.replica, replica);
            peers.comes(world, replica);
        }
        Some(placed)
    }

    /// Takes room for a plain replica on that worker and no other; None: it has none.
    pub fn place_on(
        &mut self,
        world: &World,
        spec: &DeploymentSpec,
        worker: &str,
        peers: &mut Peers,
    ) -> Option<Vec<Placed>> {
        let unit = Unit::of(spec);
        let worker = world.workers.get(worker)?;
        let part = unit.parts.first()?;
        let fits = part.may_be_on(worker)
            && peers.node_has_room(worker, spec, 0)
            && self.on(worker).has_room_for(&part.need, &worker.capacity);
        if !fits {
            return None;
        }
        let placed = unit.placed(&[worker]);
        for replica in &placed {
            self.occupy(&spec.replica, replica);
            peers.comes(world, replica);
        }
        Some(placed)
    }

    /// Takes room for a plain replica that leaves `source` for one of the workers in `occupied`,
    /// where it is kept apart from its peers as well as before; None: there is none.
    pub fn place_elsewhere(
        &mut self,
        world: &World,
        spec: &DeploymentSpec,
        source: &Worker,
        occupied: &BTreeSet<&WorkerId>,
        peers: &mut Peers,
    ) -> Option<WorkerId> {
        let unit = Unit::of(spec);
        let part = unit.parts.first()?;
        let wastes_gpus = |worker: &Worker| !unit.needs_gpus && worker.capacity.parts(GPU) > 0;
        let suits = |worker: &&Worker| {
            let as_apart = if worker.node_id == source.node_id {
                peers.on_worker(worker) <= peers.on_worker(source)
            } else {
                peers.on_node(worker) <= peers.on_node(source)
            };
            as_apart
                && occupied.contains(&worker.id)
                && part.may_be_on(worker)
                && peers.node_has_room(worker, spec, 0)
                && (wastes_gpus(source) || !wastes_gpus(worker))
                && self.on(worker).has_room_for(&part.need, &worker.capacity)
        };
        let suiting = world.workers.values().filter(suits);
        let scored = suiting.map(|worker| {
            let score = search::score(world, &unit, part, peers, worker, self.on(worker));
            (score, worker)
        });
        let (_, best) = scored.min_by(|(one, _), (other, _)| one.cmp(other))?;
        let placed = unit.placed(&[best]);
        for replica in &placed {
            self.occupy(&spec.replica, replica);
            peers.comes(world, replica);
        }
        Some(best.id.clone())
    }

    fn occupy(&mut self, spec: &ReplicaSpec, placed: &Placed) {
        self.take(&placed.worker, spec.hosted());
        for reservation in &placed.reserved {
            self.take(&reservation.worker, &reservation.resources);
        }
    }

    /// A replica is thought away.
    pub fn give_back(&mut self, replica: &Replica) {
        self.add(&replica.worker, replica.spec.hosted());
        for reservation in &replica.reserved {
            self.add(&reservation.worker, &reservation.resources);
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
        let unit = Unit::of(spec);
        let (Some(worker), [part]) = (world.workers.get(&replica.worker), &*unit.parts) else {
            return false;
        };
        let mut free = self.on(worker).clone();
        free.add(replica.spec.hosted());
        part.may_be_on(worker)
            && peers.node_has_room(worker, spec, 1)
            && free.has_room_for(&part.need, &worker.capacity)
    }

    /// Whether a replica, or gang, would fit somewhere if those were gone.
    pub fn would_fit_without_all<'a>(
        &self,
        world: &World,
        leaving: impl Iterator<Item = &'a Replica>,
        spec: &DeploymentSpec,
        peers: &Peers,
    ) -> bool {
        let mut free = self.clone();
        leaving.for_each(|replica| free.give_back(replica));
        search::find(&free, world, &Unit::of(spec), peers).is_some()
    }
}

/// The replicas of a deployment without their ids.
pub fn replicas<'a>(
    pairs: &'a [(&'a ReplicaId, &'a Replica)],
) -> impl Iterator<Item = &'a Replica> {
    pairs.iter().map(|(_, replica)| *replica)
}
