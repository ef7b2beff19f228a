//! Why no more workers come, in words for whoever waits for them. Pure.

use std::collections::BTreeMap;

use super::generations::Generations;
use super::ledger::Ledger;
use super::pods::Pods;
use super::survey::{Standing, Survey};

/// One line; empty: nothing is in the way.
pub fn trouble(
    watching: &str,
    ledger: &Ledger,
    generations: &Generations,
    survey: &Survey,
    pods: &Pods,
) -> String {
    if !watching.is_empty() {
        return format!("Kubernetes: {watching}");
    }
    let refused = ledger
        .refusals()
        .iter()
        .map(|(group, refusal)| format!("group {group}: {}", refusal.reason));
    let unschedulable = survey
        .unschedulable
        .iter()
        .map(|group| format!("group {group}: no node has room for a pod"));
    let aborted = generations
        .aborted()
        .iter()
        .map(|(group, aborted)| format!("group {group}: {aborted}"));
    let waiting = waiting(survey, pods);
    let waiting = waiting
        .iter()
        .map(|(group, (pod, waits))| format!("group {group}: pod {pod}: {waits}"));
    let all: Vec<String> = refused
        .chain(unschedulable)
        .chain(aborted)
        .chain(waiting)
        .collect();
    if all.is_empty() {
        String::new()
    } else {
        format!("Kubernetes: {}", all.join("; "))
    }
}

/// By group, one pod whose containers do not start, and why.
fn waiting<'a>(survey: &Survey, pods: &'a Pods) -> BTreeMap<&'a str, (&'a str, &'a str)> {
    let starting = pods
        .iter()
        .filter(|(uid, _)| survey.standing(uid) == Standing::Starting);
    let waiting = starting.filter_map(|(_, pod)| {
        let wait = pod.waits.as_ref()?;
        Some((pod.group.as_str(), (pod.name.as_str(), wait.text.as_str())))
    });
    waiting.collect()
}
