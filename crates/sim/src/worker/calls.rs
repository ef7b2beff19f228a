//! Calls at a worker: in through the gate, out after some time.

use super::{Call, Timer};
use crate::app::Kind;
use crate::client::STEADY_CALL_MS;
use crate::cluster::Cluster;
use crate::message::{Message, RequestId};
use crate::net::ConnId;

impl Cluster {
    pub(super) fn calls_of(&self, w: usize, id: &str) -> Vec<(ConnId, u64)> {
        let calls = self.workers[w].calls.iter();
        calls
            .filter(|(_, call)| call.replica == id)
            .map(|(key, _)| *key)
            .collect()
    }

    pub fn call_came(&mut self, w: usize, conn: ConnId, call: u64, id: String, request: RequestId) {
        let entered = self.workers[w].replicas.get(&id).and_then(|replica| {
            let permit = replica.gate.enter().ok()?;
            let kind = Kind::of(&replica.assigned.args_json);
            Some((permit, replica.told.limits.max_ongoing_requests, kind))
        });
        let Some((permit, limit, kind)) = entered else {
            self.net
                .send(&mut self.queue, conn, 1, Message::Rejected(call), 0);
            return;
        };
        let ongoing = self.calls_of(w, &id).len() as u32 + 1;
        if ongoing > limit {
            let text = format!("{id} has {ongoing} of {limit}");
            self.check
                .violated("the_limit_of_a_replica_is_strict", &text);
        }
        self.check.executed(request);
        self.net
            .send(&mut self.queue, conn, 1, Message::Accepted(call), 0);
        let entry = Call {
            request,
            replica: id,
            fails: kind == Kind::Failing && self.rng.percent(50),
            permit: Some(permit),
        };
        self.workers[w].calls.insert((conn, call), entry);
        // Far below the time that a drain may take.
        let pause = if self.is_steady() {
            STEADY_CALL_MS
        } else if self.rng.percent(5) {
            self.rng.range(1000, 5000)
        } else {
            self.rng.range(5, 400)
        };
        self.worker_after(w, pause, Timer::Done(conn, call));
    }

    pub(super) fn call_done(&mut self, w: usize, conn: ConnId, call: u64) {
        let entry = self.workers[w].calls.get(&(conn, call));
        let failed = entry.is_some_and(|entry| entry.fails);
        if self.call_over(w, (conn, call)) {
            let reply = Message::Reply { call, failed };
            self.net.send(&mut self.queue, conn, 1, reply, 0);
        }
    }

    /// The call is no longer here; false: it was not.
    pub fn call_over(&mut self, w: usize, key: (ConnId, u64)) -> bool {
        let Some(mut call) = self.workers[w].calls.remove(&key) else {
            return false;
        };
        self.log_quiet(call.request);
        drop(call.permit.take());
        self.may_be_drained(w, &call.replica);
        true
    }
}
