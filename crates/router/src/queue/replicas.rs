//! The replicas of one deployment and what each is doing. Part of the pure queue.

use super::Dice;
use super::affinity::{Affinity, Mark};
use super::breaker::{Breaker, Outcome, Phase};
use crate::limits::LEFT_OUT_PART;

/// A replica's slot in this router. Never means another replica, even after the slot was used
/// again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplicaKey {
    slot: usize,
    generation: u64,
}

/// Which of two versions of the code a replica is of, while requests are shared between them.
/// Without sharing all are of the stable one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    /// What served until now.
    #[default]
    Stable,
    /// What gets a part of the requests to prove itself.
    Canary,
}

/// A replica as the table has it.
#[derive(Clone, Debug)]
pub struct Wanted<T> {
    /// Its id.
    pub id: String,
    /// How to reach it.
    pub target: T,
    /// Whether it can be reached now.
    pub reachable: bool,
    /// Its version.
    pub side: Side,
    /// Its own limit of requests in progress, where it is not the deployment's.
    pub ongoing_max: Option<u32>,
}

/// What a replica is doing, as this router sees it.
#[derive(Debug)]
pub struct ReplicaLoad<'a, T> {
    /// How to reach it.
    pub target: &'a T,
    /// Requests in progress there.
    pub ongoing: u32,
    /// Requests in its queue.
    pub queued: u32,
}

/// All replicas that are in the table or still have a request of ours.
#[derive(Debug)]
pub(super) struct Replicas<T> {
    slots: Vec<Slot<T>>,
    /// Slots that may be given requests: in the table, reachable and not left out.
    live: Live,
    /// Of the stable version's replicas that are reachable none is in: then none is left out.
    spares_nobody: bool,
    /// Calls that were answered, by all of them.
    answers: u64,
}

/// The live slots of either side.
#[derive(Debug, Default)]
struct Live {
    stable: Vec<usize>,
    canary: Vec<usize>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u64,
    /// None: the slot is empty.
    replica: Option<Replica<T>>,
}

#[derive(Debug)]
struct Replica<T> {
    id: String,
    mark: Mark,
    target: T,
    ongoing: u32,
    queued: u32,
    in_table: bool,
    reachable: bool,
    side: Side,
    ongoing_max: Option<u32>,
    /// Refusals in a row.
    refusals: u32,
    /// Left alone after a refusal.
    paused: bool,
    breaker: Breaker,
}

// === impl Replicas ===

impl<T> Default for Replicas<T> {
    fn default() -> Self {
        Replicas {
            slots: Vec::new(),
            live: Live::default(),
            spares_nobody: false,
            answers: 0,
        }
    }
}

impl<T: Clone> Replicas<T> {
    /// Whether a replica of that side may be given requests.
    pub fn any_live(&self, side: Side) -> bool {
        !self.live.of(side).is_empty()
    }

    /// The less loaded of two replicas of a side picked at random, and whether it has a free
    /// slot; one that has where any has. None when there is no replica to give anything to.
    pub fn choose(
        &self,
        side: Side,
        ongoing_max: u32,
        dice: &mut Dice,
    ) -> Option<(ReplicaKey, bool)> {
        let live = self.live.of(side);
        let n = live.len();
        let first = dice.below(n);
        // Another than the first, each with the same chance.
        let second = (first + 1 + dice.below(n.saturating_sub(1))) % n.max(1);
        let rank = |index: usize| {
            let replica = self.replica_at(*live.get(index)?)?;
            Some((
                !self.has_room(replica, ongoing_max),
                replica.ongoing + replica.queued,
            ))
        };
        let best = if rank(second)? < rank(first)? {
            second
        } else {
            first
        };
        let has_room = |r: &Replica<T>| self.has_room(r, ongoing_max);
        let is_free = |slot: &usize| self.replica_at(*slot).is_some_and(has_room);
        let best_slot = *live.get(best)?;
        if is_free(&best_slot) {
            return Some((self.key_at(best_slot)?, true));
        }
        // Two unlucky throws must not make a request wait beside a free slot.
        let mut from_best = live.iter().cycle().skip(best).take(n).copied();
        match from_best.find(is_free) {
            Some(free) => Some((self.key_at(free)?, true)),
            None => Some((self.key_at(best_slot)?, false)),
        }
    }

    /// The side of a replica.
    pub fn side_of(&self, key: ReplicaKey) -> Side {
        self.get(key)
            .map_or_else(Side::default, |replica| replica.side)
    }

    /// The replica of a side that the affinity prefers, if it has a free slot.
    pub fn preferred(
        &self,
        side: Side,
        affinity: Affinity,
        ongoing_max: u32,
    ) -> Option<ReplicaKey> {
        let weight = |slot: &usize| Some(self.replica_at(*slot)?.mark.weight(affinity));
        let best = *self.live.of(side).iter().max_by_key(|slot| weight(slot))?;
        let is_free = self.has_room(self.replica_at(best)?, ongoing_max);
        is_free.then(|| self.key_at(best))?
    }

    /// Whether one of these is of the canary, and was.
    pub fn any_stays_canary(&self, wanted: &[Wanted<T>]) -> bool {
        let is_canary = |replica: &&Replica<T>| replica.side == Side::Canary;
        let mut before = self.all().filter(is_canary);
        before.any(|replica| {
            let stays = |new: &Wanted<T>| new.side == Side::Canary && new.id == replica.id;
            wanted.iter().any(stays)
        })
    }

    /// Takes one slot of the replica.
    pub fn enter(&mut self, key: ReplicaKey) -> Option<T> {
        let replica = self.get_mut(key)?;
        replica.ongoing += 1;
        Some(replica.target.clone())
    }

    /// Gives one slot back; says how often in a row the replica has refused.
    pub fn leave(&mut self, key: ReplicaKey, answered: bool) -> u32 {
        let Some(replica) = self.get_mut(key) else {
            return 0;
        };
        replica.ongoing = replica.ongoing.saturating_sub(1);
        if answered {
            replica.refusals = 0;
        } else {
            replica.refusals = replica.refusals.saturating_add(1);
        }
        // An answer means that a slot of the replica just became free.
        replica.paused = !answered;
        let refusals = replica.refusals;
        if !replica.in_table && replica.ongoing == 0 {
            self.vacate(key.slot);
        }
        refusals
    }

    pub fn resume(&mut self, key: ReplicaKey) {
        if let Some(replica) = self.get_mut(key) {
            replica.paused = false;
        }
    }

    /// How a call at the replica ended. When the replica is left out from now on: how often in
    /// a row, to say for how long.
    pub fn ended(&mut self, key: ReplicaKey, outcome: Outcome) -> Option<u32> {
        // Nearly all calls are answered: these are not worth a look at all replicas.
        let is_answer = outcome == Outcome::Answered;
        self.answers = self.answers.wrapping_add(u64::from(is_answer));
        let is_failure = matches!(outcome, Outcome::Failed | Outcome::TimedOut);
        let may_leave = is_failure && self.may_leave(key);
        let answers = self.answers;
        let replica = self.get_mut(key)?;
        let before = replica.breaker.phase();
        let times = replica.breaker.ended(outcome, may_leave, answers);
        if replica.breaker.phase() != before {
            self.list_live();
        }
        times
    }

    /// The replica was left out long enough and is tried.
    pub fn try_again(&mut self, key: ReplicaKey) {
        if let Some(replica) = self.get_mut(key) {
            replica.breaker.pause_over();
            self.list_live();
        }
    }

    /// Replicas that are reachable and left out, or on trial.
    pub fn left_out(&self) -> usize {
        let all = self.all().filter(|replica| replica.is_live());
        all.filter(|replica| !replica.is_in()).count()
    }

    /// A canary is judged by how it answers: leaving it out would keep its judge waiting.
    fn may_leave(&self, key: ReplicaKey) -> bool {
        let stable = |replica: &&Replica<T>| replica.is_live() && replica.side == Side::Stable;
        let reachable = self.all().filter(stable).count();
        self.side_of(key) == Side::Stable && (self.left_out() + 1) * LEFT_OUT_PART <= reachable
    }

    pub fn is_live(&self, key: ReplicaKey) -> bool {
        self.get(key).is_some_and(Replica::is_live)
    }

    pub fn is_free(&self, key: ReplicaKey, ongoing_max: u32) -> bool {
        self.get(key).is_some_and(|replica| {
            let listed = self.spares_nobody || !replica.is_out();
            replica.is_live() && listed && self.has_room(replica, ongoing_max)
        })
    }

    fn has_room(&self, replica: &Replica<T>, ongoing_max: u32) -> bool {
        let max = replica.ongoing_max.unwrap_or(ongoing_max);
        let max = if replica.is_on_trial() && !self.spares_nobody {
            max.min(1)
        } else {
            max
        };
        !replica.paused && replica.ongoing < max
    }

    pub fn joined_queue(&mut self, place: Option<ReplicaKey>) {
        if let Some(replica) = place.and_then(|key| self.get_mut(key)) {
            replica.queued += 1;
        }
    }

    pub fn left_queue(&mut self, place: Option<ReplicaKey>) {
        if let Some(replica) = place.and_then(|key| self.get_mut(key)) {
            replica.queued = replica.queued.saturating_sub(1);
        }
    }

    /// Makes the table's replicas these.
    pub fn set(&mut self, wanted: Vec<Wanted<T>>) {
        for replica in self.slots.iter_mut().filter_map(|s| s.replica.as_mut()) {
            replica.in_table = false;
        }
        for wanted in wanted {
            let mut known = self.slots.iter_mut().filter_map(|s| s.replica.as_mut());
            match known.find(|replica| replica.id == wanted.id) {
                Some(replica) => replica.describe(wanted),
                None => self.add(Replica::new(wanted, self.answers)),
            }
        }
        for slot in 0..self.slots.len() {
            let idle = |r: &Replica<T>| !r.in_table && r.ongoing == 0;
            if self
                .slots
                .get(slot)
                .and_then(|s| s.replica.as_ref())
                .is_some_and(idle)
            {
                self.vacate(slot);
            }
        }
        self.list_live();
    }

    pub fn set_reachable(&mut self, which: impl Fn(&T) -> bool, reachable: bool) {
        for replica in self.slots.iter_mut().filter_map(|s| s.replica.as_mut()) {
            if which(&replica.target) {
                replica.reachable = reachable;
            }
        }
        self.list_live();
    }

    pub fn any_in_table(&self) -> bool {
        self.all().any(|replica| replica.in_table)
    }

    pub fn ongoing(&self) -> u32 {
        self.all().map(|replica| replica.ongoing).sum()
    }

    pub fn loads(&self) -> impl Iterator<Item = ReplicaLoad<'_, T>> {
        self.all().filter(|r| r.in_table).map(|r| ReplicaLoad {
            target: &r.target,
            ongoing: r.ongoing,
            queued: r.queued,
        })
    }

    fn all(&self) -> impl Iterator<Item = &Replica<T>> {
        self.slots.iter().filter_map(|slot| slot.replica.as_ref())
    }

    fn replica_at(&self, slot: usize) -> Option<&Replica<T>> {
        self.slots.get(slot)?.replica.as_ref()
    }

    fn key_at(&self, slot: usize) -> Option<ReplicaKey> {
        let generation = self.slots.get(slot)?.generation;
        Some(ReplicaKey { slot, generation })
    }

    fn get(&self, key: ReplicaKey) -> Option<&Replica<T>> {
        let slot = self.slots.get(key.slot)?;
        slot.replica
            .as_ref()
            .filter(|_| slot.generation == key.generation)
    }

    fn get_mut(&mut self, key: ReplicaKey) -> Option<&mut Replica<T>> {
        let slot = self.slots.get_mut(key.slot)?;
        let same = slot.generation == key.generation;
        slot.replica.as_mut().filter(|_| same)
    }

    fn add(&mut self, replica: Replica<T>) {
        match self.slots.iter_mut().find(|slot| slot.replica.is_none()) {
            Some(empty) => empty.replica = Some(replica),
            None => self.slots.push(Slot {
                generation: 0,
                replica: Some(replica),
            }),
        }
    }

    fn vacate(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.replica = None;
            slot.generation += 1;
        }
    }

    fn list_live(&mut self) {
        let stable = |r: &&Replica<T>| r.is_live() && r.side == Side::Stable;
        let spares_nobody = !self.all().filter(stable).any(Replica::is_in);
        self.spares_nobody = spares_nobody;
        self.live.stable.clear();
        self.live.canary.clear();
        for (index, slot) in self.slots.iter().enumerate() {
            let live = slot.replica.as_ref().filter(|replica| replica.is_live());
            match live.map(|replica| (replica.side, replica.is_out() && !spares_nobody)) {
                Some((Side::Stable, false)) => self.live.stable.push(index),
                Some((Side::Canary, _)) => self.live.canary.push(index),
                Some((Side::Stable, true)) | None => {}
            }
        }
    }
}

// === impl Live ===

impl Live {
    fn of(&self, side: Side) -> &[usize] {
        match side {
            Side::Stable => &self.stable,
            Side::Canary => &self.canary,
        }
    }
}

// === impl Replica ===

impl<T> Replica<T> {
    fn new(wanted: Wanted<T>, answers: u64) -> Replica<T> {
        Replica {
            mark: Mark::of(&wanted.id),
            id: wanted.id,
            target: wanted.target,
            ongoing: 0,
            queued: 0,
            in_table: true,
            reachable: wanted.reachable,
            side: wanted.side,
            ongoing_max: wanted.ongoing_max,
            refusals: 0,
            paused: false,
            breaker: Breaker::new(answers),
        }
    }

    fn describe(&mut self, wanted: Wanted<T>) {
        self.in_table = true;
        self.target = wanted.target;
        self.reachable = wanted.reachable;
        if self.side != wanted.side {
            self.breaker = Breaker::default();
        }
        self.side = wanted.side;
        self.ongoing_max = wanted.ongoing_max;
    }

    fn is_live(&self) -> bool {
        self.in_table && self.reachable
    }

    fn is_in(&self) -> bool {
        self.breaker.phase() == Phase::In
    }

    fn is_out(&self) -> bool {
        self.breaker.phase() == Phase::Out
    }

    fn is_on_trial(&self) -> bool {
        self.breaker.phase() == Phase::Trial
    }
}
