//! One thing at a time: limits, places in line, choice of a replica; and what all tests share.

mod canary;
mod model;
mod ordered;
mod preference;

use super::*;

type Test = Queue<&'static str, u32>;

const NAMES: [&str; 4] = ["r0", "r1", "r2", "r3"];

fn queue(ongoing_max: u32, queued_max: i64, replicas: usize) -> Test {
    let limits = Limits {
        ongoing_max,
        queued_max,
        canary_percent: 0,
    };
    let mut queue = Queue::new(limits);
    queue.set_replicas(limits, named(&NAMES[..replicas]), Dice::new(1));
    queue
}

fn named(names: &[&'static str]) -> Vec<Wanted<&'static str>> {
    names
        .iter()
        .map(|name| wanted(name, Side::Stable))
        .collect()
}

fn wanted(name: &'static str, side: Side) -> Wanted<&'static str> {
    Wanted {
        id: name.to_owned(),
        target: name,
        reachable: true,
        side,
        ongoing_max: None,
    }
}

/// Replicas r0, r1, … of the stable version, and behind them those of the canary.
fn shared(ongoing_max: u32, percent: u32, stable: usize, canary: usize) -> Test {
    let mut queue = queue(ongoing_max, -1, 0);
    set_shared(&mut queue, percent, stable, canary);
    queue
}

fn set_shared(queue: &mut Test, percent: u32, stable: usize, canary: usize) -> Vec<u32> {
    let side = |n: usize| {
        if n < stable {
            Side::Stable
        } else {
            Side::Canary
        }
    };
    let replicas = (0..stable + canary).map(|n| wanted(NAMES[n], side(n)));
    let limits = Limits {
        canary_percent: percent,
        ..queue.limits
    };
    let started = queue.set_replicas(limits, replicas.collect(), Dice::new(7));
    started.iter().map(|start| start.waiter).collect()
}

fn affinity(session: &str) -> Affinity {
    Affinity::of(session, "").unwrap()
}

fn with(affinity: Option<Affinity>) -> Wish {
    Wish {
        affinity,
        ..Wish::default()
    }
}

fn ranked(class: u8, tenant: &str) -> Wish {
    let tenant = Tenant::named(tenant);
    Wish {
        rank: Rank {
            class,
            tenant,
            weight: 1,
        },
        ..Wish::default()
    }
}

fn started(admission: Admission<&'static str>) -> (ReplicaKey, Seq, &'static str) {
    match admission {
        Admission::Start { key, seq, target } => (key, seq, target),
        other => panic!("not started: {other:?}"),
    }
}

fn placed(starts: &[Start<&'static str, u32>]) -> Vec<(&'static str, u32)> {
    let starts = starts.iter();
    starts.map(|start| (start.target, start.waiter)).collect()
}

#[test]
fn a_full_replica_makes_requests_wait_and_a_full_queue_refuses_them() {
    let mut queue = queue(1, 1, 1);
    let (key, _, _) = started(queue.admit(Wish::default(), Dice::new(0), || 1));
    assert_eq!(
        queue.admit(Wish::default(), Dice::new(0), || 2),
        Admission::Wait(1)
    );
    assert_eq!(
        queue.admit(Wish::default(), Dice::new(0), || 3),
        Admission::Refuse(Refusal::Full { queued: 1, max: 1 })
    );
    let next = queue.release(key);
    assert_eq!(next.iter().map(|s| s.waiter).collect::<Vec<_>>(), [2]);
    assert_eq!((queue.queued(), queue.ongoing()), (0, 1));
}

#[test]
fn without_a_limit_of_the_users_the_queue_has_ours() {
    let mut queue = queue(1, -1, 0);
    for n in 0..QUEUED_REQUESTS_MAX {
        assert_eq!(
            queue.admit(Wish::default(), Dice::new(0), || 0),
            Admission::Wait(n as u64)
        );
    }
    let max = QUEUED_REQUESTS_MAX;
    assert_eq!(
        queue.admit(Wish::default(), Dice::new(0), || 0),
        Admission::Refuse(Refusal::Full { queued: max, max })
    );
}

#[test]
fn requests_that_came_before_the_first_replica_start_when_it_appears() {
    let mut queue = queue(2, -1, 0);
    for n in 0..3 {
        assert_eq!(
            queue.admit(Wish::default(), Dice::new(0), || n),
            Admission::Wait(n.into())
        );
    }
    let limits = queue.limits;
    let started = queue.set_replicas(limits, named(&["r0"]), Dice::new(0));
    assert_eq!(started.iter().map(|s| s.waiter).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(queue.queued(), 1);
}

#[test]
fn a_refused_request_goes_elsewhere_and_the_replica_is_left_alone() {
    let mut queue = queue(1, -1, 2);
    let (key, seq, first) = started(queue.admit(Wish::default(), Dice::new(0), || 0));
    let refused = queue.refused(key, seq, Dice::new(0), || 0);
    assert_eq!(refused.in_a_row, 1);
    let (_, again, second) = started(refused.admission);
    assert_eq!(again, seq);
    assert_ne!(first, second);
    // The first replica is free in our books but paused.
    assert_eq!(
        queue.admit(Wish::default(), Dice::new(0), || 7),
        Admission::Wait(1)
    );
    let resumed = queue.resume(key, Dice::new(0));
    assert_eq!(resumed.iter().map(|s| s.waiter).collect::<Vec<_>>(), [7]);
}

#[test]
fn a_refused_request_keeps_its_place_in_line() {
    let mut queue = queue(1, -1, 1);
    let (key, seq, _) = started(queue.admit(Wish::default(), Dice::new(0), || 0));
    assert_eq!(
        queue.admit(Wish::default(), Dice::new(0), || 1),
        Admission::Wait(1)
    );
    let refused = queue.refused(key, seq, Dice::new(0), || 0);
    assert_eq!(refused.admission, Admission::Wait(0));
    let resumed = queue.resume(key, Dice::new(0));
    assert_eq!(resumed.iter().map(|s| s.waiter).collect::<Vec<_>>(), [0]);
}

#[test]
fn a_deployment_that_failed_refuses_unless_it_still_has_replicas() {
    let mut queue = queue(1, -1, 0);
    queue.admit(Wish::default(), Dice::new(0), || 5);
    assert_eq!(queue.set_end(Some(Refusal::Failed)), [5]);
    assert_eq!(
        queue.admit(Wish::default(), Dice::new(0), || 6),
        Admission::Refuse(Refusal::Failed)
    );
    let limits = queue.limits;
    queue.set_replicas(limits, named(&["r0"]), Dice::new(0));
    started(queue.admit(Wish::default(), Dice::new(0), || 7));
}

#[test]
fn a_request_on_a_withdrawn_replica_still_counts_and_a_reused_slot_is_another_replica() {
    let mut queue = queue(1, -1, 1);
    let (old, _, _) = started(queue.admit(Wish::default(), Dice::new(0), || 0));
    let limits = queue.limits;
    queue.set_replicas(limits, named(&["r1"]), Dice::new(0));
    assert_eq!(queue.ongoing(), 1);
    let (new, _, target) = started(queue.admit(Wish::default(), Dice::new(0), || 0));
    assert_eq!(target, "r1");
    assert_eq!(queue.release(old), []);
    queue.set_replicas(limits, named(&["r1", "r2"]), Dice::new(0));
    assert_eq!(queue.release(old), [], "released twice");
    assert_eq!(queue.ongoing(), 1);
    queue.release(new);
    assert_eq!(queue.ongoing(), 0);
}

#[test]
fn of_two_replicas_the_less_loaded_one_is_taken() {
    let mut queue = queue(100, -1, 2);
    let mut count: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..100 {
        let (_, _, target) = started(queue.admit(Wish::default(), Dice::new(seed), || 0));
        *count.entry(target).or_default() += 1;
    }
    assert_eq!(count, BTreeMap::from([("r0", 50), ("r1", 50)]));
}
