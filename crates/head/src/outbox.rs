//! Where others read the newest published state: one `watch` channel per reader's interest,
//! so that a slow reader sees the newest and costs nobody anything.

use std::collections::HashMap;

use mobula_proto::encoded::EncodedTable;
use mobula_proto::v1;
use tokio::sync::watch;

use crate::world::supply::Demand;
use crate::world::{WorkerId, World};

/// Where others read the newest state.
pub struct Outbox {
    /// The route table, for every router.
    pub table: watch::Sender<EncodedTable>,
    /// Whether anything is deployed or being deleted.
    pub serving: watch::Sender<bool>,
    /// What workers are needed for.
    pub demand: watch::Sender<Demand>,
    /// What each worker shall run.
    workers: HashMap<WorkerId, watch::Sender<v1::WorkerAssignment>>,
}

// === impl Outbox ===

impl Outbox {
    /// Nothing published yet.
    pub fn new() -> Outbox {
        Outbox {
            table: watch::Sender::new(EncodedTable::default()),
            serving: watch::Sender::new(false),
            demand: watch::Sender::new(Demand::default()),
            workers: HashMap::new(),
        }
    }

    /// Where a worker's assignment can be read; version 0: there is none yet.
    pub fn assignments_of(&mut self, worker: WorkerId) -> watch::Receiver<v1::WorkerAssignment> {
        self.workers.entry(worker).or_default().subscribe()
    }

    /// Tells the provisioner what is needed, if that changed.
    pub fn ask(&self, demand: Demand) {
        self.demand.send_if_modified(|held| {
            let newer = *held != demand;
            if newer {
                *held = demand;
            }
            newer
        });
    }

    /// Brings every channel up to date.
    pub fn publish(&mut self, world: &World) {
        if let Some(table) = world.published.table() {
            self.table.send_if_modified(|held| {
                let newer = held.version() != table.version;
                if newer {
                    *held = EncodedTable::of(table);
                }
                newer
            });
        }
        let assignments = world.published.assignments();
        self.workers
            .retain(|worker, _| assignments.contains_key(worker));
        for (worker, assignment) in assignments {
            self.workers
                .entry(worker.clone())
                .or_default()
                .send_if_modified(|held| {
                    let newer = held.version != assignment.version;
                    if newer {
                        held.clone_from(assignment);
                    }
                    newer
                });
        }
        let serving = world.serving.is_some();
        self.serving
            .send_if_modified(|held| std::mem::replace(held, serving) != serving);
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Outbox::new()
    }
}
