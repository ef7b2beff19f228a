//! Which template of a group is in force: the one of the file, or, when its pods do not come to
//! life, the one before, which pods that still run carry along. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::groups::{Group, Strategy};
use super::ledger::Ledger;
use super::pods::{PodView, Pods, Stage};
use super::template::Template;
use super::verdicts::{self, Verdicts};
use crate::world::supply::Demand;

/// Failures in a row that end a roll-out: one may be the node's, or somebody else's.
pub const FAILURES_MAX: u32 = 3;

/// A pod that waits for its image, or for a part of its configuration, for this long has failed.
pub const STUCK_MS_MAX: u64 = 60_000;

/// In what the API server says when it refuses a pod for another reason than what it is: a quota
/// is used up, the head has no rights, the namespace is on its way out.
const NOT_THE_TEMPLATES: [&str; 3] = [
    "exceeded quota",
    "cannot create resource",
    "because it is being terminated",
];

/// What is known of templates beside those of the file.
#[derive(Clone, Debug, Default)]
pub struct Generations {
    /// By group and generation; None: its pods do not carry a template that we wrote.
    known: BTreeMap<(String, String), Option<Template>>,
    /// By group. Until the file has another template, or somebody takes away what is kept of it.
    aborted: BTreeMap<String, Aborted>,
}

/// A roll-out that was ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Aborted {
    /// What its pods were made from.
    pub generation: String,
    /// What is in force instead.
    pub back_to: Template,
    /// What was wrong.
    pub why: String,
}

// === impl Generations ===

impl Generations {
    /// A pod by uid of a generation of which no template is known yet.
    pub fn unknown<'a>(&self, wanted: &[Group], pods: &'a Pods) -> Option<(&'a str, &'a PodView)> {
        let found = pods.iter().find(|(_, pod)| {
            let key = (pod.group.clone(), pod.generation.clone());
            let is_earlier = wanted.iter().any(|group| {
                group.name == pod.group && group.template.generation != pod.generation
            });
            is_earlier && pod.stage == Stage::Running && !self.known.contains_key(&key)
        });
        found.map(|(uid, pod)| (uid.as_str(), pod))
    }

    /// What a pod carries along.
    pub fn learn(&mut self, pod: &PodView, carried: Option<&str>) {
        let template = carried.and_then(|text| Template::from_carried(text, &pod.generation));
        let key = (pod.group.clone(), pod.generation.clone());
        self.known.insert(key, template);
    }

    /// Takes over what a head before found. Of templates that the file does not have any more
    /// nothing is taken over: one that comes back is tried again.
    pub fn recall(&mut self, wanted: &[Group], kept: &Verdicts) {
        for group in wanted {
            let aborted = kept.get(&group.name).and_then(|text| verdicts::read(text));
            let concerns = |aborted: &Aborted| aborted.generation == group.template.generation;
            if let Some(aborted) = aborted.filter(concerns) {
                self.aborted.insert(group.name.clone(), aborted);
            }
        }
    }

    /// What the heads to come shall know.
    pub fn verdicts(&self) -> Verdicts {
        let aborted = self.aborted.iter();
        aborted
            .map(|(group, aborted)| (group.clone(), verdicts::written(aborted)))
            .collect()
    }

    /// Ends roll-outs that fail while pods of a template before are there; returns the groups.
    pub fn judge(
        &mut self,
        wanted: &[Group],
        pods: &Pods,
        demand: &Demand,
        ledger: &Ledger,
        now_ms: u64,
    ) -> Vec<String> {
        let mut ended = Vec::new();
        for group in wanted {
            if self.aborted.contains_key(&group.name) {
                continue;
            }
            let verdict = failure(group, pods, demand, ledger, now_ms);
            if let (Some(why), Some(back_to)) = (verdict, self.before(group, pods)) {
                let generation = group.template.generation.clone();
                let aborted = Aborted {
                    generation,
                    back_to,
                    why,
                };
                self.aborted.insert(group.name.clone(), aborted);
                ended.push(group.name.clone());
            }
        }
        ended
    }

    /// The groups with the templates that are in force.
    pub fn in_force(&self, wanted: &[Group]) -> Vec<Group> {
        let in_force = |group: &Group| match self.aborted.get(&group.name) {
            None => group.clone(),
            // The way back is no try: all at once, and nothing is kept of what failed.
            Some(aborted) => Group {
                template: aborted.back_to.clone(),
                strategy: Strategy::Rolling,
                surge: group.max,
                ..group.clone()
            },
        };
        wanted.iter().map(in_force).collect()
    }

    /// Roll-outs that were ended, by group.
    pub fn aborted(&self) -> &BTreeMap<String, Aborted> {
        &self.aborted
    }

    /// Forgets templates of which no pods are left.
    pub fn forget(&mut self, pods: &Pods) {
        let alive: BTreeSet<(&str, &str)> = pods
            .values()
            .map(|pod| (pod.group.as_str(), pod.generation.as_str()))
            .collect();
        let is_alive = |key: &(String, String)| alive.contains(&(key.0.as_str(), key.1.as_str()));
        self.known.retain(|key, _| is_alive(key));
    }

    /// Of the templates before, the one with the most pods that run.
    fn before(&self, group: &Group, pods: &Pods) -> Option<Template> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for pod in pods.values() {
            let is_earlier = pod.group == group.name && pod.generation != group.template.generation;
            if is_earlier && pod.stage == Stage::Running {
                *counts.entry(&pod.generation).or_default() += 1;
            }
        }
        let known = counts.into_iter().filter_map(|(generation, count)| {
            let key = (group.name.clone(), generation.to_owned());
            Some((count, self.known.get(&key)?.as_ref()?))
        });
        let most = known.max_by_key(|(count, _)| *count);
        most.map(|(_, template)| template.clone())
    }
}

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Aborted {
            generation,
            back_to,
            why,
        } = self;
        write!(
            f,
            "the roll-out of template {generation} was ended and {} is in force again: {why}",
            back_to.generation
        )
    }
}

/// Whether a refusal is for what the pod is.
pub fn is_the_templates(refusal: &str) -> bool {
    !NOT_THE_TEMPLATES
        .iter()
        .any(|words| refusal.contains(words))
}

/// What is wrong with the pods of the group's template; None: nothing, or not for long enough.
fn failure(
    group: &Group,
    pods: &Pods,
    demand: &Demand,
    ledger: &Ledger,
    now_ms: u64,
) -> Option<String> {
    let generation = &group.template.generation;
    let failures = ledger.failures(&group.name, generation);
    if let Some(failures) = failures.filter(|failures| failures.times >= FAILURES_MAX) {
        return Some(failures.reason.clone());
    }
    let ours = pods
        .iter()
        .filter(|(_, pod)| pod.group == group.name && pod.generation == *generation);
    let mut failed = ours.filter_map(|(uid, pod)| {
        let waits = pod.waits.as_ref().map(|wait| wait.text.as_str());
        let name = &pod.name;
        let in_vain = demand.workers.get(uid).map_or(0, |worker| worker.failures);
        let waited = ledger.away_ms(uid, now_ms);
        if pod.restarts >= FAILURES_MAX {
            let detail = waits.map_or_else(String::new, |waits| format!(" ({waits})"));
            let times = pod.restarts;
            Some(format!("pod {name} was restarted {times} times{detail}"))
        } else if ledger.stuck_ms(uid, now_ms) >= STUCK_MS_MAX {
            Some(format!("pod {name}: {}", waits.unwrap_or("it waits")))
        } else if waited >= group.startup_ms && !ledger.has_joined(uid) {
            let detail = waits.map_or_else(String::new, |waits| format!(" ({waits})"));
            let detail = match pod.stage {
                Stage::Unschedulable => " (no node has room for it)".to_owned(),
                Stage::Pending | Stage::Running | Stage::Ended => detail,
            };
            let seconds = waited / 1_000;
            Some(format!(
                "pod {name}: no worker joined within {seconds} s{detail}"
            ))
        } else if in_vain >= FAILURES_MAX {
            Some(format!(
                "pod {name}: replicas that run elsewhere fail in it"
            ))
        } else {
            None
        }
    });
    failed.next()
}
