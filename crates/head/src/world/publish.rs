//! What others shall have: the route table and each worker's assignment, with versions that
//! change exactly when the content does.

use std::collections::{BTreeMap, BTreeSet};

use mobula_proto::v1;

use super::intent::Phase;
use super::{Now, WorkerId, World};
use crate::assignments::{Source, assignment, sources};
use crate::table::route_table;

/// What has been told to whom.
#[derive(Clone, Debug)]
pub struct Published {
    table: v1::RouteTable,
    assignments: BTreeMap<WorkerId, v1::WorkerAssignment>,
    /// What each of them was made from: making one anew costs far more than comparing this.
    sources: BTreeMap<WorkerId, Source>,
    version_base: u64,
}

// === impl Published ===

impl Published {
    /// Nothing told yet; all versions will be above the base.
    pub fn from_version(version_base: u64) -> Published {
        Published {
            table: v1::RouteTable::default(),
            assignments: BTreeMap::new(),
            sources: BTreeMap::new(),
            version_base,
        }
    }

    /// The version of the published table; 0: there is none yet.
    pub fn table_version(&self) -> u64 {
        self.table.version
    }

    /// The published table, if there is one.
    pub fn table(&self) -> Option<&v1::RouteTable> {
        (self.table.version > 0).then_some(&self.table)
    }

    /// The assignment of each worker that has reported.
    pub fn assignments(&self) -> &BTreeMap<WorkerId, v1::WorkerAssignment> {
        &self.assignments
    }

    /// The worker is gone for good.
    pub fn forget_worker(&mut self, worker: &str) {
        self.assignments.remove(worker);
        self.sources.remove(worker);
    }
}

// === impl World ===

impl World {
    /// Brings what is published up to date; true if anything changed.
    pub fn publish(&mut self, now: Now) -> bool {
        let assignments_changed = self.publish_assignments();
        // Routers keep their last table until a new one takes nothing from them that answers.
        let table_changed = self.knows_enough_for_a_table(now) && self.publish_table();
        assignments_changed || table_changed
    }

    fn publish_table(&mut self) -> bool {
        let mut table = route_table(self);
        table.version = self.published.table.version;
        let newest = self
            .routers
            .values()
            .map(|router| router.table_version)
            .max()
            .unwrap_or(0);
        let changed = table.version == 0 || newest > table.version || table != self.published.table;
        if changed {
            table.version = table.version.max(newest).max(self.published.version_base) + 1;
            self.published.table = table;
        }
        let version = self.published.table.version;
        for replica in self.replicas_mut() {
            if replica.phase
                == (Phase::Withdrawing {
                    table_version: None,
                })
            {
                replica.phase = Phase::Withdrawing {
                    table_version: Some(version),
                };
            }
        }
        changed
    }

    fn publish_assignments(&mut self) -> bool {
        let unheard = self.dropped_unheard();
        let mut changed = Vec::new();
        for (worker, source) in sources(self) {
            let reported = self.workers.get(&worker);
            let reported = reported.map_or(0, |worker| worker.assignment_version);
            let published = &self.published;
            let before = published.assignments.get(&worker);
            let version = before.map_or(0, |before| before.version);
            let same = before.is_some()
                && published.sources.get(&worker) == Some(&source)
                && !unheard.contains(&worker);
            if same && reported <= version {
                continue;
            }
            let version = version.max(reported).max(published.version_base) + 1;
            let assignment = assignment(&source, version);
            self.published
                .assignments
                .insert(worker.clone(), assignment);
            self.published.sources.insert(worker.clone(), source);
            changed.push((worker, version));
        }
        let versions: BTreeMap<WorkerId, u64> = changed.into_iter().collect();
        if versions.is_empty() {
            return false;
        }
        for replica in self.replicas_mut() {
            if replica.assigned_version.is_none() {
                replica.assigned_version = versions.get(&replica.worker).copied();
            }
        }
        true
    }

    /// Workers of replicas that were dropped before any assignment had them: the next one, though
    /// it says nothing new, has their workers say that they are not there.
    fn dropped_unheard(&self) -> BTreeSet<WorkerId> {
        self.deployments()
            .flat_map(|(_, deployment)| deployment.replicas.values())
            .filter(|r| r.assigned_version.is_none() && r.phase == Phase::Stopping)
            .map(|replica| replica.worker.clone())
            .collect()
    }

    fn replicas_mut(&mut self) -> impl Iterator<Item = &mut super::intent::Replica> {
        self.applications
            .values_mut()
            .flat_map(|application| application.deployments.values_mut())
            .flat_map(|deployment| deployment.replicas.values_mut())
    }
}
