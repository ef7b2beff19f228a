//! Why something finds no room, and which room is missing.

use std::collections::BTreeSet;

use super::search::find_some;
use super::unit::{Part, Unit};
use super::{Free, Peers};
use crate::world::group::Strategy;
use crate::world::intent::Deployment;
use crate::world::observed::Worker;
use crate::world::reason::{Fits, Room};
use crate::world::spec::DeploymentSpec;
use crate::world::supply::Shortage;
use crate::world::{Reason, Resources, World};

// === impl Free ===

impl Free {
    /// What to say of a replica, or a gang, that found no room.
    pub fn waiting(
        &self,
        world: &World,
        deployment: &Deployment,
        peers: &Peers,
        placed: u32,
    ) -> Reason {
        let spec = &deployment.spec;
        let (fits, room) = self.room(world, spec, peers);
        Reason::Waiting {
            placed,
            target: deployment.target,
            needs: spec.replica.need(),
            fits,
            room,
        }
    }

    /// How far the unit gets, and what is in the way of the first part that does not fit.
    fn room(&self, world: &World, spec: &DeploymentSpec, peers: &Peers) -> (Option<Fits>, Room) {
        let unit = Unit::of(spec);
        let places = find_some(self, world, &unit, peers);
        let missing = places.iter().position(Option::is_none);
        let part = missing.and_then(|index| unit.parts.get(index));
        let Some(part) = part.or(unit.parts.first()) else {
            return (None, Room::NoWorkers);
        };
        let fits = (unit.parts.len() > 1).then(|| Fits {
            parts: places.iter().flatten().count(),
            of: unit.parts.len(),
            next: part.need.clone().into_owned(),
        });
        let mut left = self.clone();
        let mut nodes = BTreeSet::new();
        for (part, worker) in unit.parts.iter().zip(&places) {
            if let Some(worker) = worker {
                left.take(&worker.id, &part.need);
                nodes.insert(worker.node_id.as_str());
            }
        }
        if unit.strategy != Strategy::StrictSpread {
            nodes.clear();
        }
        (fits, left.room_for(world, &unit, part, peers, &nodes))
    }

    /// `nodes` may have nothing more of the unit.
    fn room_for(
        &self,
        world: &World,
        unit: &Unit<'_>,
        part: &Part<'_>,
        peers: &Peers,
        nodes: &BTreeSet<&str>,
    ) -> Room {
        let spec = unit.spec;
        let taking = world.workers.values().filter(|w| w.takes_replicas());
        let all = taking.count();
        if all == 0 {
            return Room::NoWorkers;
        }
        let allowed = world.workers.values().filter(|w| part.may_be_on(w));
        let allowed: Vec<&Worker> = allowed.collect();
        if allowed.is_empty() {
            let labels = part.labels();
            return Room::NoneWithLabels {
                workers: all,
                labels,
            };
        }
        let lacks = |worker: &Worker| self.on(worker).lacking(&part.need, &worker.capacity);
        // Room there is, where no more may go: the limit is what is in the way.
        let open = |worker: &Worker| !part.hosts || peers.node_has_room(worker, spec, 0);
        if let Some(limit) = spec.replicas_per_node_max
            && allowed.iter().any(|w| lacks(w).is_empty() && !open(w))
        {
            return Room::NodesFull { limit };
        }
        let others = allowed.iter().filter(|w| !nodes.contains(&*w.node_id));
        let nearest = others.min_by_key(|worker| {
            let lacks = lacks(worker);
            (distance(&lacks, &part.need), &worker.id)
        });
        let Some(nearest) = nearest else {
            return Room::NoOtherNode { nodes: nodes.len() };
        };
        let free = self.on(nearest);
        // Only what is asked for; the rest would not help the reader.
        let units = part.need.iter().map(|(name, _)| (name, free.units(name)));
        Room::Nearest {
            workers: allowed.len(),
            free: Resources::from_units(units),
            lacks: lacks(nearest),
        }
    }

    /// Notes what room is missing for that many units, each beside what the ones before would
    /// take.
    pub fn shortage(
        &self,
        world: &World,
        spec: &DeploymentSpec,
        peers: &Peers,
        units: usize,
        shortage: &mut Shortage,
    ) {
        let unit = Unit::of(spec);
        if let [part] = unit.parts.as_slice() {
            shortage.ask(std::iter::repeat_n(part.need.as_ref(), units));
            return;
        }
        let mut left = self.clone();
        for _ in 0..units {
            if shortage.is_full() {
                return;
            }
            let places = find_some(&left, world, &unit, peers);
            let mut missing = Vec::new();
            for (part, worker) in unit.parts.iter().zip(places) {
                match worker {
                    Some(worker) => {
                        left.take(&worker.id, &part.need);
                        shortage.held.insert(worker.id.clone());
                    }
                    None => missing.push(part.need.as_ref()),
                }
            }
            if unit.strategy == Strategy::StrictSpread {
                shortage.ask_apart(missing);
            } else {
                shortage.ask(missing.into_iter());
            }
        }
    }
}

/// How far a worker is from having room: the parts of what is asked for that it lacks, in
/// millionths.
fn distance(lacks: &Resources, need: &Resources) -> u64 {
    let part = |name: &str| {
        let millionths =
            u128::from(lacks.parts(name)) * 1_000_000 / u128::from(need.parts(name).max(1));
        u64::try_from(millionths).unwrap_or(u64::MAX)
    };
    lacks.names().map(part).fold(0, u64::saturating_add)
}
