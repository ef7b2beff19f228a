//! The queue against a model: random sequences of everything that can happen to it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::affinity::Mark;
use super::breaker::Phase;
use super::*;
use crate::limits::{FAILURES_IN_A_ROW_MAX, LEFT_OUT_PART};

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

fn started(admission: Admission<&'static str>) -> (ReplicaKey, Seq, &'static str) {
    match admission {
        Admission::Start { key, seq, target } => (key, seq, target),
        other => panic!("not started: {other:?}"),
    }
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

#[derive(Clone, Debug)]
enum Op {
    Admit(Option<u8>),
    Release(usize),
    Fail(usize),
    Refuse(usize),
    Lose(usize),
    TryAgain(usize),
    Resume(usize),
    Cancel(usize),
    /// Who is in the table, from where on they are of the canary, its percent, the limit.
    Replicas(Vec<usize>, usize, u32, u32),
    Reachable(usize, bool),
}

fn op() -> impl Strategy<Value = Op> {
    let some = 0usize..64;
    prop_oneof![
        6 => proptest::option::of(0u8..4).prop_map(Op::Admit),
        4 => some.clone().prop_map(Op::Release),
        6 => some.clone().prop_map(Op::Fail),
        2 => some.clone().prop_map(Op::Refuse),
        2 => some.clone().prop_map(Op::Lose),
        1 => some.clone().prop_map(Op::TryAgain),
        1 => some.clone().prop_map(Op::Resume),
        1 => some.prop_map(Op::Cancel),
        1 => (
            proptest::sample::subsequence(vec![0usize, 1, 2, 3], 0..=4),
            prop_oneof![Just(4usize), 0usize..4],
            prop_oneof![Just(0u32), 1u32..=100],
            1u32..4,
        )
            .prop_map(|(set, canary, percent, max)| Op::Replicas(set, canary, percent, max)),
        1 => (0usize..4, any::<bool>()).prop_map(|(n, up)| Op::Reachable(n, up)),
    ]
}

/// What a simple accountant believes.
#[derive(Default)]
struct Model {
    waiting: BTreeSet<Seq>,
    running: Vec<(ReplicaKey, Seq, &'static str)>,
    /// May still be left alone after a refusal.
    paused: Vec<(ReplicaKey, &'static str)>,
    /// Left out, or on trial.
    suspects: Vec<(ReplicaKey, &'static str, Phase)>,
    /// Pauses of those that are left out.
    pauses: Vec<(ReplicaKey, &'static str)>,
    over: BTreeSet<Seq>,
    ongoing_max: u32,
    down: BTreeSet<&'static str>,
    table: BTreeSet<&'static str>,
    canary: BTreeSet<&'static str>,
    /// Of the canary when the table last had it.
    was_canary: BTreeSet<&'static str>,
    /// By rank, which the tests of `order` look at.
    ordered: bool,
}

impl Model {
    fn admitted(&mut self, admission: Admission<&'static str>) {
        match admission {
            Admission::Start { key, seq, target } => self.start(key, seq, target),
            Admission::Wait(seq) => {
                assert!(!self.over.contains(&seq), "answered and waiting");
                assert!(self.waiting.insert(seq), "waits twice");
            }
            Admission::Refuse(refusal) => panic!("no limit was set: {refusal:?}"),
        }
    }

    /// `for_canary`: those of the waiting that were for the canary before.
    fn resumed(&mut self, starts: Vec<Start<&'static str, u32>>, for_canary: &BTreeSet<Seq>) {
        for start in starts {
            let only_canarys = self.canary.contains(start.target) && self.any_stable();
            let may = |seq: &Seq| !only_canarys || for_canary.contains(seq);
            let oldest = self.waiting.iter().copied().find(may);
            assert!(self.waiting.contains(&start.seq) && may(&start.seq));
            assert!(
                self.ordered || oldest == Some(start.seq),
                "the oldest of those who may starts first"
            );
            self.waiting.remove(&start.seq);
            self.start(start.key, start.seq, start.target);
        }
    }

    fn any_stable(&self) -> bool {
        let live = self.table.difference(&self.down);
        live.copied().any(|name| !self.canary.contains(name))
    }

    fn start(&mut self, key: ReplicaKey, seq: Seq, target: &'static str) {
        assert!(self.table.contains(target) && !self.down.contains(target));
        assert!(!self.over.contains(&seq), "started after it was over");
        self.running.push((key, seq, target));
        let here = self.running.iter().filter(|r| r.2 == target).count();
        assert!(here <= self.slots(target), "above what {target} may have");
    }

    /// The replica of a version that the affinity prefers, when it has a slot for sure.
    fn preferred(&self, affinity: Affinity, of_canary: bool) -> Option<&'static str> {
        let listed = self.reachable().filter(|name| self.slots(name) > 0);
        let listed = listed.filter(|name| self.canary.contains(name) == of_canary);
        let best = listed.max_by_key(|name| Mark::of(name).weight(affinity))?;
        self.has_room(best).then_some(best)
    }

    fn reachable(&self) -> impl Iterator<Item = &'static str> {
        self.table.difference(&self.down).copied()
    }

    fn phase(&self, name: &str) -> Phase {
        let mut suspects = self.suspects.iter().filter(|s| s.1 == name);
        suspects.next().map_or(Phase::In, |s| s.2)
    }

    /// How many requests the replica may have: all when there is none that is in.
    fn slots(&self, name: &str) -> usize {
        let mut stable = self.reachable().filter(|name| !self.canary.contains(name));
        let any_in = stable.any(|name| self.phase(name) == Phase::In);
        match self.phase(name) {
            Phase::Out if any_in => 0,
            Phase::Trial if any_in => 1.min(self.ongoing_max as usize),
            _ => self.ongoing_max as usize,
        }
    }

    fn has_room(&self, name: &str) -> bool {
        let here = self.running.iter().filter(|r| r.2 == name).count();
        let paused = self.paused.iter().any(|(_, paused)| *paused == name);
        here < self.slots(name) && !paused
    }

    fn ended(&mut self, queue: &mut Test, key: ReplicaKey, name: &'static str, outcome: Outcome) {
        let before = self.phase(name);
        let times = queue.ended(key, outcome);
        if times.is_some() || (outcome == Outcome::Answered && before == Phase::Trial) {
            self.suspects.retain(|s| s.0 != key);
        }
        if times.is_some() {
            self.suspects.push((key, name, Phase::Out));
            self.pauses.push((key, name));
        }
        if times.is_some() && before == Phase::In {
            assert!(!self.was_canary.contains(name), "a canary is left out");
            let stable = self.reachable().filter(|name| !self.canary.contains(name));
            let (all, out) = (stable.count(), queue.left_out());
            assert!(
                out * LEFT_OUT_PART <= all || !self.reachable().any(|n| n == name),
                "{out} of {all} left out"
            );
        }
    }

    /// A replica whose version becomes another one in the sharing is no suspect any more.
    fn describe(&mut self) {
        for name in &self.table {
            let is = self.canary.contains(name);
            if is != self.was_canary.contains(name) {
                self.suspects.retain(|s| s.1 != *name);
            }
            if is {
                self.was_canary.insert(name);
            } else {
                self.was_canary.remove(name);
            }
        }
    }

    /// A replica that is not in the table is forgotten with its last request.
    fn forget_gone(&mut self) {
        let (table, running) = (&self.table, &self.running);
        let stays = |name: &str| table.contains(name) || running.iter().any(|r| r.2 == name);
        self.suspects.retain(|s| stays(s.1));
    }

    fn check(&self, queue: &Test) {
        assert_eq!(queue.queued(), self.waiting.len());
        assert_eq!(queue.ongoing() as usize, self.running.len());
        assert!(queue.for_canary.is_subset(&self.waiting));
        let mut queued_at_replicas = 0;
        for load in queue.loads() {
            let here = self.running.iter().filter(|r| r.2 == *load.target).count();
            assert_eq!(load.ongoing as usize, here, "{}", load.target);
            queued_at_replicas += load.queued as usize;
        }
        let reachable = self.table.difference(&self.down).count();
        let placed = if reachable == 0 {
            0
        } else {
            self.waiting.len()
        };
        assert_eq!(
            queued_at_replicas, placed,
            "each waits in exactly one queue"
        );
        for name in self.reachable().filter(|name| self.has_room(name)) {
            let only_canarys = self.canary.contains(name) && self.any_stable();
            let mut those = self.waiting.iter();
            assert!(
                !those.any(|seq| !only_canarys || queue.for_canary.contains(seq)),
                "waits beside a free slot of {name}"
            );
        }
    }
}

fn apply(queue: &mut Test, model: &mut Model, op: Op, dice: Dice) {
    let for_canary = queue.for_canary.clone();
    match op {
        Op::Admit(session) => {
            let affinity = session.map(|n| affinity(&format!("s{n}")));
            let preferred = [false, true].map(|of_canary| {
                let of_version = |key| model.preferred(key, of_canary);
                affinity.and_then(of_version)
            });
            let class = session.unwrap_or_default();
            let wish = Wish {
                affinity,
                ..ranked(class % 2, ["a", "b", "c"][usize::from(class) % 3])
            };
            let admission = queue.admit(wish, dice, || 0);
            if let Admission::Start { target, .. } = &admission
                && let Some(preferred) = preferred[usize::from(model.canary.contains(target))]
            {
                assert_eq!(*target, preferred, "its replica had room");
            }
            model.admitted(admission);
        }
        Op::Release(n) if !model.running.is_empty() => {
            release(queue, model, n, Outcome::Answered);
        }
        Op::Fail(n) if !model.running.is_empty() => release(queue, model, n, Outcome::Failed),
        Op::Refuse(n) if !model.running.is_empty() => {
            refuse(queue, model, n, Outcome::Unknown, dice);
        }
        Op::Lose(n) if !model.running.is_empty() => {
            refuse(queue, model, n, Outcome::Failed, dice);
        }
        Op::TryAgain(n) if !model.pauses.is_empty() => {
            let (key, _) = model.pauses.swap_remove(n % model.pauses.len());
            for suspect in model.suspects.iter_mut().filter(|s| s.0 == key) {
                suspect.2 = Phase::Trial;
            }
            model.resumed(queue.try_again(key, dice), &for_canary);
        }
        Op::Resume(n) if !model.paused.is_empty() => {
            let (key, _) = model.paused.swap_remove(n % model.paused.len());
            model.resumed(queue.resume(key, dice), &for_canary);
        }
        Op::Cancel(n) if !model.waiting.is_empty() => {
            let seq = *model.waiting.iter().nth(n % model.waiting.len()).unwrap();
            model.waiting.remove(&seq);
            model.over.insert(seq);
            assert!(queue.cancel(seq));
            assert!(!queue.cancel(seq), "cancelled twice");
        }
        Op::Replicas(set, canary, percent, ongoing_max) => {
            model.ongoing_max = ongoing_max;
            model.canary = NAMES[canary..].iter().copied().collect();
            model.table = set.iter().map(|n| NAMES[*n]).collect();
            model.describe();
            // A new replica that cannot be reached yet is told apart by the last field.
            let wanted = set.iter().map(|n| Wanted {
                reachable: !model.down.contains(NAMES[*n]),
                ..wanted(
                    NAMES[*n],
                    if *n < canary {
                        Side::Stable
                    } else {
                        Side::Canary
                    },
                )
            });
            let limits = Limits {
                ongoing_max,
                queued_max: -1,
                canary_percent: percent,
            };
            let starts = queue.set_replicas(limits, wanted.collect(), dice);
            model.resumed(starts, &for_canary);
        }
        Op::Reachable(n, up) => {
            let name = NAMES[n];
            if up {
                model.down.remove(name);
            } else {
                model.down.insert(name);
            }
            let starts = queue.set_reachable(|target| *target == name, up, dice);
            model.resumed(starts, &for_canary);
        }
        Op::Release(_) | Op::Fail(_) | Op::Refuse(_) | Op::Lose(_) => {}
        Op::TryAgain(_) | Op::Resume(_) | Op::Cancel(_) => {}
    }
    model.forget_gone();
}

fn release(queue: &mut Test, model: &mut Model, n: usize, outcome: Outcome) {
    let for_canary = queue.for_canary.clone();
    let (key, seq, name) = model.running.swap_remove(n % model.running.len());
    assert!(model.over.insert(seq), "answered twice");
    model.paused.retain(|(paused, _)| *paused != key);
    model.ended(queue, key, name, outcome);
    model.resumed(queue.release(key), &for_canary);
}

fn refuse(queue: &mut Test, model: &mut Model, n: usize, outcome: Outcome, dice: Dice) {
    let (key, seq, name) = model.running.swap_remove(n % model.running.len());
    model.paused.push((key, name));
    model.ended(queue, key, name, outcome);
    model.admitted(queue.refused(key, seq, dice, || 0).admission);
}

proptest! {
    #[test]
    fn whatever_happens_limits_hold_nothing_is_lost_and_nobody_waits_beside_a_free_slot(
        ops in proptest::collection::vec(op(), 1..200),
        seed in any::<u64>(),
        ordered in any::<bool>(),
    ) {
        let mut queue = queue(1, -1, 2);
        queue.set_ordered(ordered);
        let mut model = Model { ongoing_max: 1, ordered, ..Model::default() };
        model.table.extend(["r0", "r1"]);
        for (step, op) in ops.into_iter().enumerate() {
            apply(&mut queue, &mut model, op, Dice::new(seed ^ step as u64));
            model.check(&queue);
        }
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

/// A queue with one slot, which is taken.
fn ordered(queued_max: i64) -> (Test, ReplicaKey) {
    let mut queue = queue(1, queued_max, 1);
    queue.set_ordered(true);
    let (key, _, _) = started(queue.admit(Wish::default(), Dice::new(0), || 0));
    (queue, key)
}

fn released(queue: &mut Test, key: ReplicaKey) -> Vec<u32> {
    let started = queue.release(key);
    started.iter().map(|start| start.waiter).collect()
}

#[test]
fn an_ordered_queue_starts_by_class_and_in_turns_and_one_that_is_not_by_age() {
    for (is_ordered, wanted) in [(true, [4, 1, 3, 2]), (false, [1, 2, 3, 4])] {
        let (mut queue, key) = ordered(-1);
        let wishes = [
            ranked(1, "many"),
            ranked(1, "many"),
            ranked(1, "few"),
            ranked(0, "many"),
        ];
        for (waiter, wish) in (1..).zip(wishes) {
            queue.admit(wish, Dice::new(0), || waiter);
        }
        // What waits already is put in order, or out of it.
        queue.set_ordered(!is_ordered);
        queue.set_ordered(is_ordered);
        let started: Vec<u32> = (0..4).flat_map(|_| released(&mut queue, key)).collect();
        assert_eq!(started, wanted, "ordered: {is_ordered}");
    }
}

#[test]
fn one_that_a_replica_refused_keeps_its_place_in_an_ordered_queue() {
    let (mut queue, key) = ordered(-1);
    queue.admit(ranked(0, "high"), Dice::new(0), || 1);
    let refused = queue.refused(key, 0, Dice::new(0), || 9);
    assert_eq!(refused.admission, Admission::Wait(0));
    let started = queue.resume(key, Dice::new(0));
    assert_eq!(started[0].waiter, 9);
    assert_eq!(released(&mut queue, key), [1]);
}

#[test]
fn a_full_queue_is_not_one_tenants_alone() {
    let (mut queue, _) = ordered(3);
    for waiter in 1..=3 {
        queue.admit(ranked(1, "many"), Dice::new(0), || waiter);
    }
    let few = ranked(1, "few");
    let full = Refusal::Full { queued: 3, max: 3 };
    assert_eq!(
        queue.admit(few, Dice::new(0), || 4),
        Admission::Refuse(full)
    );
    // The newest of whoever has the most goes.
    assert_eq!(queue.make_room(few.rank), Some(3));
    assert_eq!(queue.admit(few, Dice::new(0), || 4), Admission::Wait(4));
    assert_eq!(queue.make_room(few.rank), None, "two to one is fair");
    let high = ranked(0, "many");
    assert_eq!(
        queue.make_room(high.rank),
        Some(2),
        "a lower class makes room"
    );
    assert_eq!(queue.make_room(ranked(2, "few").rank), None);
    queue.set_ordered(false);
    assert_eq!(queue.make_room(high.rank), None);
}
