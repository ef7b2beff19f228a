//! A request at a router: admitted, sent, sent elsewhere, answered once.

use std::time::Duration;

use mobula_router::limits::LOAD_REPORT_INTERVAL;
use mobula_router::queue::{Admission, ReplicaKey, Seq, Start, Wish};
use mobula_router::simulation::{may_repeat, pause_after};

use super::{Place, Request, Target, Timer};
use crate::check::Answer;
use crate::client::DEADLINE_MS;
use crate::cluster::{Cluster, ms};
use crate::message::{Message, RequestId};
use crate::net::ConnId;
use crate::sabotage::Sabotage;

impl Cluster {
    pub fn request_came(&mut self, r: usize, id: RequestId, path: &str, repeatable: bool) {
        let route = self.routers[r].table.route_http(path);
        let route = route.and_then(|route| self.routers[r].table.routes.get(route));
        let Some(route) = route else {
            self.check.answered(id, Answer::NotFound);
            return;
        };
        let key = (route.application.clone(), route.deployment.clone());
        self.share_came(r, &key);
        let dice = self.dice();
        let Some(queue) = self.routers[r].queues.get_mut(&key) else {
            self.check.answered(id, Answer::NotFound);
            return;
        };
        let admission = queue.admit(Wish::default(), dice, || id);
        let request = Request {
            queue: key,
            repeatable,
            repeats: 0,
            was_sent: false,
            since: 0,
            trial: None,
            place: Place::Waiting(Seq::MAX),
        };
        self.routers[r].requests.insert(id, request);
        self.follow(r, id, admission);
        if self.routers[r].requests.contains_key(&id) {
            self.router_after(r, DEADLINE_MS, Timer::Deadline(id));
        }
    }

    fn follow(&mut self, r: usize, id: RequestId, admission: Admission<Target>) {
        match admission {
            Admission::Start { key, seq, target } => self.call(r, id, key, seq, &target),
            Admission::Refuse(_) => self.answer(r, id, Answer::Refused),
            Admission::Wait(seq) => {
                if let Some(request) = self.routers[r].requests.get_mut(&id) {
                    request.place = Place::Waiting(seq);
                }
                if self.queue.now() - self.routers[r].sent_at >= ms(LOAD_REPORT_INTERVAL) {
                    self.router_report(r);
                }
            }
        }
    }

    pub(super) fn begin_all(&mut self, r: usize, started: Vec<Start<Target, RequestId>>) {
        for start in started {
            self.call(r, start.waiter, start.key, start.seq, &start.target);
        }
    }

    fn call(&mut self, r: usize, id: RequestId, key: ReplicaKey, seq: Seq, target: &Target) {
        let router = &mut self.routers[r];
        let conn = router.peers.get(&target.worker).and_then(|peer| peer.conn);
        router.next_call += 1;
        // 0: there is no connection, so nothing is sent.
        let call = (conn.unwrap_or(0), router.next_call);
        let Some(request) = router.requests.get_mut(&id) else {
            return;
        };
        request.place = Place::Calling {
            key,
            seq,
            call,
            accepted: false,
        };
        let Some(conn) = conn else {
            self.elsewhere(r, id);
            return;
        };
        router.calls.insert(call, id);
        self.share_got(r, id, target);
        if self.spoils(Sabotage::AnswerUnasked, id) {
            return self.answer(r, id, Answer::Ok);
        }
        let message = Message::Call {
            call: call.1,
            replica: target.replica.clone(),
            request: id,
        };
        self.net.send(&mut self.queue, conn, 0, message, 0);
    }

    pub(super) fn is_accepted(&self, r: usize, id: RequestId) -> bool {
        let place = self.routers[r]
            .requests
            .get(&id)
            .map(|request| &request.place);
        matches!(place, Some(Place::Calling { accepted: true, .. }))
    }

    pub fn accepted(&mut self, r: usize, conn: ConnId, call: u64) {
        let router = &mut self.routers[r];
        let Some(id) = router.calls.get(&(conn, call)).copied() else {
            return;
        };
        if let Some(request) = router.requests.get_mut(&id)
            && let Place::Calling { accepted, .. } = &mut request.place
        {
            *accepted = true;
            self.check.heard(id);
        }
    }

    pub fn rejected(&mut self, r: usize, conn: ConnId, call: u64) {
        if let Some(id) = self.routers[r].calls.get(&(conn, call)).copied() {
            self.elsewhere(r, id);
        }
    }

    pub fn replied(&mut self, r: usize, conn: ConnId, call: u64, failed: bool) {
        if let Some(id) = self.routers[r].calls.get(&(conn, call)).copied() {
            self.judge(r, id, failed);
            let answer = if failed { Answer::Failed } else { Answer::Ok };
            self.answer(r, id, answer);
        }
    }

    pub fn call_died(&mut self, r: usize, conn: ConnId, call: u64) {
        if let Some(id) = self.routers[r].calls.get(&(conn, call)).copied() {
            self.died(r, id);
        }
    }

    pub(super) fn died(&mut self, r: usize, id: RequestId) {
        self.judge(r, id, true);
        let reckless = self.breaks(Sabotage::RepeatEverything);
        let Some(request) = self.routers[r].requests.get_mut(&id) else {
            return;
        };
        if may_repeat(request.repeatable || reckless, request.repeats) {
            request.repeats += 1;
            self.elsewhere(r, id);
        } else {
            self.answer(r, id, Answer::Died);
        }
    }

    /// The replica did not take it: another one, with the place in line kept.
    pub(super) fn elsewhere(&mut self, r: usize, id: RequestId) {
        let dice = self.dice();
        let router = &mut self.routers[r];
        let Some(request) = router.requests.get_mut(&id) else {
            return;
        };
        let Place::Calling { key, seq, call, .. } = request.place else {
            return;
        };
        request.place = Place::Waiting(seq);
        router.calls.remove(&call);
        let name = request.queue.clone();
        let Some(queue) = router.queues.get_mut(&name) else {
            self.answer(r, id, Answer::Refused);
            return;
        };
        let refused = queue.refused(key, seq, dice, || id);
        let pause = ms(pause_after(refused.in_a_row));
        self.router_after(r, pause, Timer::Resume(name, key));
        self.follow(r, id, refused.admission);
        self.close_retired(r);
    }

    /// The end of a request; its slot goes to the next.
    pub(super) fn answer(&mut self, r: usize, id: RequestId, answer: Answer) {
        let router = &mut self.routers[r];
        let Some(request) = router.requests.remove(&id) else {
            return;
        };
        let took = Duration::from_millis(self.queue.now() - request.since);
        self.tell(id, answer);
        let router = &mut self.routers[r];
        let mut started = Vec::new();
        if let Place::Calling { key, call, .. } = request.place {
            router.calls.remove(&call);
            if let Some(flow) = router.flows.get(&request.queue) {
                flow.served(took);
            }
            if let Some(queue) = router.queues.get_mut(&request.queue) {
                started = queue.release(key);
            }
        }
        self.begin_all(r, started);
        self.close_retired(r);
    }

    pub(super) fn deadline(&mut self, r: usize, id: RequestId) {
        let router = &mut self.routers[r];
        let Some(request) = router.requests.get(&id) else {
            return;
        };
        let (app, _) = request.queue.clone();
        let place = match request.place {
            Place::Waiting(seq) => format!("it waits, {seq}"),
            Place::Calling { call, accepted, .. } => format!("call {call:?}, taken: {accepted}"),
        };
        self.log(&format!(
            "router{r}: request {id} of {app} times out, {place}"
        ));
        let router = &mut self.routers[r];
        let Some(request) = router.requests.get(&id) else {
            return;
        };
        match request.place {
            Place::Waiting(seq) => {
                let name = request.queue.clone();
                if let Some(queue) = router.queues.get_mut(&name) {
                    queue.cancel(seq);
                }
            }
            Place::Calling { call, .. } => {
                self.net
                    .send(&mut self.queue, call.0, 0, Message::Cancel(call.1), 0);
            }
        }
        self.answer(r, id, Answer::TimedOut);
    }

    fn tell(&mut self, id: RequestId, answer: Answer) {
        if self.spoils(Sabotage::NeverAnswer, id) {
            return;
        }
        self.check.answered(id, answer);
        if self.spoils(Sabotage::AnswerTwice, id) {
            self.check.answered(id, answer);
        }
    }

    /// Some requests are treated as no request may be.
    fn spoils(&self, sabotage: Sabotage, id: RequestId) -> bool {
        self.breaks(sabotage) && id.is_multiple_of(100)
    }
}
