//! Which pods are gone. One whose worker has a session is not, whatever the API server shows: its
//! list may be empty by mistake. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::pods::{Pods, Stage};
use crate::world::supply::Demand;

/// Pods that are not shown while their workers have sessions are believed to be gone after this:
/// above what a session needs to break.
pub const DOUBT_MS_MAX: u64 = 30_000;

/// What was there.
#[derive(Clone, Debug, Default)]
pub struct RollCall {
    /// Pods of the last synced look that were alive.
    alive: BTreeSet<String>,
    /// Pods that are not seen any more although their workers have sessions, since when.
    vanished: BTreeMap<String, u64>,
}

// === impl RollCall ===

impl RollCall {
    /// Looks; returns the pods that are gone now, once.
    pub fn look(&mut self, pods: &Pods, demand: &Demand, now_ms: u64) -> Vec<String> {
        let alive: BTreeSet<String> = pods
            .iter()
            .filter(|(_, pod)| pod.stage != Stage::Ended)
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in self.alive.difference(&alive) {
            self.vanished.entry(uid.clone()).or_insert(now_ms);
        }
        self.alive = alive;
        let mut gone = Vec::new();
        let alive = &self.alive;
        self.vanished.retain(|uid, _| {
            let worker = demand.workers.get(uid);
            let has_session = worker.is_some_and(|worker| worker.connected);
            if !alive.contains(uid) && !has_session {
                gone.push(uid.clone());
            }
            !alive.contains(uid) && has_session
        });
        gone
    }

    /// Whether what is seen cannot be the whole truth, for now.
    pub fn is_doubtful(&self, pods: &Pods, now_ms: u64) -> bool {
        let mut vanished = self.vanished.iter();
        vanished.any(|(uid, since)| {
            !pods.contains_key(uid) && now_ms.saturating_sub(*since) < DOUBT_MS_MAX
        })
    }
}
