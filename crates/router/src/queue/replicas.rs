//! The replicas of one deployment and what each is doing. Part of the pure queue.

use super::Dice;
use super::affinity::{Affinity, Mark};

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
    /// Slots that may be given requests: in the table and reachable.
    live: Live,
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
}

// === impl Replicas ===

impl<T> Default for Replicas<T> {
    fn default() -> Self {
        Replicas {
            slots: Vec::new(),
            live: Live::default(),
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
                !replica.is_free(ongoing_max),
                replica.ongoing + replica.queued,
            ))
        };
        let best = if rank(second)? < rank(first)? {
            second
        } else {
            first
        };
        let is_free = |slot: &usize| {
            let replica = self.replica_at(*slot);
            replica.is_some_and(|replica| replica.is_free(ongoing_max))
        };
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
        let is_free = self.replica_at(best)?.is_free(ongoing_max);
        is_free.then(|| self.key_at(best))?
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

    pub fn is_live(&self, key: ReplicaKey) -> bool {
        self.get(key).is_some_and(Replica::is_live)
    }

    pub fn is_free(&self, key: ReplicaKey, ongoing_max: u32) -> bool {
        self.get(key)
            .is_some_and(|replica| replica.is_live() && replica.is_free(ongoing_max))
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
                None => self.add(Replica::new(wanted)),
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
        self.live.stable.clear();
        self.live.canary.clear();
        for (index, slot) in self.slots.iter().enumerate() {
            if let Some(replica) = slot.replica.as_ref().filter(|replica| replica.is_live()) {
                match replica.side {
                    Side::Stable => self.live.stable.push(index),
                    Side::Canary => self.live.canary.push(index),
                }
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
    fn new(wanted: Wanted<T>) -> Replica<T> {
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
        }
    }

    fn describe(&mut self, wanted: Wanted<T>) {
        self.in_table = true;
        self.target = wanted.target;
        self.reachable = wanted.reachable;
        self.side = wanted.side;
        self.ongoing_max = wanted.ongoing_max;
    }

    fn is_live(&self) -> bool {
        self.in_table && self.reachable
    }

    fn is_free(&self, ongoing_max: u32) -> bool {
        !self.paused && self.ongoing < self.ongoing_max.unwrap_or(ongoing_max)
    }
}
