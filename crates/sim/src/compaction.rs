//! Workers that are emptied so that they can go: in some simulations the load stays the same for
//! so long, and nothing is tried meanwhile, that the head gets to it. What moves does so under
//! load, so a request that is lost by it is seen as any other is; here is that it ends.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::rng::Rng;
use crate::sabotage::Sabotage;
use crate::worker::CPUS;

/// Of a hundred simulations, those that are long enough.
const LONG_PERCENT: u64 = 20;

/// How the head is told to do it.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// The load stays the same for so long that it comes to it.
    pub is_long: bool,
    /// `mobula.compaction`; None: what it is without.
    word: Option<&'static str>,
}

/// What became of it.
#[derive(Clone, Debug, Default)]
pub struct Emptied {
    /// The worker that is being emptied.
    now: Option<String>,
    /// Workers that were.
    pub workers: u64,
    /// Replicas that may still start; None: not all is well yet.
    starts_left: Option<u32>,
}

impl Mode {
    pub fn any(rng: &mut Rng, sabotage: Option<Sabotage>) -> Mode {
        let is_long = rng.percent(LONG_PERCENT) || sabotage == Some(Sabotage::MoveForEver);
        let words = if is_long {
            [None, Some("auto"), Some("always")]
        } else {
            [None, Some("auto"), Some("never")]
        };
        let word = words[rng.index(words.len())];
        Mode { is_long, word }
    }

    pub fn put_into(self, document: &mut Value) {
        if let Some(word) = self.word {
            document["mobula"] = json!({"compaction": word});
        }
    }
}

impl Cluster {
    /// All is well, and nobody changes anything any more. From here on a worker that is emptied
    /// stays empty, so each replica that is there may move once from each worker that it comes to.
    pub fn count_starts_from_now(&mut self) {
        if !self.outside.compaction.is_long {
            return;
        }
        let occupied = self.workers.iter().filter(|w| !w.replicas.is_empty());
        let occupied = occupied.count() as u32;
        self.emptied.starts_left = Some(occupied * CPUS as u32);
    }

    /// The load asks for more.
    pub fn more_may_start(&mut self, count: u32) {
        if let Some(left) = &mut self.emptied.starts_left {
            *left += count;
        }
    }

    pub fn replica_started(&mut self, id: &str) {
        match self.emptied.starts_left {
            None => {}
            Some(0) => {
                let text = format!("{id} starts, and more have moved than there are places");
                self.check.violated("replicas_do_not_move_for_ever", &text);
            }
            Some(left) => self.emptied.starts_left = Some(left - 1),
        }
    }

    /// Remembers which workers were emptied.
    pub fn watch_compaction(&mut self, h: usize) {
        let Some(lead) = self.heads[h].lead.as_ref() else {
            return;
        };
        let world = &lead.control.world;
        let emptying = world.compaction.emptied().map(ToOwned::to_owned);
        if emptying == self.emptied.now {
            return;
        }
        let deployments = world.deployments().map(|(_, deployment)| deployment);
        let replicas = deployments.flat_map(|deployment| deployment.replicas.values());
        let occupied: BTreeSet<&String> = replicas.map(|replica| &replica.worker).collect();
        let before = self.emptied.now.take();
        let is_done = |worker: &String| !occupied.contains(worker);
        if before.as_ref().is_some_and(is_done) {
            self.emptied.workers += 1;
        }
        let text = format!("head{h} empties {emptying:?}, after {before:?}");
        self.log(&text);
        self.emptied.now = emptying;
    }

    /// What a provisioner does that changes its mind all the time.
    pub fn take_another_pod(&mut self, h: usize) {
        const TURN_MS: u64 = 10_000;
        if self.outside.calm_from.is_none() || !self.breaks(Sabotage::MoveForEver) {
            return;
        }
        let turn = self.queue.now() / TURN_MS;
        let Some(supply) = self.kubernetes.supply_without_one(turn) else {
            return;
        };
        let now = self.queue.now();
        if let Some(lead) = self.heads[h].lead.as_mut() {
            let seen_at = lead.now(now);
            let event = mobula_head::world::Event::Supplied(supply);
            lead.control.observe(event, seen_at);
        }
    }
}
