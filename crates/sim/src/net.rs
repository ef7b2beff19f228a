//! Connections between processes: what is sent on one arrives in order, late, or not at all.
//!
//! As with TCP, a message that cannot pass waits and is sent again; whether the other side still
//! lives is found out by keep-alives, with the real ones' times.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mobula_process::net::{KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT};

use crate::cluster::{Event, Queue};
use crate::message::Message;
use crate::rng::Rng;

/// A process of the cluster, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    Head(usize),
    Router(usize),
    Worker(usize),
    Store,
}

pub type ConnId = u64;

/// Pause before a message that could not pass is sent again.
const RESEND_MS: u64 = 200;

/// Which end of a connection: the one that dialled is 0.
pub type Side = usize;

struct Conn {
    ends: [End; 2],
}

struct End {
    node: Node,
    open: bool,
    heard_at: u64,
    inbox: VecDeque<Message>,
    newest_at: u64,
}

/// All connections, and what is wrong with the wires.
pub struct Net {
    conns: BTreeMap<ConnId, Conn>,
    next: ConnId,
    cut: BTreeSet<(Node, Node)>,
    /// Added to every message of a node.
    pub slow: BTreeMap<Node, u64>,
    rng: Rng,
}

impl Net {
    pub fn new(rng: Rng) -> Net {
        Net {
            conns: BTreeMap::new(),
            next: 1,
            cut: BTreeSet::new(),
            slow: BTreeMap::new(),
            rng,
        }
    }

    pub fn cut(&mut self, a: Node, b: Node) {
        self.cut.insert((a.min(b), a.max(b)));
    }

    pub fn heal(&mut self) {
        self.cut.clear();
        self.slow.clear();
    }

    pub fn mend(&mut self, pairs: &[(Node, Node)]) {
        for (a, b) in pairs {
            self.cut.remove(&(*a.min(b), *a.max(b)));
        }
    }

    /// The ends of a process.
    pub fn of(&self, node: Node) -> Vec<(ConnId, Side)> {
        let mut found = Vec::new();
        for (id, conn) in &self.conns {
            for side in 0..2 {
                if conn.ends[side].node == node {
                    found.push((*id, side));
                }
            }
        }
        found
    }

    pub fn passes(&self, a: Node, b: Node) -> bool {
        !self.cut.contains(&(a.min(b), a.max(b)))
    }

    /// How long a message takes now.
    pub fn delay(&mut self, a: Node, b: Node) -> u64 {
        let slow = |node| self.slow.get(&node).copied().unwrap_or(0);
        let extra = slow(a) + slow(b);
        let spread = if extra > 0 {
            self.rng.range(0, extra)
        } else {
            0
        };
        self.rng.range(1, 5) + extra / 2 + spread
    }

    /// A new connection from the first to the second.
    pub fn open(&mut self, from: Node, to: Node, now: u64) -> ConnId {
        let end = |node| End {
            node,
            open: true,
            heard_at: now,
            inbox: VecDeque::new(),
            newest_at: 0,
        };
        let id = self.next;
        self.next += 1;
        let ends = [end(from), end(to)];
        self.conns.insert(id, Conn { ends });
        id
    }

    pub fn is_open(&self, conn: ConnId, side: Side) -> bool {
        let found = self.conns.get(&conn);
        found.is_some_and(|conn| conn.ends[side].open)
    }

    pub fn owner(&self, conn: ConnId, side: Side) -> Option<Node> {
        Some(self.conns.get(&conn)?.ends[side].node)
    }

    /// Sends from one side, at the earliest `hold` from now.
    pub fn send(
        &mut self,
        queue: &mut Queue,
        conn: ConnId,
        from: Side,
        message: Message,
        hold: u64,
    ) {
        let Some(found) = self.conns.get(&conn) else {
            return;
        };
        if !found.ends[from].open {
            return;
        }
        let (a, b) = (found.ends[from].node, found.ends[1 - from].node);
        let delay = self.delay(a, b);
        if let Some(found) = self.conns.get_mut(&conn) {
            let to = &mut found.ends[1 - from];
            let at = (queue.now() + hold + delay).max(to.newest_at);
            to.newest_at = at;
            to.inbox.push_back(message);
            queue.at(at, Event::Deliver(conn, 1 - from));
        }
    }

    /// What arrives at a side now, if anything.
    pub fn receive(&mut self, queue: &mut Queue, conn: ConnId, side: Side) -> Option<Message> {
        let found = self.conns.get(&conn)?;
        if !found.ends[side].open {
            return None;
        }
        if !self.passes(found.ends[0].node, found.ends[1].node) {
            queue.after(RESEND_MS, Event::Deliver(conn, side));
            return None;
        }
        self.conns.get_mut(&conn)?.ends[side].inbox.pop_front()
    }

    /// One side closes; the other one hears of it if anything passes. What was sent before may
    /// be lost when the process died.
    pub fn close(&mut self, queue: &mut Queue, conn: ConnId, side: Side, died: bool) {
        let lossy = died && self.rng.percent(50);
        let Some(found) = self.conns.get_mut(&conn) else {
            return;
        };
        if !std::mem::replace(&mut found.ends[side].open, false) {
            return;
        }
        let other = &mut found.ends[1 - side];
        if lossy {
            other.inbox.clear();
        }
        let at = other.newest_at.max(queue.now()) + 1;
        if found.ends[1 - side].open {
            queue.at(at, Event::Closed(conn, 1 - side));
        } else {
            self.conns.remove(&conn);
        }
    }

    /// Whether a side that is told of the end did not know of it.
    pub fn closed(&mut self, conn: ConnId, side: Side, by_keep_alive: bool) -> bool {
        let Some(found) = self.conns.get_mut(&conn) else {
            return false;
        };
        let (a, b) = (found.ends[0].node, found.ends[1].node);
        let told = by_keep_alive || !self.cut.contains(&(a.min(b), a.max(b)));
        if !told || !std::mem::replace(&mut found.ends[side].open, false) {
            return false;
        }
        if !found.ends[1 - side].open {
            self.conns.remove(&conn);
        }
        true
    }

    /// Every side that has not heard of the other for too long gives up.
    pub fn keep_alive(&mut self, queue: &mut Queue, stands_still: impl Fn(Node) -> bool) {
        let now = queue.now();
        let limit = (KEEP_ALIVE_INTERVAL + KEEP_ALIVE_TIMEOUT).as_millis() as u64;
        for (id, conn) in &mut self.conns {
            let (a, b) = (conn.ends[0].node, conn.ends[1].node);
            let passes = !self.cut.contains(&(a.min(b), a.max(b)));
            for side in 0..2 {
                let other_open = conn.ends[1 - side].open;
                let other = conn.ends[1 - side].node;
                let end = &mut conn.ends[side];
                if !end.open || stands_still(end.node) {
                    continue;
                }
                if passes && other_open && !stands_still(other) {
                    end.heard_at = now;
                } else if now.saturating_sub(end.heard_at) >= limit {
                    queue.after(0, Event::GivenUp(*id, side));
                }
            }
        }
    }
}
