//! The queue against a model: random sequences of everything that can happen to it.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::affinity::Mark;
use super::super::breaker::Phase;
use super::*;
use crate::limits::LEFT_OUT_PART;

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
