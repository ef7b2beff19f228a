//! A few seeds on every run of the tests; `make sim` runs as many as one likes.

use mobula_sim::{Outcome, Sabotage, simulate};

/// Shorter than by `make sim`: the same faults, fewer of them.
const FAULTS_MS: u64 = 30_000;

/// Unoptimised, each takes about a second.
const SEEDS: u64 = 8;

/// Within so many seeds what is broken on purpose is seen.
const SABOTAGED_SEEDS: u64 = 6;

fn of(seed: u64, sabotage: Option<Sabotage>) -> Outcome {
    simulate(seed, FAULTS_MS, false, sabotage)
}

#[test]
fn every_property_holds_under_faults() {
    for seed in 1..=SEEDS {
        let outcome = of(seed, None);
        assert!(
            outcome.violations.is_empty(),
            "seed {seed}: {:?}\n{}",
            outcome.violations,
            outcome.tail.join("\n")
        );
    }
}

#[test]
fn the_same_seed_does_the_same_again() {
    for seed in [1, 2] {
        let first = of(seed, None);
        let again = of(seed, None);
        assert_eq!(first.hash, again.hash, "seed {seed}");
        assert_eq!(first.events, again.events, "seed {seed}");
    }
    assert_ne!(of(1, None).hash, of(2, None).hash);
}

#[test]
fn every_property_sees_a_cluster_that_violates_it() {
    let unseen: Vec<String> = Sabotage::ALL
        .into_iter()
        .filter_map(|sabotage| unseen(sabotage).map(|why| format!("{sabotage:?}: {why}")))
        .collect();
    assert!(unseen.is_empty(), "{}", unseen.join("\n"));
}

/// None: the property that is meant reported it; otherwise what was reported instead.
fn unseen(sabotage: Sabotage) -> Option<String> {
    let property = format!("{}: ", sabotage.property());
    let mut others = Vec::new();
    for seed in 1..=SABOTAGED_SEEDS {
        let outcome = of(seed, Some(sabotage));
        if outcome
            .violations
            .iter()
            .any(|text| text.starts_with(&property))
        {
            return None;
        }
        others.push(format!("seed {seed}: {:?}", outcome.violations));
    }
    Some(format!("no {property}{}", others.join("; ")))
}
