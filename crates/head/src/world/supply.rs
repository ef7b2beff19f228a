//! What the provisioner says of the workers that it can make and of those that go.

use std::collections::{BTreeMap, BTreeSet};

use super::observed::Worker;
use super::rollout::DRAIN_REPLACE_MS_MAX;
use super::{Now, Resources, WorkerId, World};

/// What the provisioner last said; the default is one that makes nothing on demand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supply {
    /// Room that is missing may still come, so nothing is given up for the lack of it.
    pub on_demand: bool,
    /// Pods that are about to go, and how long their replicas are kept for replacements.
    pub leaving: BTreeMap<String, u64>,
    /// Of those, the ones that stay when they are empty, and may be used again.
    pub resting: BTreeSet<String>,
    /// Pods that would be taken away if they were empty.
    pub releasable: BTreeSet<String>,
    /// Why no more workers come; empty: nothing is in the way.
    pub trouble: String,
}

/// Parts without room that are counted; a provisioner is not asked for more at once.
const UNPLACED_MAX: usize = 10_000;

/// What a plan found no room for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shortage {
    /// Needs that found no room, each of one worker.
    pub unplaced: Vec<Resources>,
    /// The same of groups that need a machine for each.
    pub apart: Vec<Vec<Resources>>,
    /// Workers whose room is kept in mind for what waits for the rest of its room.
    pub held: BTreeSet<WorkerId>,
}

/// What workers are needed for, and how those that exist are doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Demand {
    /// False: the head does not know yet what runs, so nothing may be concluded.
    pub synced: bool,
    /// Needs that found no room, each of one worker.
    pub unplaced: Vec<Resources>,
    /// The same of groups that need a machine for each.
    pub apart: Vec<Vec<Resources>>,
    /// Workers in pods, by pod.
    pub workers: BTreeMap<String, PodWorker>,
}

/// The worker in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodWorker {
    /// Replicas that are there, are about to be, or hold room there.
    pub replicas: usize,
    /// What they need.
    pub used: Resources,
    /// It takes no more replicas.
    pub draining: bool,
    /// It has a session.
    pub connected: bool,
    /// Replicas that failed there, in a row, of versions that run elsewhere.
    pub failures: u32,
}

// === impl World ===

impl World {
    /// Takes over what the provisioner says.
    pub(super) fn supplied(&mut self, supply: Supply, now: Now) {
        for worker in self.workers.values_mut() {
            if supply.takes_away(worker) {
                worker.draining = true;
                worker.draining_since_ms.get_or_insert(now.ms);
            } else if self.supply.is_resting(worker) {
                // It is used again. One that ends by itself says so within a second.
                worker.draining = false;
                worker.draining_since_ms = None;
            }
        }
        self.supply = supply;
    }

    /// A pod is gone, and the worker in it.
    pub(super) fn pod_gone(&mut self, pod: &str, now: Now) {
        let gone: Vec<WorkerId> = self
            .workers
            .values()
            .filter(|worker| worker.pod() == Some(pod))
            .map(|worker| worker.id.clone())
            .collect();
        for id in gone {
            self.worker_lost(&id, "its pod is gone", now);
        }
    }

    /// How long the replicas of a worker that leaves are kept for their replacements to come up.
    pub(super) fn replace_ms_max(&self, worker: &Worker) -> u64 {
        let pod = worker.pod();
        pod.and_then(|pod| self.supply.leaving.get(pod))
            .copied()
            .unwrap_or(DRAIN_REPLACE_MS_MAX)
    }

    /// What the provisioner shall know; nothing for one that makes nothing on demand.
    pub fn demand(&self, shortage: &Shortage, now: Now) -> Demand {
        if !self.supply.on_demand {
            return Demand::default();
        }
        let mut assigned: BTreeMap<&WorkerId, (usize, Resources)> = BTreeMap::new();
        for (_, deployment) in self.deployments() {
            for replica in deployment.replicas.values() {
                for worker in replica.workers() {
                    assigned.entry(worker).or_default().0 += 1;
                }
                let own = assigned.entry(&replica.worker).or_default();
                own.1.add(replica.spec.hosted());
                for reservation in &replica.reserved {
                    let there = assigned.entry(&reservation.worker).or_default();
                    there.1.add(&reservation.resources);
                }
            }
        }
        // What waits for the rest of its room would not find this again.
        for worker in &shortage.held {
            assigned.entry(worker).or_default().0 += 1;
        }
        let in_pods = self.workers.values().filter_map(|worker| {
            let (count, used) = assigned.remove(&worker.id).unwrap_or_default();
            let worker_view = PodWorker {
                replicas: count.max(worker.replicas.len()),
                used,
                draining: worker.draining,
                connected: worker.disconnected_since_ms.is_none(),
                failures: worker.failures,
            };
            Some((worker.pod()?.to_owned(), worker_view))
        });
        Demand {
            synced: self.is_synced(now),
            unplaced: shortage.unplaced.clone(),
            apart: shortage.apart.clone(),
            workers: in_pods.collect(),
        }
    }
}

// === impl Shortage ===

impl Shortage {
    /// Nobody counts any further.
    pub fn is_full(&self) -> bool {
        self.unplaced.len() + self.apart.len() >= UNPLACED_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.unplaced.is_empty() && self.apart.is_empty()
    }

    pub fn ask<'a>(&mut self, needs: impl Iterator<Item = &'a Resources>) {
        let left = UNPLACED_MAX.saturating_sub(self.unplaced.len());
        self.unplaced.extend(needs.take(left).cloned());
    }

    /// Each on another machine.
    pub fn ask_apart(&mut self, needs: Vec<&Resources>) {
        if !needs.is_empty() && !self.is_full() {
            self.apart.push(needs.into_iter().cloned().collect());
        }
    }
}

// === impl Supply ===

impl Supply {
    /// Whether the worker's pod is about to go.
    pub fn takes_away(&self, worker: &Worker) -> bool {
        let pod = worker.pod();
        pod.is_some_and(|pod| self.leaving.contains_key(pod))
    }

    /// Whether the worker's pod stays when it is empty.
    pub fn is_resting(&self, worker: &Worker) -> bool {
        let pod = worker.pod();
        pod.is_some_and(|pod| self.resting.contains(pod))
    }
}
