//! A few seeds on every run of the tests; `make sim` runs as many as one likes.

use mobula_sim::simulate;

/// Shorter than by `make sim`: the same faults, fewer of them.
const FAULTS_MS: u64 = 30_000;

/// Unoptimised, each takes about a second.
const SEEDS: u64 = 12;

#[test]
fn every_property_holds_under_faults() {
    for seed in 1..=SEEDS {
        let outcome = simulate(seed, FAULTS_MS, false);
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
        let first = simulate(seed, FAULTS_MS, false);
        let again = simulate(seed, FAULTS_MS, false);
        assert_eq!(first.hash, again.hash, "seed {seed}");
        assert_eq!(first.events, again.events, "seed {seed}");
    }
    assert_ne!(
        simulate(1, FAULTS_MS, false).hash,
        simulate(2, FAULTS_MS, false).hash
    );
}
