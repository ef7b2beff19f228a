//! Where a new replica goes: the fullest worker that has room, so that large replicas find
//! room later and workers can be emptied.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::intent::{Deployment, Replica};
use super::reason::Room;
use super::resources::{CPU, GPU};
use super::{Reason, Resources, WorkerId, World};

/// What each worker has free, as the plan goes on.
pub struct Free(BTreeMap<WorkerId, Resources>);

/// How well a worker suits; the smallest is taken. The order of the fields is the policy.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    /// Machines with GPUs are kept for who needs them.
    gpus_left: u64,
    /// The fullest first.
    cpus_left: u64,
    /// Among equals the one with more replicas.
    replicas: Reverse<usize>,
    /// Any order, as long as it is always the same.
    worker: WorkerId,
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
    pub fn place(&mut self, world: &World, need: &Resources) -> Option<WorkerId> {
        let score = world
            .workers
            .values()
            .filter(|worker| worker.takes_replicas())
            .filter_map(|worker| {
                let free = self.0.get(&worker.id)?;
                free.has_room_for(need, &worker.capacity).then(|| Score {
                    gpus_left: free.parts(GPU).saturating_sub(need.parts(GPU)),
                    cpus_left: free.parts(CPU).saturating_sub(need.parts(CPU)),
                    replicas: Reverse(worker.replicas.len()),
                    worker: worker.id.clone(),
                })
            })
            .min()?;
        if let Some(free) = self.0.get_mut(&score.worker) {
            free.take(need);
        }
        Some(score.worker)
    }

    /// A replica is thought away.
    pub fn give_back(&mut self, replica: &Replica) {
        if let Some(free) = self.0.get_mut(&replica.worker) {
            free.add(&replica.spec.required);
        }
    }

    /// Whether a replica of that need would fit where `replica` is, if that one were gone.
    pub fn would_fit_without(&self, world: &World, replica: &Replica, need: &Resources) -> bool {
        let (Some(worker), Some(free)) = (
            world.workers.get(&replica.worker),
            self.0.get(&replica.worker),
        ) else {
            return false;
        };
        let mut free = free.clone();
        free.add(&replica.spec.required);
        worker.takes_replicas() && free.has_room_for(need, &worker.capacity)
    }

    /// What to say of a replica that found no room.
    pub fn waiting(&self, world: &World, deployment: &Deployment, placed: u32) -> Reason {
        let needs = deployment.spec.replica.required.clone();
        let workers: Vec<_> = world
            .workers
            .values()
            .filter(|worker| worker.takes_replicas())
            .collect();
        let best = workers
            .iter()
            .filter_map(|worker| self.0.get(&worker.id))
            .max_by_key(|free| (free.parts(GPU), free.parts(CPU)));
        let room = match best {
            None => Room::NoWorkers,
            Some(free) => {
                // Only what is asked for; the rest would not help the reader.
                let units = needs.iter().map(|(name, _)| (name, free.units(name)));
                Room::Best {
                    workers: workers.len(),
                    free: Resources::from_units(units),
                }
            }
        };
        Reason::Waiting {
            placed,
            target: deployment.target,
            needs,
            room,
        }
    }
}
