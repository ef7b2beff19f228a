//! How a new template takes over the pods of a group, and how pods leave a cordoned node. A part of
//! the plan; which template is in force is decided before (`generations`).

use super::action::{Action, Reason};
use super::groups::{Group, Strategy};
use super::ledger::Spell;
use super::plan::{Planner, is_old};
use super::pods::{PodView, Stage};
use super::survey::Standing;
use crate::world::Resources;

/// A worker that lost its session is back within this time, or never had one.
const REJOIN_MS_MAX: u64 = 30_000;

/// A pod that shall be replaced.
struct Old {
    uid: String,
    cordoned: bool,
    replicas: usize,
    used: Resources,
}

// === impl Planner ===

impl Planner<'_> {
    /// Brings the group to its template and away from cordoned nodes.
    pub(super) fn roll(&mut self, group: &Group) {
        self.drop_old_starters(group);
        self.settle_resting(group);
        match group.strategy {
            Strategy::BlueGreen { .. } if self.has_earlier(group) => self.switch(group),
            // Leaving a cordoned node is no reason for a second set of pods.
            Strategy::BlueGreen { .. } | Strategy::Rolling => self.replace_some(group),
        }
    }

    /// New pods come, as many as the surge allows, then old ones drain whose replicas find room in
    /// them, again and again.
    fn replace_some(&mut self, group: &Group) {
        let leaving = self.pods.iter().any(|(uid, pod)| {
            pod.group == group.name && self.survey.standing(uid) == Standing::Leaving
        });
        // The next ones wait for them: what is free is meant for what they have.
        if leaving {
            return;
        }
        let old = self.old(group);
        let (mut fresh, mut room) = self.room(group);
        let mut drained = 0;
        for pod in &old {
            let not_needed = pod.replicas == 0 && self.count(group) > group.min;
            let has_room = match pod.replicas {
                0 => fresh > 0,
                _ => room.has_room_for(&pod.used, &group.template.resources),
            };
            if drained == group.surge || !(not_needed || has_room) {
                break;
            }
            drained += 1;
            fresh = fresh.saturating_sub(u32::from(!not_needed));
            room.take(&pod.used);
            let reason = if pod.cordoned {
                Reason::Cordoned
            } else {
                Reason::OldTemplate
            };
            self.drain(&pod.uid, &group.name, reason);
        }
        if drained == 0 {
            let wanted = pods_for(group, room, &old);
            while self.coming(group) < wanted && self.may_grow(group, group.surge) {
                self.create(group, Reason::MakesUp);
            }
        }
    }

    /// The pods that shall be replaced; those with the fewest replicas are the quickest to go.
    fn old(&self, group: &Group) -> Vec<Old> {
        let old = self.joined(group).filter(|(_, pod, _)| is_old(group, pod));
        let mut old: Vec<Old> = old
            .map(|(uid, pod, replicas)| Old {
                uid: uid.clone(),
                cordoned: pod.cordoned,
                replicas,
                used: self.used(uid),
            })
            .collect();
        old.sort_by_key(|pod| pod.replicas);
        old
    }

    /// The empty pods among those that stay, and what is free in all of them together.
    fn room(&self, group: &Group) -> (u32, Resources) {
        let mut fresh = 0;
        let mut room = Resources::default();
        for (uid, pod, replicas) in self.joined(group) {
            if !is_old(group, pod) {
                fresh += u32::from(replicas == 0);
                let mut free = group.template.resources.clone();
                free.take(&self.used(uid));
                room.add(&free);
            }
        }
        (fresh, room)
    }

    fn used(&self, uid: &str) -> Resources {
        let worker = self.demand.workers.get(uid);
        worker.map(|worker| worker.used.clone()).unwrap_or_default()
    }

    /// As many new pods as there are old ones come; when all are there, all old ones give their
    /// replicas away.
    fn switch(&mut self, group: &Group) {
        let earlier = self
            .joined(group)
            .filter(|(_, pod, _)| is_earlier(group, pod));
        let earlier: Vec<(String, String, usize)> = earlier
            .map(|(uid, pod, replicas)| (uid.clone(), pod.name.clone(), replicas))
            .collect();
        let busy = earlier.iter().filter(|(_, _, replicas)| *replicas > 0);
        let want = (busy.count() as u32).max(group.min.min(earlier.len() as u32));
        let new = self.joined(group).filter(|(_, pod, _)| !is_old(group, pod));
        let have = new.count() as u32;
        if have < want {
            while have + self.coming(group) < want && self.may_grow(group, group.max) {
                let have = have + self.coming(group);
                self.create(group, Reason::NewTemplate { have, want });
            }
            return;
        }
        for (uid, name, _) in earlier {
            if !self.is_planned(&uid) {
                *self.taken.entry(group.name.clone()).or_default() += 1;
                let action = Action::Rest { uid, name };
                self.push(action, Reason::AllThere { count: have });
            }
        }
    }

    /// Pods that rest are used again when their template is, and go when they are not missed.
    fn settle_resting(&mut self, group: &Group) {
        let bake_ms = match group.strategy {
            Strategy::Rolling => 0,
            Strategy::BlueGreen { bake_ms } => bake_ms,
        };
        let resting: Vec<(String, PodView)> = self
            .pods
            .iter()
            .filter(|(uid, pod)| {
                let standing = self.survey.standing(uid);
                pod.group == group.name && matches!(standing, Standing::Resting { .. })
            })
            .map(|(uid, pod)| (uid.clone(), pod.clone()))
            .collect();
        // Counted from when the last one was empty.
        let rested = resting.iter().map(|(uid, _)| {
            let empty = matches!(self.survey.standing(uid), Standing::Resting { replicas: 0 });
            empty.then(|| self.ledger.spell_ms(uid, Spell::Rested, self.now_ms))
        });
        let rested = rested.min().flatten();
        for (uid, pod) in resting {
            if pod.generation == group.template.generation && !pod.cordoned {
                *self.added.entry(group.name.clone()).or_default() += 1;
                let action = Action::Wake {
                    uid,
                    name: pod.name,
                };
                self.push(action, Reason::InForceAgain);
            } else if let Some(ms) = rested.filter(|ms| *ms >= bake_ms) {
                self.drain_uncounted(&uid, Reason::Baked { ms });
            }
        }
    }

    fn has_earlier(&self, group: &Group) -> bool {
        self.joined(group).any(|(_, pod, _)| is_earlier(group, pod))
    }

    /// Old pods that are not up yet are of no use any more.
    fn drop_old_starters(&mut self, group: &Group) {
        let old = self.pods.iter().filter(|(uid, pod)| {
            let waited = self.ledger.away_ms(uid, self.now_ms);
            let may_serve = pod.stage == Stage::Running
                && pod.waits.is_none()
                && (self.ledger.has_joined(uid) || waited < REJOIN_MS_MAX);
            is_earlier(group, pod)
                && pod.group == group.name
                && !may_serve
                && self.survey.standing(uid) == Standing::Starting
        });
        let old: Vec<String> = old.map(|(uid, _)| uid.clone()).collect();
        for uid in old {
            self.drain(&uid, &group.name, Reason::OldTemplate);
        }
    }
}

/// The new pods that the next old ones need, as many of those as may go at once.
fn pods_for(group: &Group, mut room: Resources, old: &[Old]) -> u32 {
    let mut pods = 0;
    for pod in old.iter().take(group.surge as usize) {
        let fits = room.has_room_for(&pod.used, &group.template.resources);
        if pod.replicas == 0 || !fits {
            pods += 1;
            room.add(&group.template.resources);
        }
        room.take(&pod.used);
    }
    pods
}

/// Whether the pod is of another template than the one in force.
fn is_earlier(group: &Group, pod: &PodView) -> bool {
    pod.generation != group.template.generation
}
