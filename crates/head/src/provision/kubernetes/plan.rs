//! Which pods to make and which to take away, each with its reason. Pure: the groups, the pods
//! that a synced watch shows, what the head needs, the ledger and the time are arguments.

use std::collections::BTreeMap;

use super::action::{Action, Planned, Reason};
use super::groups::Group;
use super::ledger::{Ledger, Spell};
use super::pods::{PodView, Pods, Stage};
use super::survey::{Standing, Survey};
use crate::world::Resources;
use crate::world::resources::GPU;
use crate::world::supply::Demand;

/// Pods created by one plan; the next one follows as soon as these are seen.
pub const CREATIONS_PER_PLAN_MAX: usize = 32;

/// A pod on its way that nobody waits for any more goes after this, or after its group's idle
/// timeout if that is shorter: demand that comes and goes within it moves nothing.
pub const UNNEEDED_MS: u64 = 5_000;

/// Makes one plan.
pub(super) struct Planner<'a> {
    pub(super) groups: &'a [Group],
    pub(super) pods: &'a Pods,
    pub(super) demand: &'a Demand,
    pub(super) ledger: &'a Ledger,
    pub(super) survey: &'a Survey,
    pub(super) now_ms: u64,
    pub(super) planned: Vec<Planned>,
    /// What this plan adds to each group's count.
    pub(super) added: BTreeMap<String, u32>,
    /// What it takes from it.
    pub(super) taken: BTreeMap<String, u32>,
}

/// Decides. An unsynced demand decides nothing; the pods must be those of a synced watch.
pub fn plan(
    groups: &[Group],
    pods: &Pods,
    demand: &Demand,
    ledger: &Ledger,
    survey: &Survey,
    now_ms: u64,
) -> Vec<Planned> {
    if !demand.synced {
        return Vec::new();
    }
    let mut planner = Planner {
        groups,
        pods,
        demand,
        ledger,
        survey,
        now_ms,
        planned: Vec::new(),
        added: BTreeMap::new(),
        taken: BTreeMap::new(),
    };
    planner.finish();
    planner.meet_demand();
    for group in groups {
        planner.reach_min(group);
        planner.roll(group);
        planner.shrink(group);
    }
    planner.planned
}

// === impl Planner ===

impl Planner<'_> {
    /// Deletes what has ended or drained, and drains what no group wants.
    fn finish(&mut self) {
        for (uid, pod) in self.pods {
            let worker = self.demand.workers.get(uid);
            let empty = worker.is_none_or(|worker| worker.draining && worker.replicas == 0);
            match self.survey.standing(uid) {
                Standing::Ended if !pod.terminating => self.delete(uid, pod, Reason::Ended),
                Standing::Leaving if self.ledger.is_draining(uid) && !pod.terminating && empty => {
                    self.delete(uid, pod, Reason::Drained);
                }
                Standing::Starting | Standing::Joined { .. } | Standing::Resting { .. } => {
                    if !self.groups.iter().any(|group| group.name == pod.group) {
                        self.drain(uid, &pod.group, Reason::NoSuchGroup);
                    }
                }
                Standing::Leaving | Standing::Ended => {}
            }
        }
    }

    /// Makes pods for the replicas that no pod has room for, the best group first.
    fn meet_demand(&mut self) {
        let mut fresh: Vec<(usize, Resources)> = Vec::new();
        for needs in &self.survey.unmet_apart {
            // Each its own pod, whatever room the others have.
            for need in needs {
                fresh.extend(self.create_for(need));
            }
        }
        for need in &self.survey.unmet {
            let room = fresh.iter_mut().find(|(group, free)| {
                free.has_room_for(need, &self.groups[*group].template.resources)
            });
            if let Some((_, free)) = room {
                free.take(need);
                continue;
            }
            fresh.extend(self.create_for(need));
        }
    }

    /// A pod for the need, and what room it has left.
    fn create_for(&mut self, need: &Resources) -> Option<(usize, Resources)> {
        let index = self.group_for(need)?;
        let group = &self.groups[index];
        let mut free = group.template.resources.clone();
        free.take(need);
        self.create(group, Reason::NoRoom { need: need.clone() });
        Some((index, free))
    }

    /// The group whose pod the need gets: by priority, then one without GPUs that nobody asked
    /// for, then by order in the file.
    fn group_for(&self, need: &Resources) -> Option<usize> {
        (0..self.groups.len())
            .filter(|index| {
                let group = &self.groups[*index];
                group.template.resources.has_room_for(need, &group.template.resources)
                    && self.may_grow(group, 0)
                    // One that is empty and was not taken shows that another would not help:
                    // labels keep the replica away.
                    && !self.joined(group).any(|(_, _, replicas)| replicas == 0)
            })
            .min_by_key(|index| {
                let group = &self.groups[*index];
                let wasted_gpus = group.template.resources.parts(GPU) - need.parts(GPU);
                (std::cmp::Reverse(group.priority), wasted_gpus, *index)
            })
    }

    fn reach_min(&mut self, group: &Group) {
        while self.count(group) < group.min && self.may_grow(group, 0) {
            let count = self.count(group);
            let min = group.min;
            self.create(group, Reason::BelowMin { count, min });
        }
        let idle = self.joined(group).filter(|(_, _, replicas)| *replicas == 0);
        let spare = self.survey.spare.get(&group.name).copied().unwrap_or(0);
        let mut free = idle.count() as u32 + spare;
        while free < group.headroom && self.may_grow(group, 0) {
            let headroom = group.headroom;
            self.create(group, Reason::Headroom { free, headroom });
            free += 1;
        }
    }

    /// Takes away what nobody needs: pods on their way before those that are there.
    fn shrink(&mut self, group: &Group) {
        let pods = self.pods;
        let rolling = self.is_rolling(group);
        let mut candidates = Vec::new();
        for (uid, pod) in pods.iter().filter(|(_, pod)| pod.group == group.name) {
            let been = |spell| self.ledger.spell_ms(uid, spell, self.now_ms);
            match self.survey.standing(uid) {
                Standing::Starting => {
                    let waited = self.ledger.away_ms(uid, self.now_ms);
                    let unneeded = match pod.stage {
                        // It makes up for one that will go.
                        _ if rolling && !is_old(group, pod) => 0,
                        Stage::Unschedulable if self.is_wanted(uid, group) => 0,
                        Stage::Unschedulable => been(Spell::Unschedulable),
                        Stage::Pending | Stage::Running | Stage::Ended => been(Spell::Unneeded),
                    };
                    if unneeded > 0 && unneeded >= UNNEEDED_MS.min(group.idle_timeout_ms) {
                        candidates.push((0, uid, Reason::Unneeded));
                    } else if waited >= group.startup_ms && pod.stage != Stage::Unschedulable {
                        self.drain(uid, &group.name, Reason::NeverJoined { ms: waited });
                    }
                }
                Standing::Joined { replicas: 0 } => {
                    let ms = been(Spell::Idle);
                    // While a template is rolled out, new pods are empty for a reason.
                    if ms >= group.idle_timeout_ms && !rolling {
                        candidates.push((1, uid, Reason::Idle { ms }));
                    }
                }
                Standing::Joined { .. }
                | Standing::Resting { .. }
                | Standing::Leaving
                | Standing::Ended => {}
            }
        }
        candidates.sort_by_key(|(order, _, _)| *order);
        let idle = self.joined(group).filter(|(_, _, replicas)| *replicas == 0);
        let mut free = idle.count() as u32 + self.survey.spare.get(&group.name).unwrap_or(&0);
        for (_, uid, reason) in candidates {
            if self.count(group) <= group.min || free <= group.headroom {
                return;
            }
            if !self.is_planned(uid) {
                free -= 1;
                self.drain(uid, &group.name, reason);
            }
        }
    }

    // --- looking ---

    /// Whether somebody waits for the pod, or would if it had a node.
    fn is_wanted(&self, uid: &str, group: &Group) -> bool {
        let apart = self.survey.unmet_apart.iter().flatten();
        let mut unmet = self.survey.unmet.iter().chain(apart);
        let fits = |need| {
            group
                .template
                .resources
                .has_room_for(need, &group.template.resources)
        };
        self.survey.is_needed(uid) || unmet.any(fits)
    }

    pub(super) fn joined<'b>(
        &'b self,
        group: &'b Group,
    ) -> impl Iterator<Item = (&'b String, &'b PodView, usize)> {
        let ours = self.pods.iter().filter(|(_, pod)| pod.group == group.name);
        ours.filter_map(|(uid, pod)| match self.survey.standing(uid) {
            Standing::Joined { replicas } => Some((uid, pod, replicas)),
            Standing::Starting | Standing::Resting { .. } | Standing::Leaving | Standing::Ended => {
                None
            }
        })
    }

    /// Whether pods of the group are, or are about to be, replaced by others of it.
    fn is_rolling(&self, group: &Group) -> bool {
        let mut ours = self.pods.iter().filter(|(_, pod)| pod.group == group.name);
        ours.any(|(uid, pod)| match self.survey.standing(uid) {
            Standing::Joined { .. } => is_old(group, pod),
            Standing::Resting { .. } | Standing::Leaving => {
                let worker = self.demand.workers.get(uid);
                worker.is_some_and(|worker| worker.replicas > 0)
            }
            Standing::Starting | Standing::Ended => false,
        })
    }

    pub(super) fn count(&self, group: &Group) -> u32 {
        let added = self.added.get(&group.name).copied().unwrap_or(0);
        let taken = self.taken.get(&group.name).copied().unwrap_or(0);
        (self.survey.count(&group.name) + added).saturating_sub(taken)
    }

    pub(super) fn coming(&self, group: &Group) -> u32 {
        let coming = self.survey.coming.get(&group.name).copied().unwrap_or(0);
        coming + self.added.get(&group.name).copied().unwrap_or(0)
    }

    /// Whether the group may have one more pod.
    pub(super) fn may_grow(&self, group: &Group, surge: u32) -> bool {
        let creations = self.added.values().sum::<u32>() as usize;
        self.count(group) < group.max + surge
            && creations < CREATIONS_PER_PLAN_MAX
            && !self.ledger.is_paused(&group.name, self.now_ms)
            && !self.survey.unschedulable.contains(&group.name)
    }

    pub(super) fn is_planned(&self, uid: &str) -> bool {
        self.planned.iter().any(|planned| match &planned.action {
            Action::Drain { uid: taken, .. }
            | Action::Rest { uid: taken, .. }
            | Action::Wake { uid: taken, .. }
            | Action::Delete { uid: taken, .. } => taken == uid,
            Action::Create { .. } => false,
        })
    }

    // --- doing ---

    pub(super) fn push(&mut self, action: Action, reason: Reason) {
        self.planned.push(Planned { action, reason });
    }

    pub(super) fn create(&mut self, group: &Group, reason: Reason) {
        *self.added.entry(group.name.clone()).or_default() += 1;
        let action = Action::Create {
            group: group.name.clone(),
        };
        self.planned.push(Planned { action, reason });
    }

    pub(super) fn drain(&mut self, uid: &str, group: &str, reason: Reason) {
        if !self.is_planned(uid) {
            *self.taken.entry(group.to_owned()).or_default() += 1;
            self.drain_uncounted(uid, reason);
        }
    }

    /// Drains a pod that does not count towards min and max.
    pub(super) fn drain_uncounted(&mut self, uid: &str, reason: Reason) {
        if self.is_planned(uid) {
            return;
        }
        let name = self.pods.get(uid).map(|pod| pod.name.clone());
        let action = Action::Drain {
            uid: uid.to_owned(),
            name: name.unwrap_or_default(),
        };
        self.planned.push(Planned { action, reason });
    }

    fn delete(&mut self, uid: &str, pod: &PodView, reason: Reason) {
        if self.ledger.may_delete(uid, self.now_ms) {
            let action = Action::Delete {
                uid: uid.to_owned(),
                name: pod.name.clone(),
            };
            self.planned.push(Planned { action, reason });
        }
    }
}

/// Whether the pod shall be replaced by another one.
pub(super) fn is_old(group: &Group, pod: &PodView) -> bool {
    pod.cordoned || pod.generation != group.template.generation
}
