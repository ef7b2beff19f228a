//! How a new template takes over the pods of a group, and how pods leave a cordoned node. A part of
//! the plan; which template is in force is decided before (`generations`).

use super::action::{Action, Reason};
use super::groups::{Group, Strategy};
use super::ledger::Spell;
use super::plan::{Planner, is_old};
use super::pods::{PodView, Stage};
use super::survey::Standing;

/// A worker that lost its session is back within this time, or never had one.
const REJOIN_MS_MAX: u64 = 30_000;

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

    /// New pods come, as many as the surge allows, then as many old ones drain, again and again.
    fn replace_some(&mut self, group: &Group) {
        let leaving = self.pods.iter().any(|(uid, pod)| {
            pod.group == group.name && self.survey.standing(uid) == Standing::Leaving
        });
        // The next ones wait for them, so that the replicas of each find the room of a new pod.
        if leaving {
            return;
        }
        let old = self.joined(group).filter(|(_, pod, _)| is_old(group, pod));
        let mut old: Vec<(String, bool, usize)> = old
            .map(|(uid, pod, replicas)| (uid.clone(), pod.cordoned, replicas))
            .collect();
        // Those with the fewest replicas are the quickest to go.
        old.sort_by_key(|(_, _, replicas)| *replicas);
        let fresh = self
            .joined(group)
            .filter(|(_, pod, replicas)| *replicas == 0 && !is_old(group, pod));
        let mut fresh = fresh.count() as u32;
        let waiting = old.len() as u32;
        let mut drained = 0;
        for (uid, cordoned, replicas) in old {
            let not_needed = replicas == 0 && self.count(group) > group.min;
            if drained == group.surge || (fresh == 0 && !not_needed) {
                break;
            }
            fresh -= u32::from(!not_needed);
            drained += 1;
            let reason = if cordoned {
                Reason::Cordoned
            } else {
                Reason::OldTemplate
            };
            self.drain(&uid, &group.name, reason);
        }
        if drained == 0 {
            let wanted = waiting.min(group.surge);
            while self.coming(group) < wanted && self.may_grow(group, group.surge) {
                self.create(group, Reason::MakesUp);
            }
        }
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

/// Whether the pod is of another template than the one in force.
fn is_earlier(group: &Group, pod: &PodView) -> bool {
    pod.generation != group.template.generation
}
