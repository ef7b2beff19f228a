//! Why no more workers come, in words for whoever waits for them. Pure.

use super::ledger::Ledger;
use super::survey::Survey;

/// One line; empty: nothing is in the way.
pub fn trouble(watching: &str, ledger: &Ledger, survey: &Survey) -> String {
    if !watching.is_empty() {
        return format!("Kubernetes: {watching}");
    }
    let refused = ledger
        .refusals()
        .iter()
        .map(|(group, refusal)| format!("group {group}: {}", refusal.reason));
    let stuck = survey
        .unschedulable
        .iter()
        .map(|group| format!("group {group}: no node has room for a pod"));
    let all: Vec<String> = refused.chain(stuck).collect();
    if all.is_empty() {
        String::new()
    } else {
        format!("Kubernetes: {}", all.join("; "))
    }
}
