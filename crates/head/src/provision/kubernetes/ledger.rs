//! What the provisioner remembers between two plans: what it asked for and has not seen yet,
//! since when pods have been as they are, and which groups get no more pods for a while. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::pods::{Pods, Stage};
use super::survey::{Standing, Survey};

/// A pod that was created is seen by the watch within this time, or was never made.
pub const CREATION_SEEN_MS_MAX: u64 = 30_000;

/// A deletion that shows no effect is asked for again.
pub const DELETION_RETRY_MS: u64 = 10_000;

/// The head hears within this time that a pod takes replicas again.
const WAKING_MS_MAX: u64 = 10_000;

/// The pause after a group's first refusal; it doubles.
const REFUSAL_PAUSE_MS_MIN: u64 = 1_000;

/// The longest pause: a quota that was raised is noticed within it.
const REFUSAL_PAUSE_MS_MAX: u64 = 30_000;

/// A process that did not look for so long stood still: it looks every second.
const STOOD_STILL_MS: u64 = 2_000;

/// After that it changes nothing for so long: if another head leads by now, it hears of that first.
const STOOD_STILL_PAUSE_MS: u64 = 2_000;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// When the last look ended.
    looked: Option<u64>,
    /// Nothing is changed before.
    still_until: u64,
    /// Created and not seen yet: name -> group and when.
    created: BTreeMap<String, (String, u64)>,
    /// Pods that we decided to take away.
    draining: BTreeSet<String>,
    /// When their deletion was last asked for.
    deleted: BTreeMap<String, u64>,
    /// Pods whose worker has joined at some time.
    joined: BTreeSet<String>,
    /// Since when pods have been without a worker.
    away: BTreeMap<String, u64>,
    /// Since when each pod has been as it is.
    spells: BTreeMap<String, (Spell, u64)>,
    /// Pods of a template that was replaced, which are kept for a while.
    resting: BTreeSet<String>,
    /// Pods that take replicas again, since when: the head may not know it yet.
    waking: BTreeMap<String, u64>,
    /// Since when pods have waited for something that does not come, an image for example.
    stuck: BTreeMap<String, u64>,
    /// By group.
    refusals: BTreeMap<String, Refusal>,
    /// By group and generation: pods that did not come to life, since the last one that did. As
    /// many as there are templates while the head runs: a few.
    failures: BTreeMap<(String, String), Failures>,
}

/// Pods of one generation that did not come to life, in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    pub times: u32,
    /// Why the last one did not.
    pub reason: String,
}

/// What a pod has been for a while, as far as that decides anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spell {
    /// No node has room for it.
    Unschedulable,
    /// It is not there yet and nobody waits for it.
    Unneeded,
    /// It has no replicas.
    Idle,
    /// It has given its replicas away and is kept.
    Rested,
    /// It has work, is waited for, or is on its way out.
    Busy,
}

/// A group gets no pods for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: String,
    pub until_ms: u64,
    times: u32,
}

// === impl Ledger ===

impl Ledger {
    /// A look begins. True: the process stood still a moment ago, so that what it believes may be
    /// another head's business by now.
    pub fn stood_still(&mut self, now_ms: u64) -> bool {
        let looked = self.looked.replace(now_ms);
        if looked.is_some_and(|looked| now_ms > looked + STOOD_STILL_MS) {
            self.still_until = now_ms + STOOD_STILL_PAUSE_MS;
        }
        now_ms < self.still_until
    }

    /// A look has ended; how long it took is no standing still.
    pub fn looked(&mut self, now_ms: u64) {
        self.looked = Some(now_ms);
    }

    /// A pod of that name was asked for.
    pub fn creating(&mut self, name: &str, group: &str, now_ms: u64) {
        self.created
            .insert(name.to_owned(), (group.to_owned(), now_ms));
    }

    /// It exists now, and the watch will show it.
    pub fn accepted(&mut self, group: &str) {
        self.refusals.remove(group);
    }

    /// It does not exist.
    pub fn refused(&mut self, name: &str, group: &str, reason: String, now_ms: u64) {
        self.created.remove(name);
        self.pause(group, reason, now_ms);
    }

    /// Whether it exists is not known: the watch will tell.
    pub fn unanswered(&mut self, group: &str, reason: String, now_ms: u64) {
        self.pause(group, reason, now_ms);
    }

    /// A pod of that generation did not come to life, for a reason that lies in its template.
    pub fn failed(&mut self, group: &str, generation: &str, reason: String) {
        let key = (group.to_owned(), generation.to_owned());
        let times = self.failures.get(&key).map_or(0, |failures| failures.times);
        let times = times.saturating_add(1);
        self.failures.insert(key, Failures { times, reason });
    }

    /// The failures of a generation since one of its pods came to life.
    pub fn failures(&self, group: &str, generation: &str) -> Option<&Failures> {
        self.failures
            .get(&(group.to_owned(), generation.to_owned()))
    }

    /// The pod shall go: its replicas leave, then it is deleted.
    pub fn drain(&mut self, uid: &str) {
        self.resting.remove(uid);
        self.draining.insert(uid.to_owned());
    }

    /// Its replicas shall leave, and it stays.
    pub fn rest(&mut self, uid: &str) {
        self.waking.remove(uid);
        self.resting.insert(uid.to_owned());
    }

    /// It takes replicas again.
    pub fn wake(&mut self, uid: &str, now_ms: u64) {
        self.resting.remove(uid);
        self.waking.insert(uid.to_owned(), now_ms);
    }

    /// Whether it is kept without replicas.
    pub fn is_resting(&self, uid: &str) -> bool {
        self.resting.contains(uid)
    }

    /// Pods that are kept without replicas.
    pub fn resting(&self) -> &BTreeSet<String> {
        &self.resting
    }

    /// Whether it takes replicas again and the head may not know it yet.
    pub fn is_waking(&self, uid: &str) -> bool {
        self.waking.contains_key(uid)
    }

    /// How long the pod has waited for something that does not come.
    pub fn stuck_ms(&self, uid: &str, now_ms: u64) -> u64 {
        let since = self.stuck.get(uid);
        since.map_or(0, |since| now_ms.saturating_sub(*since))
    }

    /// Its deletion was asked for.
    pub fn deleting(&mut self, uid: &str, now_ms: u64) {
        self.deleted.insert(uid.to_owned(), now_ms);
    }

    /// Whether we decided that it goes.
    pub fn is_draining(&self, uid: &str) -> bool {
        self.draining.contains(uid)
    }

    /// Whether its deletion may be asked for, again perhaps.
    pub fn may_delete(&self, uid: &str, now_ms: u64) -> bool {
        let last = self.deleted.get(uid);
        last.is_none_or(|last| now_ms.saturating_sub(*last) >= DELETION_RETRY_MS)
    }

    /// Groups of the pods that were asked for and not seen yet.
    pub fn unseen(&self) -> impl Iterator<Item = &str> {
        self.created.values().map(|(group, _)| group.as_str())
    }

    /// How long the pod has been like that.
    pub fn spell_ms(&self, uid: &str, spell: Spell, now_ms: u64) -> u64 {
        match self.spells.get(uid) {
            Some((held, since)) if *held == spell => now_ms.saturating_sub(*since),
            _ => 0,
        }
    }

    /// How long the pod has been without a worker.
    pub fn away_ms(&self, uid: &str, now_ms: u64) -> u64 {
        let since = self.away.get(uid);
        since.map_or(0, |since| now_ms.saturating_sub(*since))
    }

    /// Whether its worker has joined since the head started.
    pub fn has_joined(&self, uid: &str) -> bool {
        self.joined.contains(uid)
    }

    /// Whether the group gets no pods now.
    pub fn is_paused(&self, group: &str, now_ms: u64) -> bool {
        let refusal = self.refusals.get(group);
        refusal.is_some_and(|refusal| now_ms < refusal.until_ms)
    }

    /// Why groups have got no pods, by group.
    pub fn refusals(&self) -> &BTreeMap<String, Refusal> {
        &self.refusals
    }

    /// Forgets what is not awaited any more, and what is gone.
    pub fn forget(&mut self, pods: &Pods, now_ms: u64) {
        let names: BTreeSet<&str> = pods.values().map(|pod| pod.name.as_str()).collect();
        self.created.retain(|name, (_, since)| {
            !names.contains(name.as_str()) && now_ms.saturating_sub(*since) < CREATION_SEEN_MS_MAX
        });
        self.draining.retain(|uid| pods.contains_key(uid));
        self.deleted.retain(|uid, _| pods.contains_key(uid));
        self.joined.retain(|uid| pods.contains_key(uid));
        self.away.retain(|uid, _| pods.contains_key(uid));
        self.spells.retain(|uid, _| pods.contains_key(uid));
        self.stuck.retain(|uid, _| pods.contains_key(uid));
        self.resting.retain(|uid| pods.contains_key(uid));
        self.waking.retain(|uid, since| {
            pods.contains_key(uid) && now_ms.saturating_sub(*since) < WAKING_MS_MAX
        });
    }

    /// Follows how the pods are.
    pub fn follow(&mut self, survey: &Survey, pods: &Pods, now_ms: u64) {
        for (uid, pod) in pods {
            let standing = survey.standing(uid);
            if matches!(standing, Standing::Joined { .. }) && self.joined.insert(uid.clone()) {
                let key = (pod.group.clone(), pod.generation.clone());
                self.failures.remove(&key);
            }
            if pod.waits.as_ref().is_some_and(|wait| wait.is_stuck) {
                self.stuck.entry(uid.clone()).or_insert(now_ms);
            } else {
                self.stuck.remove(uid);
            }
            if standing == Standing::Starting {
                self.away.entry(uid.clone()).or_insert(now_ms);
            } else {
                self.away.remove(uid);
            }
            let spell = spell(standing, pod.stage, survey.is_needed(uid));
            let held = self.spells.get(uid).map(|(held, _)| *held);
            if held != Some(spell) {
                self.spells.insert(uid.clone(), (spell, now_ms));
                let is_news = standing == Standing::Ended && !self.joined.contains(uid);
                if is_news {
                    let reason = format!("pod {} ended before its worker joined", pod.name);
                    self.pause(&pod.group, reason.clone(), now_ms);
                    if !pod.terminating {
                        self.failed(&pod.group, &pod.generation, reason);
                    }
                }
            }
        }
    }

    fn pause(&mut self, group: &str, reason: String, now_ms: u64) {
        let times = self.refusals.get(group).map_or(0, |refusal| refusal.times);
        let pause = (REFUSAL_PAUSE_MS_MIN << times.min(16)).min(REFUSAL_PAUSE_MS_MAX);
        let refusal = Refusal {
            reason,
            until_ms: now_ms + pause,
            times: times.saturating_add(1),
        };
        self.refusals.insert(group.to_owned(), refusal);
    }
}

fn spell(standing: Standing, stage: Stage, needed: bool) -> Spell {
    match standing {
        Standing::Joined { replicas: 0 } => Spell::Idle,
        Standing::Resting { replicas: 0 } => Spell::Rested,
        Standing::Joined { .. }
        | Standing::Resting { .. }
        | Standing::Leaving
        | Standing::Ended => Spell::Busy,
        Standing::Starting => match stage {
            Stage::Unschedulable => Spell::Unschedulable,
            Stage::Pending if !needed => Spell::Unneeded,
            // What runs may serve: only its worker's session is away.
            Stage::Pending | Stage::Running | Stage::Ended => Spell::Busy,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_stood_still_changes_nothing_for_a_moment_and_a_long_look_is_no_standing_still() {
        let mut ledger = Ledger::default();
        assert!(!ledger.stood_still(50_000), "the first look");
        assert!(!ledger.stood_still(50_000 + STOOD_STILL_MS));
        // A look that took long, and the next one soon after it.
        ledger.looked(70_000);
        assert!(!ledger.stood_still(71_000));
        let woke = 71_000 + STOOD_STILL_MS + 1;
        assert!(ledger.stood_still(woke));
        assert!(ledger.stood_still(woke + STOOD_STILL_PAUSE_MS - 1));
        assert!(!ledger.stood_still(woke + STOOD_STILL_PAUSE_MS));
    }
}
