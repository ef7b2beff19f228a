//! Requests shared between two versions.

use super::*;

#[test]
fn the_canary_gets_its_percent_and_its_replicas_share_it() {
    for percent in [0, 1, 5, 25, 50, 99, 100] {
        let mut queue = shared(1_000_000, percent, 2, 2);
        let mut count: BTreeMap<&str, u32> = BTreeMap::new();
        const REQUESTS: u32 = 20_000;
        for seed in 0..REQUESTS {
            let (_, _, target) =
                started(queue.admit(Wish::default(), Dice::new(seed.into()), || 0));
            *count.entry(target).or_default() += 1;
        }
        let of = |name: &str| count.get(name).copied().unwrap_or(0);
        let canary = of("r2") + of("r3");
        let expected = REQUESTS * percent / 100;
        // Four standard deviations of so many throws, and the seeds are fixed.
        let part = f64::from(percent) / 100.0;
        let allowed = 4.0 * (f64::from(REQUESTS) * part * (1.0 - part)).sqrt();
        assert!(
            f64::from(canary.abs_diff(expected)) <= allowed,
            "{canary} of {REQUESTS} at {percent} %"
        );
        assert!(of("r2").abs_diff(of("r3")) <= 1, "{count:?}");
        assert!(of("r0").abs_diff(of("r1")) <= 1, "{count:?}");
    }
}

#[test]
fn a_request_for_a_full_canary_takes_a_slot_of_the_others_rather_than_wait() {
    let mut queue = shared(1, 100, 1, 1);
    assert_eq!(
        started(queue.admit(Wish::default(), Dice::new(1), || 0)).2,
        "r1"
    );
    assert_eq!(
        started(queue.admit(Wish::default(), Dice::new(2), || 0)).2,
        "r0"
    );
    assert_eq!(
        queue.admit(Wish::default(), Dice::new(3), || 0),
        Admission::Wait(2)
    );
}

#[test]
fn a_request_that_is_not_for_the_canary_waits_beside_its_free_slots() {
    let mut queue = shared(1, 0, 1, 1);
    let (stable, _, first) = started(queue.admit(Wish::default(), Dice::new(1), || 0));
    assert_eq!(first, "r0");
    assert_eq!(
        queue.admit(Wish::default(), Dice::new(2), || 5),
        Admission::Wait(1)
    );
    let next = queue.release(stable);
    assert_eq!(
        next.iter()
            .map(|s| (s.target, s.waiter))
            .collect::<Vec<_>>(),
        [("r0", 5)]
    );
}

#[test]
fn a_slot_of_the_canary_goes_to_the_oldest_request_that_is_for_it() {
    let mut queue = shared(1, 0, 1, 1);
    let (stable, _, _) = started(queue.admit(Wish::default(), Dice::new(1), || 0));
    assert_eq!(
        queue.admit(Wish::default(), Dice::new(2), || 1),
        Admission::Wait(1)
    );
    set_shared(&mut queue, 100, 1, 1);
    let (canary, _, name) = started(queue.admit(Wish::default(), Dice::new(3), || 2));
    assert_eq!(name, "r1");
    assert_eq!(
        queue.admit(Wish::default(), Dice::new(4), || 3),
        Admission::Wait(3)
    );
    let next = |starts: Vec<Start<&'static str, u32>>| -> Vec<(&str, u32)> {
        starts.iter().map(|s| (s.target, s.waiter)).collect()
    };
    assert_eq!(next(queue.release(canary)), [("r1", 3)]);
    assert_eq!(next(queue.release(stable)), [("r0", 1)]);
}

#[test]
fn a_version_that_cannot_be_reached_leaves_everything_to_the_other() {
    let mut queue = shared(10, 0, 1, 1);
    queue.set_reachable(|name| *name == "r0", false, Dice::new(0));
    assert_eq!(
        started(queue.admit(Wish::default(), Dice::new(1), || 0)).2,
        "r1"
    );
    let mut queue = shared(10, 100, 1, 1);
    queue.set_reachable(|name| *name == "r1", false, Dice::new(0));
    assert_eq!(
        started(queue.admit(Wish::default(), Dice::new(1), || 0)).2,
        "r0"
    );
}

#[test]
fn those_who_wait_for_a_version_that_goes_away_start_at_the_other() {
    let mut queue = shared(1, 0, 1, 1);
    started(queue.admit(Wish::default(), Dice::new(1), || 0));
    assert_eq!(
        queue.admit(Wish::default(), Dice::new(2), || 5),
        Admission::Wait(1)
    );
    assert_eq!(
        queue
            .set_reachable(|name| *name == "r0", false, Dice::new(0))
            .iter()
            .map(|start| (start.target, start.waiter))
            .collect::<Vec<_>>(),
        [("r1", 5)]
    );
    // The canary is promoted: its replica serves as the others do.
    let mut queue = shared(1, 0, 1, 1);
    started(queue.admit(Wish::default(), Dice::new(1), || 0));
    assert_eq!(
        queue.admit(Wish::default(), Dice::new(2), || 6),
        Admission::Wait(1)
    );
    assert_eq!(set_shared(&mut queue, 0, 2, 0), [6]);
}

#[test]
fn a_replica_keeps_its_own_limit_while_another_version_has_another() {
    let mut queue = queue(1, -1, 0);
    let mut wide = wanted("r0", Side::Stable);
    wide.ongoing_max = Some(3);
    let limits = queue.limits;
    queue.set_replicas(limits, vec![wide, wanted("r1", Side::Canary)], Dice::new(0));
    for _ in 0..3 {
        assert_eq!(
            started(queue.admit(Wish::default(), Dice::new(1), || 0)).2,
            "r0"
        );
    }
    assert_eq!(
        queue.admit(Wish::default(), Dice::new(1), || 0),
        Admission::Wait(3)
    );
}

#[test]
fn requests_that_came_while_only_the_canary_could_be_reached_are_not_its_own_afterwards() {
    let mut queue = shared(1, 0, 1, 1);
    queue.set_reachable(|name| *name == "r0", false, Dice::new(0));
    let (canary, _, _) = started(queue.admit(Wish::default(), Dice::new(1), || 0));
    for waiter in [1, 2] {
        let admission = queue.admit(Wish::default(), Dice::new(2), || waiter);
        assert!(matches!(admission, Admission::Wait(_)), "{admission:?}");
    }
    let back = queue.set_reachable(|name| *name == "r0", true, Dice::new(0));
    assert_eq!(placed(&back), [("r0", 1)]);
    assert_eq!(placed(&queue.release(canary)), []);
    assert_eq!(placed(&queue.release(back[0].key)), [("r0", 2)]);
}

#[test]
fn a_canary_does_not_inherit_those_who_wait_for_the_one_before() {
    let mut queue = shared(1, 100, 1, 1);
    let (_, _, first) = started(queue.admit(Wish::default(), Dice::new(1), || 0));
    let (stable, _, second) = started(queue.admit(Wish::default(), Dice::new(2), || 1));
    assert_eq!((first, second), ("r1", "r0"));
    for waiter in [2, 3] {
        let admission = queue.admit(Wish::default(), Dice::new(3), || waiter);
        assert!(matches!(admission, Admission::Wait(_)), "{admission:?}");
    }
    // The same one with another replica beside it keeps them; then another one comes.
    assert_eq!(set_shared(&mut queue, 100, 1, 2), [2]);
    let limits = queue.limits;
    let other = vec![wanted("r0", Side::Stable), wanted("r3", Side::Canary)];
    assert_eq!(queue.set_replicas(limits, other, Dice::new(4)), []);
    assert_eq!(placed(&queue.release(stable)), [("r0", 3)]);
}

#[test]
fn no_dice_are_thrown_again_for_a_request_that_a_replica_refused() {
    let mut queue = shared(1, 0, 2, 1);
    let (key, seq, name) = started(queue.admit(Wish::default(), Dice::new(1), || 0));
    assert!(["r0", "r1"].contains(&name));
    // All that come from now on are for the canary.
    set_shared(&mut queue, 100, 2, 1);
    let refused = queue.refused(key, seq, Dice::new(2), || 0);
    let (key, seq, name) = started(refused.admission);
    assert!(["r0", "r1"].contains(&name));
    let refused = queue.refused(key, seq, Dice::new(2), || 0);
    assert_eq!(refused.admission, Admission::Wait(seq));
    assert!(queue.for_canary.is_empty());
}
