//! What the deployments of one application may have together, and who gets it when they want
//! more. Pure arithmetic; nothing here remembers anything.
//!
//! Everybody gets the least that his own bounds say, whatever the budget. Of what is left, the
//! highest priority gets what it wants first; among equals the next replica goes to the one that
//! has the smallest part of its wish. So nobody starves beside his equals, and the same wishes
//! always give the same counts.
//!
//! A rollout needs replicas beyond the counts, and must get on where a budget is full: nobody
//! shrinks for them. But they are there, and cost: while they are, nobody grows into their part.

use std::fmt;

use mobula_spec::Budget;

use super::super::Resources;
use super::super::resources::{CPU, GPU};

/// What one deployment asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    /// What it has.
    pub has: u32,
    pub least: u32,
    pub wanted: u32,
    pub priority: i64,
    pub cost: Cost,
}

/// What replicas cost of a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    replicas: u64,
    /// Ten-thousandths.
    cpus: u64,
    gpus: u64,
}

// === impl Cost ===

impl Cost {
    /// Of one replica.
    pub fn of(required: &Resources) -> Cost {
        Cost {
            replicas: 1,
            cpus: required.parts(CPU),
            gpus: required.parts(GPU),
        }
    }

    /// Of so many.
    pub fn times(self, count: u32) -> Cost {
        let count = u64::from(count);
        Cost {
            replicas: self.replicas.saturating_mul(count),
            cpus: self.cpus.saturating_mul(count),
            gpus: self.gpus.saturating_mul(count),
        }
    }

    /// Both together.
    pub fn plus(self, other: Cost) -> Cost {
        Cost {
            replicas: self.replicas.saturating_add(other.replicas),
            cpus: self.cpus.saturating_add(other.cpus),
            gpus: self.gpus.saturating_add(other.gpus),
        }
    }

    /// Whether a budget allows it.
    pub fn is_within(self, budget: &Budget) -> bool {
        let units = |parts: u64| Resources::units_of(parts);
        budget
            .max_replicas
            .is_none_or(|max| self.replicas <= u64::from(max))
            && budget.max_cpus.is_none_or(|max| units(self.cpus) <= max)
            && budget.max_gpus.is_none_or(|max| units(self.gpus) <= max)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cpus, gpus) = (self.cpus, self.gpus);
        let (cpus, gpus) = (Resources::units_of(cpus), Resources::units_of(gpus));
        write!(f, "{} replicas, {cpus} CPU, {gpus} GPU", self.replicas)
    }
}

/// The bounds of a budget in the config's words.
pub fn shown(budget: &Budget) -> String {
    let bounds = [
        ("max_replicas", budget.max_replicas.map(f64::from)),
        ("max_cpus", budget.max_cpus),
        ("max_gpus", budget.max_gpus),
    ];
    let given = bounds
        .iter()
        .filter_map(|(name, max)| max.map(|max| (name, max)));
    let given: Vec<String> = given.map(|(name, max)| format!("{name} {max}")).collect();
    given.join(", ")
}

/// How many replicas each claim gets beside what is spent already, and what exists `beyond` all
/// counts for the moment.
pub fn share(budget: &Budget, spent: Cost, beyond: Cost, claims: &[Claim]) -> Vec<u32> {
    let granted = share_all(budget, spent, claims);
    if beyond == Cost::default() {
        return granted;
    }
    let growing = claims.iter().zip(granted);
    let growing = growing.map(|(claim, granted)| Claim {
        least: claim.has.max(claim.least).min(granted),
        wanted: granted,
        ..*claim
    });
    share_all(budget, spent.plus(beyond), &growing.collect::<Vec<Claim>>())
}

fn share_all(budget: &Budget, spent: Cost, claims: &[Claim]) -> Vec<u32> {
    let mut granted: Vec<u32> = claims
        .iter()
        .map(|claim| claim.least.min(claim.wanted))
        .collect();
    let mut used = claims
        .iter()
        .zip(&granted)
        .fold(spent, |used, (claim, count)| {
            used.plus(claim.cost.times(*count))
        });
    let mut order: Vec<i64> = claims.iter().map(|claim| claim.priority).collect();
    order.sort_unstable_by(|a, b| b.cmp(a));
    order.dedup();
    for priority in order {
        // Ends: each round grants one replica of the finitely many that are wanted.
        while let Some((index, claim)) = next(budget, used, claims, &granted, priority) {
            used = used.plus(claim.cost);
            if let Some(count) = granted.get_mut(index) {
                *count += 1;
            }
        }
    }
    granted
}

/// Who gets the next replica among those of one priority.
fn next<'c>(
    budget: &Budget,
    used: Cost,
    claims: &'c [Claim],
    granted: &[u32],
    priority: i64,
) -> Option<(usize, &'c Claim)> {
    let part = |(_, claim, count): &(usize, &Claim, u32)| {
        // Compared as fractions without dividing: count / wanted.
        (u64::from(*count), u64::from(claim.wanted))
    };
    claims
        .iter()
        .zip(granted)
        .enumerate()
        .map(|(index, (claim, count))| (index, claim, *count))
        .filter(|(_, claim, count)| claim.priority == priority && *count < claim.wanted)
        .filter(|(_, claim, _)| used.plus(claim.cost).is_within(budget))
        .min_by(|a, b| {
            let ((a_has, a_wants), (b_has, b_wants)) = (part(a), part(b));
            (a_has * b_wants).cmp(&(b_has * a_wants))
        })
        .map(|(index, claim, _)| (index, claim))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn replicas(max: u32) -> Budget {
        Budget {
            max_replicas: Some(max),
            ..Budget::default()
        }
    }

    fn claim(least: u32, wanted: u32, priority: i64) -> Claim {
        Claim {
            has: 0,
            least,
            wanted,
            priority,
            cost: Cost::of(&Resources::from_units([(CPU, 1.0), (GPU, 0.5)])),
        }
    }

    fn shared(budget: &Budget, claims: &[Claim]) -> Vec<u32> {
        share(budget, Cost::default(), Cost::default(), claims)
    }

    #[test]
    fn equals_get_the_same_part_of_their_wish() {
        assert_eq!(
            shared(&replicas(12), &[claim(1, 8, 0), claim(1, 8, 0)]),
            [6, 6]
        );
        assert_eq!(
            shared(&replicas(12), &[claim(1, 12, 0), claim(1, 6, 0)]),
            [8, 4]
        );
        assert_eq!(
            shared(&replicas(20), &[claim(1, 8, 0), claim(1, 8, 0)]),
            [8, 8]
        );
    }

    #[test]
    fn the_higher_priority_comes_first_and_minimums_before_it() {
        let claims = [claim(2, 8, 0), claim(0, 9, 5)];
        assert_eq!(shared(&replicas(10), &claims), [2, 8]);
        assert_eq!(shared(&replicas(14), &claims), [5, 9]);
        // A minimum is never cut, not even by the budget.
        assert_eq!(shared(&replicas(1), &claims), [2, 0]);
    }

    #[test]
    fn any_bound_ends_it_and_what_does_not_scale_is_spent_already() {
        let gpus = Budget {
            max_gpus: Some(2.0),
            max_cpus: Some(100.0),
            ..Budget::default()
        };
        assert_eq!(shared(&gpus, &[claim(0, 9, 0)]), [4]);
        let spent = claim(0, 0, 0).cost.times(3);
        assert_eq!(share(&gpus, spent, Cost::default(), &[claim(0, 9, 0)]), [1]);
        // A replica that needs none of what is used up still fits.
        let cpu_only = Claim {
            cost: Cost::of(&Resources::from_units([(CPU, 1.0)])),
            ..claim(0, 3, 0)
        };
        assert_eq!(shared(&gpus, &[claim(0, 9, 1), cpu_only]), [4, 3]);
    }

    #[test]
    fn nobody_grows_into_what_a_rollout_has_beyond_the_counts_and_nobody_shrinks_for_it() {
        let budget = replicas(6);
        let one = claim(0, 0, 0).cost;
        let having = |has: u32, claim: Claim| Claim { has, ..claim };
        let both = |beyond: u32, first: u32, second: u32| {
            let claims = [
                having(first, claim(1, 4, 5)),
                having(second, claim(1, 4, 0)),
            ];
            share(&budget, Cost::default(), one.times(beyond), &claims)
        };
        assert_eq!(both(0, 2, 1), [4, 2]);
        assert_eq!(both(1, 2, 1), [4, 1]);
        assert_eq!(both(2, 2, 1), [3, 1]);
        // A full budget: the rollout is beyond it, and both keep what they have.
        assert_eq!(both(2, 4, 2), [4, 2]);
        // The first takes what the second has too much of, as far as nothing else is there.
        assert_eq!(both(0, 2, 4), [4, 2]);
        assert_eq!(both(1, 2, 4), [3, 2]);
        // A minimum is never cut.
        let least = having(0, claim(3, 3, 0));
        assert_eq!(share(&budget, Cost::default(), one.times(6), &[least]), [3]);
    }

    proptest! {
        #[test]
        fn what_exists_beyond_the_counts_only_keeps_others_from_growing(
            claims in proptest::collection::vec((0u32..5, 0u32..40, -2i64..3, 0u32..20), 0..8),
            max in 1u32..100,
            beyond in 0u32..20,
        ) {
            let claims = claims.into_iter().map(|(l, w, p, has)| Claim { has, ..claim(l, w, p) });
            let claims: Vec<Claim> = claims.collect();
            let beyond = claim(0, 0, 0).cost.times(beyond);
            let before = shared(&replicas(max), &claims);
            let granted = share(&replicas(max), Cost::default(), beyond, &claims);
            for ((claim, count), before) in claims.iter().zip(&granted).zip(&before) {
                prop_assert!(*count <= *before && *count >= claim.has.min(*before));
            }
            let kept = claims.iter().zip(&before);
            let kept: u32 = kept.map(|(c, before)| c.has.max(c.least).min(*before)).sum();
            let total: u32 = granted.iter().sum();
            prop_assert!(total <= kept.max(max.saturating_sub(beyond.replicas as u32)));
        }

        #[test]
        fn what_is_granted_is_wanted_and_within_the_budget_beyond_the_minimums(
            claims in proptest::collection::vec((0u32..5, 0u32..40, -2i64..3), 0..8),
            max in 1u32..100,
        ) {
            let claims: Vec<Claim> = claims.into_iter().map(|(l, w, p)| claim(l, w, p)).collect();
            let granted = shared(&replicas(max), &claims);
            let floor: u32 = claims.iter().map(|claim| claim.least.min(claim.wanted)).sum();
            let total: u32 = granted.iter().sum();
            prop_assert!(total <= max.max(floor));
            for (claim, count) in claims.iter().zip(&granted) {
                prop_assert!(*count <= claim.wanted && *count >= claim.least.min(claim.wanted));
            }
            // Nothing is left over while somebody wants more.
            let wanted: u32 = claims.iter().map(|claim| claim.wanted).sum();
            prop_assert!(total >= wanted.min(max));
        }
    }
}
