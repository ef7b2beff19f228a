//! Sessions, and replicas that are left out because they fail.

use std::collections::BTreeSet;

use super::*;
use crate::limits::FAILURES_IN_A_ROW_MAX;

#[test]
fn a_session_stays_with_its_replica_and_does_not_wait_for_it_when_another_is_free() {
    let mut queue = queue(2, -1, 3);
    let session = Some(affinity("s"));
    let (first, _, target) = started(queue.admit(with(session), Dice::new(0), || 0));
    let (_, _, again) = started(queue.admit(with(session), Dice::new(1), || 0));
    assert_eq!(target, again);
    let mut others = BTreeSet::new();
    for seed in 2..6 {
        others.insert(started(queue.admit(with(session), Dice::new(seed), || 0)).2);
    }
    assert!(others.len() == 2 && !others.contains(target), "{others:?}");
    assert_eq!(
        queue.admit(with(session), Dice::new(6), || 9),
        Admission::Wait(6)
    );
    let next = queue.release(first);
    assert_eq!(next.iter().map(|s| s.waiter).collect::<Vec<_>>(), [9]);
}

#[test]
fn a_session_whose_replica_is_gone_moves_and_comes_back_with_it() {
    let mut queue = queue(100, -1, 3);
    let session = Some(affinity("s"));
    let (_, _, home) = started(queue.admit(with(session), Dice::new(0), || 0));
    queue.set_reachable(|target| *target == home, false, Dice::new(0));
    let moved: BTreeSet<_> = (0..9)
        .map(|seed| started(queue.admit(with(session), Dice::new(seed), || 0)).2)
        .collect();
    assert!(moved.len() == 1 && !moved.contains(home), "{moved:?}");
    queue.set_reachable(|target| *target == home, true, Dice::new(0));
    assert_eq!(
        started(queue.admit(with(session), Dice::new(0), || 0)).2,
        home
    );
}

/// Fails so many calls in a row, one after the other, each where the dice say.
fn fail(queue: &mut Test, target: &'static str, times: u32) -> Option<(ReplicaKey, u32)> {
    let mut left_out = None;
    let mut failed = 0;
    let mut seed = 0;
    while failed < times {
        seed += 1;
        let (key, _, to) = started(queue.admit(Wish::default(), Dice::new(seed), || 0));
        let outcome = if to == target {
            failed += 1;
            Outcome::Failed
        } else {
            Outcome::Answered
        };
        left_out = queue
            .ended(key, outcome)
            .map(|times| (key, times))
            .or(left_out);
        queue.release(key);
    }
    left_out
}

fn targets(queue: &mut Test) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    for seed in 0..100 {
        let (key, _, target) = started(queue.admit(Wish::default(), Dice::new(seed), || 0));
        found.insert(target);
        queue.release(key);
    }
    found
}

#[test]
fn a_replica_that_keeps_failing_is_left_out_and_then_tried_with_one_request() {
    let mut queue = queue(10, -1, 2);
    let (key, times) = fail(&mut queue, "r0", FAILURES_IN_A_ROW_MAX).unwrap();
    assert_eq!((times, queue.left_out()), (1, 1));
    assert_eq!(targets(&mut queue), BTreeSet::from(["r1"]));
    queue.try_again(key, Dice::new(0));
    assert_eq!(targets(&mut queue), BTreeSet::from(["r0", "r1"]));
    // Nine more have room at r1, which alone has them all: r0 has its one.
    let mut count: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..11 {
        *count
            .entry(started(queue.admit(Wish::default(), Dice::new(seed), || 0)).2)
            .or_default() += 1;
    }
    assert_eq!(count, BTreeMap::from([("r0", 1), ("r1", 10)]));
    assert_eq!(
        queue.admit(Wish::default(), Dice::new(0), || 0),
        Admission::Wait(queue.next - 1)
    );
    // It answers: all its slots are back, and who waited has one.
    assert_eq!(queue.ended(key, Outcome::Answered), None);
    assert_eq!(queue.release(key).len(), 1);
    assert_eq!(queue.left_out(), 0);
}

#[test]
fn the_only_replica_is_never_left_out() {
    let mut queue = queue(10, -1, 1);
    assert_eq!(fail(&mut queue, "r0", 10 * FAILURES_IN_A_ROW_MAX), None);
    assert_eq!(targets(&mut queue), BTreeSet::from(["r0"]));
}

#[test]
fn when_only_replicas_that_were_left_out_remain_they_get_the_requests() {
    let mut queue = queue(10, -1, 2);
    fail(&mut queue, "r0", FAILURES_IN_A_ROW_MAX).unwrap();
    let waiting = queue.set_reachable(|target| *target == "r1", false, Dice::new(0));
    assert_eq!(waiting, []);
    assert_eq!(targets(&mut queue), BTreeSet::from(["r0"]));
    for seed in 0..10 {
        started(queue.admit(Wish::default(), Dice::new(seed), || 0));
    }
    queue.set_reachable(|target| *target == "r1", true, Dice::new(0));
    assert_eq!(targets(&mut queue), BTreeSet::from(["r1"]));
}
