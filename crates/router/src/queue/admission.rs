//! What is asked of a queue, and what it says.

use super::{Affinity, Rank, ReplicaKey};

/// Place in line. Lower is older; a request that a replica refused keeps its own.
pub type Seq = u64;

/// What the user allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests in progress per replica.
    pub ongoing_max: u32,
    /// Requests waiting, in this router; negative: no limit but our own.
    pub queued_max: i64,
    /// Percent of the requests that are for the canary, if there is one.
    pub canary_percent: u32,
}

/// What a request asks of the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// What it would rather stay with.
    pub affinity: Option<Affinity>,
    /// Its place among others; only looked at when the queue is ordered.
    pub rank: Rank,
}

/// What becomes of a request that just came.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission<T> {
    /// It has a slot.
    Start {
        /// The slot.
        key: ReplicaKey,
        /// Its place, should the replica refuse it.
        seq: Seq,
        /// The replica.
        target: T,
    },
    /// It waits; its waiter will be handed out with a slot or with the end of the queue.
    Wait(Seq),
    /// It is refused.
    Refuse(Refusal),
}

/// Why a request is refused at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The queue is full.
    Full {
        /// Requests waiting now.
        queued: usize,
        /// The limit that was reached.
        max: usize,
    },
    /// The deployment failed to deploy and has no replica.
    Failed,
    /// The deployment was deleted.
    Deleted,
}

/// A request that waited and may start.
#[derive(Debug, PartialEq, Eq)]
pub struct Start<T, W> {
    /// The slot.
    pub key: ReplicaKey,
    /// The request's place in line.
    pub seq: Seq,
    /// The replica.
    pub target: T,
    /// Whom to tell.
    pub waiter: W,
}

/// What follows when a replica refused a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused<T> {
    /// What becomes of the request. Never refused for want of room: it was admitted before.
    pub admission: Admission<T>,
    /// How often in a row the replica has refused, to say how long it is left alone until
    /// [`Queue::resume`].
    pub in_a_row: u32,
}
