//! Admission and replica choice for one deployment: who may start now, who waits, who is
//! refused.
//!
//! Pure: no clock, no randomness (dice are an argument), no IO. Not here: waking those who wait
//! and speaking to replicas (`deployment`, `dispatch`).
//!
//! Every replica has a queue of its own; a request joins that of the less loaded of two replicas
//! picked at random, unless its session or model has a replica that is free. What it joins is a
//! place, not a fate: a slot that becomes free anywhere takes the oldest request of all the queues.
//! So, for one deployment, requests start in the
//! order in which they came (or in that of `order`, where it is asked for), and none waits while
//! a replica has a free slot.
//!
//! While requests are shared between two versions of the code, dice first say whether a request
//! is for the canary. One that is takes a slot of the stable version rather than wait. One that
//! is not waits as if there were no canary: what fails fast has free slots all the time, and
//! must not draw more than its share. Only while no replica of one version can be reached does
//! the other one get everything (`sharing`).

mod admission;
mod affinity;
mod breaker;
mod dice;
mod order;
mod replicas;
mod share;
mod sharing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::QUEUED_REQUESTS_MAX;

pub use admission::{Admission, Limits, Refusal, Refused, Seq, Start, Wish};
pub use affinity::Affinity;
pub use breaker::Outcome;
pub use dice::Dice;
use order::Order;
pub use order::{Rank, Tenant};
use replicas::Replicas;
pub use replicas::{ReplicaKey, ReplicaLoad, Side, Wanted};
pub use share::Share;

/// The queues of one deployment. `T` says how to reach a replica, `W` how to tell a waiter.
#[derive(Debug)]
pub struct Queue<T, W> {
    limits: Limits,
    end: Option<Refusal>,
    replicas: Replicas<T>,
    /// All queues in one map, oldest first; `place` says in which queue a request stands.
    waiting: BTreeMap<Seq, Waiting<W>>,
    /// Those of them that are for the canary; the others may not take its slots.
    for_canary: BTreeSet<Seq>,
    /// Absent: in the order in which they came.
    order: Option<Box<Order>>,
    next: Seq,
}

#[derive(Debug)]
struct Waiting<W> {
    /// Whose queue; none while there is no replica.
    place: Option<ReplicaKey>,
    /// None: a replica refused it after it was started.
    rank: Option<Rank>,
    waiter: W,
}

// === impl Queue ===

impl<T: Clone, W> Queue<T, W> {
    /// An empty queue without replicas.
    pub fn new(limits: Limits) -> Queue<T, W> {
        Queue {
            limits,
            end: None,
            replicas: Replicas::default(),
            waiting: BTreeMap::new(),
            for_canary: BTreeSet::new(),
            order: None,
            next: 0,
        }
    }

    // ---- requests ----

    /// A request comes, perhaps with a replica that it would rather go to. `waiter` is only made
    /// when it has to wait.
    pub fn admit(
        &mut self,
        wish: Wish,
        mut dice: Dice,
        waiter: impl FnOnce() -> W,
    ) -> Admission<T> {
        if let Some(refusal) = self.refusal() {
            return Admission::Refuse(refusal);
        }
        let side = self.draw(&mut dice);
        let choice = self.choose(side, wish.affinity, &mut dice);
        if let Some((key, true)) = choice {
            return self.start(key, self.next);
        }
        let max = self.queued_max();
        if self.waiting.len() >= max {
            let queued = self.waiting.len();
            return Admission::Refuse(Refusal::Full { queued, max });
        }
        let place = choice.map(|(key, _)| key);
        self.wait(self.next, side, Some(wish.rank), place, waiter())
    }

    /// Room for a request that was refused because the queue is full: whoever has the most
    /// waiting, in the lowest class, gives up its last one. None where that would be no fairer;
    /// always, when the queue is not ordered.
    pub fn make_room(&mut self, rank: Rank) -> Option<W> {
        let seq = self.order.as_ref()?.last_of_most(rank)?;
        self.remove(seq).map(|waiting| waiting.waiter)
    }

    /// A request has ended and leaves its slot, which the next of those who wait gets. More
    /// than one start when the replica was left alone until now.
    pub fn release(&mut self, key: ReplicaKey) -> Vec<Start<T, W>> {
        self.replicas.leave(key, true);
        let mut started = Vec::new();
        while !self.waiting.is_empty() && self.replicas.is_free(key, self.limits.ongoing_max) {
            match self.start_next(key) {
                Some(start) => started.push(start),
                None => break,
            }
        }
        started
    }

    /// A replica refused a request, which goes elsewhere or waits at its old place, for the
    /// version it was sent to. The replica gets nothing more until [`Queue::resume`] or until one
    /// of our requests ends there.
    pub fn refused(
        &mut self,
        key: ReplicaKey,
        seq: Seq,
        mut dice: Dice,
        waiter: impl FnOnce() -> W,
    ) -> Refused<T> {
        // Dice that are thrown at every refusal would give the canary more than its part.
        let side = self.side_of(key);
        let in_a_row = self.replicas.leave(key, false);
        let admission = match self.refusal() {
            Some(refusal) => Admission::Refuse(refusal),
            None => match self.choose(side, None, &mut dice) {
                Some((key, true)) => self.start(key, seq),
                choice => self.wait(seq, side, None, choice.map(|(key, _)| key), waiter()),
            },
        };
        Refused {
            admission,
            in_a_row,
        }
    }

    /// The pause of a replica that refused is over.
    pub fn resume(&mut self, key: ReplicaKey, dice: Dice) -> Vec<Start<T, W>> {
        self.replicas.resume(key);
        self.fill(dice)
    }

    /// How a call at a replica ended, to be told before its slot is given back. When the replica
    /// is left out because of it: how often in a row, to say how long until
    /// [`Queue::try_again`].
    pub fn ended(&mut self, key: ReplicaKey, outcome: Outcome) -> Option<u32> {
        self.replicas.ended(key, outcome)
    }

    /// The pause of a replica that was left out is over: it is tried with one request.
    pub fn try_again(&mut self, key: ReplicaKey, dice: Dice) -> Vec<Start<T, W>> {
        self.replicas.try_again(key);
        self.fill(dice)
    }

    /// A request that waited is no longer wanted. False when it does not wait (any more).
    pub fn cancel(&mut self, seq: Seq) -> bool {
        self.remove(seq).is_some()
    }

    fn remove(&mut self, seq: Seq) -> Option<Waiting<W>> {
        let waiting = self.waiting.remove(&seq)?;
        self.for_canary.remove(&seq);
        if let Some(order) = &mut self.order {
            order.leave(seq, waiting.rank);
        }
        self.replicas.left_queue(waiting.place);
        Some(waiting)
    }

    // ---- what the table says ----

    /// The replicas are these. Requests in the queues of others move; requests in progress
    /// there end where they are.
    pub fn set_replicas(
        &mut self,
        limits: Limits,
        wanted: Vec<Wanted<T>>,
        dice: Dice,
    ) -> Vec<Start<T, W>> {
        self.limits = limits;
        if limits.canary_percent == 0 || self.is_other_canary(&wanted) {
            self.for_canary.clear();
        }
        self.replicas.set(wanted);
        self.fill(dice)
    }

    /// Whether those who wait are started by rank, or in the order in which they came.
    pub fn set_ordered(&mut self, ordered: bool) {
        if ordered == self.order.is_some() {
            return;
        }
        self.order = ordered.then(Box::default);
        if let Some(order) = &mut self.order {
            for (seq, waiting) in &self.waiting {
                order.join(*seq, waiting.rank);
            }
        }
    }

    /// The connection to some replicas came up or broke.
    pub fn set_reachable(
        &mut self,
        which: impl Fn(&T) -> bool,
        reachable: bool,
        dice: Dice,
    ) -> Vec<Start<T, W>> {
        self.replicas.set_reachable(which, reachable);
        self.fill(dice)
    }

    /// Ends or reopens the queue; those who wait are handed out when it ends. A queue that ended
    /// for a failure still serves while there are replicas.
    pub fn set_end(&mut self, end: Option<Refusal>) -> Vec<W> {
        self.end = end;
        if self.refusal().is_none() {
            return Vec::new();
        }
        self.for_canary.clear();
        if let Some(order) = &mut self.order {
            **order = Order::default();
        }
        let waiting = std::mem::take(&mut self.waiting);
        let mut waiters = Vec::with_capacity(waiting.len());
        for entry in waiting.into_values() {
            self.replicas.left_queue(entry.place);
            waiters.push(entry.waiter);
        }
        waiters
    }

    // ---- what others want to know ----

    /// Requests that wait.
    pub fn queued(&self) -> usize {
        self.waiting.len()
    }

    /// Requests that were admitted so far: each got a place in line of its own.
    pub fn arrivals(&self) -> u64 {
        self.next
    }

    /// Requests in progress, withdrawn replicas included.
    pub fn ongoing(&self) -> u32 {
        self.replicas.ongoing()
    }

    /// The limit on requests that wait: the user's, or ours where it is lower.
    pub fn queued_max(&self) -> usize {
        match usize::try_from(self.limits.queued_max) {
            Ok(max) => max.min(QUEUED_REQUESTS_MAX),
            // Negative: the user sets none.
            Err(_) => QUEUED_REQUESTS_MAX,
        }
    }

    /// Replicas that are left out, or on trial, for calls that failed.
    pub fn left_out(&self) -> usize {
        self.replicas.left_out()
    }

    /// Load of every replica of the table.
    pub fn loads(&self) -> impl Iterator<Item = ReplicaLoad<'_, T>> {
        self.replicas.loads()
    }

    // ---- parts ----

    fn refusal(&self) -> Option<Refusal> {
        match self.end {
            None => None,
            Some(Refusal::Failed) if self.replicas.any_in_table() => None,
            Some(refusal) => Some(refusal),
        }
    }

    fn start(&mut self, key: ReplicaKey, seq: Seq) -> Admission<T> {
        self.next = self.next.max(seq + 1);
        match self.replicas.enter(key) {
            Some(target) => Admission::Start { key, seq, target },
            // `key` came from `choose`, so it exists.
            None => Admission::Refuse(Refusal::Deleted),
        }
    }

    fn wait(
        &mut self,
        seq: Seq,
        side: Side,
        rank: Option<Rank>,
        place: Option<ReplicaKey>,
        waiter: W,
    ) -> Admission<T> {
        self.next = self.next.max(seq + 1);
        if side == Side::Canary {
            self.for_canary.insert(seq);
        }
        self.replicas.joined_queue(place);
        if let Some(order) = &mut self.order {
            order.join(seq, rank);
        }
        let waiting = Waiting {
            place,
            rank,
            waiter,
        };
        self.waiting.insert(seq, waiting);
        Admission::Wait(seq)
    }

    fn start_next(&mut self, key: ReplicaKey) -> Option<Start<T, W>> {
        let seq = self.next_for(self.replicas.side_of(key))?;
        let waiting = self.waiting.remove(&seq)?;
        self.for_canary.remove(&seq);
        if let Some(order) = &mut self.order {
            order.start(seq, waiting.rank);
        }
        self.replicas.left_queue(waiting.place);
        let target = self.replicas.enter(key)?;
        Some(Start {
            key,
            seq,
            target,
            waiter: waiting.waiter,
        })
    }

    /// After slots may have become free or replicas gone: starts the oldest while there is a
    /// slot, and gives what still waits a place at a replica that is there.
    fn fill(&mut self, mut dice: Dice) -> Vec<Start<T, W>> {
        let max = self.limits.ongoing_max;
        let mut started = Vec::new();
        for side in [Side::Stable, Side::Canary] {
            while self.next_for(side).is_some() {
                match self.replicas.choose(side, max, &mut dice) {
                    Some((key, true)) => started.extend(self.start_next(key)),
                    Some((_, false)) | None => break,
                }
            }
        }
        let stable = self.replicas.any_live(Side::Stable);
        let canary = self.replicas.any_live(Side::Canary);
        for (seq, waiting) in &mut self.waiting {
            if waiting.place.is_some_and(|key| self.replicas.is_live(key)) {
                continue;
            }
            let is_for_canary = canary && (!stable || self.for_canary.contains(seq));
            let side = if is_for_canary {
                Side::Canary
            } else {
                Side::Stable
            };
            self.replicas.left_queue(waiting.place);
            let choice = self.replicas.choose(side, max, &mut dice);
            waiting.place = choice.map(|(key, _)| key);
            self.replicas.joined_queue(waiting.place);
        }
        started
    }
}
