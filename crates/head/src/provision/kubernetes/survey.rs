//! How the pods stand, and what room is missing beyond all that is there or on its way. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::groups::Group;
use super::ledger::{Ledger, Spell};
use super::pods::{PodView, Pods, Stage};
use crate::world::Resources;
use crate::world::resources::{CPU, GPU};
use crate::world::supply::Demand;

/// A pod without a node for this long counts as room that does not come, and demand goes to
/// other groups. Above what a cluster autoscaler needs to notice the pod.
pub const UNSCHEDULABLE_MS: u64 = 30_000;

/// How a pod stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No worker of it has a session.
    Starting,
    /// Its worker takes replicas.
    Joined { replicas: usize },
    /// Of a template that was replaced: it has given its replicas away, or is about to, and
    /// stays for the case that they have to come back.
    Resting { replicas: usize },
    /// On its way out.
    Leaving,
    /// Nothing runs in it any more.
    Ended,
}

/// One look at everything.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    standings: BTreeMap<String, Standing>,
    /// Pods on their way that somebody waits for.
    needed: BTreeSet<String>,
    /// By group: pods on their way that nobody waits for, unseen ones included.
    pub spare: BTreeMap<String, u32>,
    /// By group: pods that count towards min and max.
    pub counted: BTreeMap<String, u32>,
    /// By group: pods on their way, unseen ones included.
    pub coming: BTreeMap<String, u32>,
    /// Groups with a pod that finds no node.
    pub unschedulable: BTreeSet<String>,
    /// Needs that no pod on its way will meet, the largest first.
    pub unmet: Vec<Resources>,
    /// The same of groups that need a pod for each; the pods on their way are spoken for.
    pub unmet_apart: Vec<Vec<Resources>>,
}

/// Room in a pod that is on its way.
struct Coming {
    uid: Option<String>,
    group: usize,
    free: Resources,
    used: bool,
}

// === impl Survey ===

impl Survey {
    /// Looks.
    pub fn of(
        groups: &[Group],
        pods: &Pods,
        demand: &Demand,
        ledger: &Ledger,
        now_ms: u64,
    ) -> Survey {
        let mut survey = Survey::default();
        let mut coming = Vec::new();
        for (uid, pod) in pods {
            let standing = standing(uid, pod, demand, ledger);
            survey.standings.insert(uid.clone(), standing);
            if !matches!(standing, Standing::Starting | Standing::Joined { .. }) {
                continue;
            }
            *survey.counted.entry(pod.group.clone()).or_default() += 1;
            if standing != Standing::Starting {
                continue;
            }
            *survey.coming.entry(pod.group.clone()).or_default() += 1;
            let stuck_ms = ledger.spell_ms(uid, Spell::Unschedulable, now_ms);
            if pod.stage == Stage::Unschedulable && stuck_ms >= UNSCHEDULABLE_MS {
                survey.unschedulable.insert(pod.group.clone());
                *survey.spare.entry(pod.group.clone()).or_default() += 1;
            } else if let Some(group) = groups.iter().position(|group| group.name == pod.group) {
                coming.push(Coming::new(groups, group, Some(uid.clone())));
            }
        }
        for name in ledger.unseen() {
            *survey.counted.entry(name.to_owned()).or_default() += 1;
            *survey.coming.entry(name.to_owned()).or_default() += 1;
            if let Some(group) = groups.iter().position(|group| group.name == name) {
                coming.push(Coming::new(groups, group, None));
            }
        }
        for needs in &demand.apart {
            survey.put_apart(groups, &mut coming, needs);
        }
        survey.pack(groups, coming, &demand.unplaced);
        survey
    }

    /// How a pod stands.
    pub fn standing(&self, uid: &str) -> Standing {
        let standing = self.standings.get(uid);
        standing.copied().unwrap_or(Standing::Leaving)
    }

    /// Whether replicas wait for that pod.
    pub fn is_needed(&self, uid: &str) -> bool {
        self.needed.contains(uid)
    }

    /// Pods of the group that count towards min and max.
    pub fn count(&self, group: &str) -> u32 {
        self.counted.get(group).copied().unwrap_or(0)
    }

    /// Puts needs that must not share a pod into the pods on their way.
    fn put_apart(&mut self, groups: &[Group], coming: &mut [Coming], needs: &[Resources]) {
        let mut taken = BTreeSet::new();
        let mut unmet = Vec::new();
        for need in needs {
            let rooms = coming.iter_mut().enumerate();
            let mut rooms = rooms.filter(|(index, room)| {
                let has = &groups[room.group].template.resources;
                !taken.contains(index) && room.free.has_room_for(need, has)
            });
            if let Some((index, room)) = rooms.next() {
                room.free.take(need);
                room.used = true;
                taken.insert(index);
            } else {
                unmet.push(need.clone());
            }
        }
        if !unmet.is_empty() {
            self.unmet_apart.push(unmet);
        }
    }

    /// Puts the needs into the pods on their way, the largest need first, where it fits first.
    fn pack(&mut self, groups: &[Group], mut coming: Vec<Coming>, unplaced: &[Resources]) {
        let mut needs = unplaced.to_vec();
        needs.sort_by_key(|need| std::cmp::Reverse((need.parts(GPU), need.parts(CPU))));
        for need in needs {
            let fits = |room: &&mut Coming| {
                room.free
                    .has_room_for(&need, &groups[room.group].template.resources)
            };
            match coming.iter_mut().find(fits) {
                Some(room) => {
                    room.free.take(&need);
                    room.used = true;
                }
                None => self.unmet.push(need),
            }
        }
        for room in coming {
            match (room.used, room.uid) {
                (true, Some(uid)) => {
                    self.needed.insert(uid);
                }
                (true, None) => {}
                (false, _) => {
                    let name = groups[room.group].name.clone();
                    *self.spare.entry(name).or_default() += 1;
                }
            }
        }
    }
}

// === impl Coming ===

impl Coming {
    fn new(groups: &[Group], group: usize, uid: Option<String>) -> Coming {
        Coming {
            uid,
            group,
            free: groups[group].template.resources.clone(),
            used: false,
        }
    }
}

fn standing(uid: &str, pod: &PodView, demand: &Demand, ledger: &Ledger) -> Standing {
    let worker = demand.workers.get(uid);
    let replicas = worker.map_or(0, |worker| worker.replicas);
    if pod.stage == Stage::Ended {
        Standing::Ended
    } else if pod.terminating || ledger.is_draining(uid) {
        Standing::Leaving
    } else if ledger.is_resting(uid) {
        Standing::Resting { replicas }
    } else if worker.is_some_and(|worker| worker.draining) && !ledger.is_waking(uid) {
        Standing::Leaving
    } else if worker.is_some_and(|worker| worker.connected) {
        Standing::Joined { replicas }
    } else {
        Standing::Starting
    }
}
