//! How many pods of a group an eviction must leave alone. Pure.
//!
//! Pods without a controller that can be scaled get budgets in whole pods only: a share, or a
//! number that may be unavailable, would forbid every eviction.

use std::collections::BTreeMap;

use super::groups::Group;
use super::ledger::Ledger;
use super::pods::{Pods, Stage};
use super::survey::{Standing, Survey};

/// A pod that is on its way this long does not hold up evictions any more: a drain must never
/// wait for a pod that does not come.
pub const AWAITED_MS_MAX: u64 = 120_000;

/// By group: the pods that must stay; a group without a number has no budget.
///
/// All but one of those that are there or on their way: an evicted pod counts no more, the one
/// that makes up for it counts but is not ready, so the next eviction waits for it.
pub fn budgets(
    groups: &[Group],
    pods: &Pods,
    ledger: &Ledger,
    survey: &Survey,
    now_ms: u64,
) -> BTreeMap<String, u32> {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for (uid, pod) in pods {
        let counts_here = match survey.standing(uid) {
            // One that rests is ready, and the selector finds it.
            Standing::Joined { .. } | Standing::Resting { .. } => true,
            Standing::Starting => {
                let waited = ledger.away_ms(uid, now_ms);
                pod.stage != Stage::Unschedulable && waited < AWAITED_MS_MAX
            }
            Standing::Leaving | Standing::Ended => false,
        };
        if counts_here && groups.iter().any(|group| group.name == pod.group) {
            *counts.entry(pod.group.clone()).or_default() += 1;
        }
    }
    counts.retain(|_, count| *count > 1);
    for count in counts.values_mut() {
        *count -= 1;
    }
    counts
}
