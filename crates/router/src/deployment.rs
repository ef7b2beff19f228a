//! A deployment as the router keeps it: its queue, and permits to occupy one slot of a replica.
//!
//! The shell of `queue`: it locks, wakes those who may start, and gives slots back when a permit
//! is dropped. What may start is decided there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use metrics::Gauge;
use mobula_process::metrics::ReplicaSeries;
use mobula_proto::v1;
use tokio::sync::{Notify, oneshot};

use crate::answers::Answers;
use crate::dispatch::Worker;
use crate::flow::Flow;
use crate::limits::{FULL_PAUSE_MAX, FULL_PAUSE_MIN, LEFT_OUT_MAX, LEFT_OUT_MIN};
use crate::metrics::{DeploymentMetrics, milliseconds};
use crate::queue::{
    Admission, Dice, Limits, Outcome, Queue, Refusal, ReplicaKey, Seq, Share, Start, Wanted, Wish,
};
use crate::sync::lock;

/// One deployment of one application, as long as the table has it.
pub struct Deployment {
    /// Name of the application.
    pub application: String,
    /// Name of the deployment.
    pub name: String,
    /// What is counted.
    pub metrics: DeploymentMetrics,
    queue: Mutex<Queue<Arc<Target>, Waiter>>,
    backpressure: Mutex<Backpressure>,
    /// By version of the code, while requests are shared between versions.
    answers: Mutex<BTreeMap<String, Arc<Answers>>>,
    /// Told when somebody begins to wait: from zero replicas every millisecond counts.
    waiting: Arc<Notify>,
    /// What has left its replica.
    flow: Flow,
}

/// How to reach one replica.
pub struct Target {
    /// Its id.
    pub replica_id: String,
    /// The worker that hosts it.
    pub worker: Arc<Worker>,
    /// Where its answers are counted, while requests are shared between versions.
    pub answers: Option<Arc<Answers>>,
    load: Gauge,
    _series: ReplicaSeries,
}

/// What the user chose to answer when the queue is full.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backpressure {
    /// 503 or 429.
    pub status: u16,
    /// Value of `retry-after`.
    pub retry_after_s: Option<f64>,
}

/// The right to occupy one slot of one replica; dropping it gives the slot to the next.
pub struct Permit {
    deployment: Arc<Deployment>,
    key: ReplicaKey,
    seq: Seq,
    target: Arc<Target>,
    /// When it got the slot.
    since: Instant,
    /// How the call at the replica ended.
    outcome: Outcome,
    /// The slot was given back by other means than dropping.
    returned: bool,
}

type Waiter = oneshot::Sender<Result<Permit, Refusal>>;

/// Takes a request out of the queue when it is no longer wanted.
struct InLine<'a> {
    deployment: &'a Deployment,
    seq: Seq,
}

// === impl Deployment ===

impl Deployment {
    /// A deployment without replicas; [`Deployment::update`] tells the rest.
    pub fn new(application: &str, name: &str, handle: &str, waiting: Arc<Notify>) -> Deployment {
        let limits = Limits {
            ongoing_max: 1,
            queued_max: -1,
            canary_percent: 0,
        };
        Deployment {
            application: application.to_owned(),
            name: name.to_owned(),
            metrics: DeploymentMetrics::new(application, name, handle),
            queue: Mutex::new(Queue::new(limits)),
            backpressure: Mutex::new(Backpressure {
                status: 503,
                retry_after_s: None,
            }),
            answers: Mutex::default(),
            waiting,
            flow: Flow::default(),
        }
    }

    /// Waits for a slot: at once when a replica has one, otherwise in line until there is one or
    /// the deployment ends. Dropping the future leaves the line.
    pub async fn acquire(self: &Arc<Self>, wish: Wish) -> Result<Permit, Refusal> {
        let mut slot = None;
        let mut admission = lock(&self.queue).admit(wish, dice(), || waiter(&mut slot));
        if let Admission::Start { .. } = admission {
            self.metrics.fulfillment.record(0.0);
            return self.follow(admission, slot).await;
        }
        if let Admission::Refuse(full @ Refusal::Full { .. }) = admission
            && let Some((displaced, again)) = self.make_room(wish, &mut slot)
        {
            end_all(vec![displaced], full);
            admission = again;
        }
        let came = Instant::now();
        let permit = self.follow(admission, slot).await;
        self.metrics
            .fulfillment
            .record(milliseconds(came.elapsed()));
        permit
    }

    /// The queue is full: somebody who has more waiting may have to give way.
    fn make_room(
        &self,
        wish: Wish,
        slot: &mut Option<oneshot::Receiver<Result<Permit, Refusal>>>,
    ) -> Option<(Waiter, Admission<Arc<Target>>)> {
        let mut queue = lock(&self.queue);
        let displaced = queue.make_room(wish.rank)?;
        let again = queue.admit(wish, dice(), || waiter(slot));
        Some((displaced, again))
    }

    async fn follow(
        self: &Arc<Self>,
        admission: Admission<Arc<Target>>,
        slot: Option<oneshot::Receiver<Result<Permit, Refusal>>>,
    ) -> Result<Permit, Refusal> {
        let seq = match admission {
            Admission::Start { key, seq, target } => return Ok(self.permit(key, seq, target)),
            Admission::Refuse(refusal) => return Err(refusal),
            Admission::Wait(seq) => seq,
        };
        let Some(slot) = slot else {
            return Err(Refusal::Deleted);
        };
        self.waiting.notify_one();
        // Declared after `slot`, so dropped before it: out of the line first, and a permit that
        // was sent meanwhile goes back when `slot` is dropped.
        let _in_line = InLine {
            deployment: self,
            seq,
        };
        // The sender is only dropped with the queue.
        slot.await.unwrap_or(Err(Refusal::Deleted))
    }

    /// What the table says. `targets` is called under the queue's lock, so that what it says
    /// about reachability cannot be older than what the queue was told.
    pub fn update(
        self: &Arc<Self>,
        table: &v1::TableDeployment,
        share: Share,
        targets: impl FnOnce() -> Vec<Wanted<Arc<Target>>>,
    ) {
        let canary = table.canary.as_ref();
        lock(&self.answers).retain(|version, _| {
            canary.is_some_and(|share| {
                let mut replicas = table.replicas.iter();
                share.code_version == *version || replicas.any(|r| r.code_version == *version)
            })
        });
        *lock(&self.backpressure) = Backpressure {
            status: u16::try_from(table.backpressure_status_code).unwrap_or(503),
            retry_after_s: table.backpressure_retry_after_s,
        };
        let limits = Limits {
            ongoing_max: table.max_ongoing_requests,
            queued_max: share.part(table.max_queued_requests),
            canary_percent: canary.map_or(0, |share| share.percent),
        };
        let end = table.failed.then_some(Refusal::Failed);
        let (started, ended) = {
            let mut queue = lock(&self.queue);
            queue.set_ordered(table.queueing.is_some());
            let started = queue.set_replicas(limits, targets(), dice());
            (started, queue.set_end(end))
        };
        self.deliver(started);
        end_all(ended, Refusal::Failed);
    }

    /// The table no longer has the deployment.
    pub fn delete(self: &Arc<Self>) {
        let limits = Limits {
            ongoing_max: 0,
            queued_max: 0,
            canary_percent: 0,
        };
        let ended = {
            let mut queue = lock(&self.queue);
            queue.set_replicas(limits, Vec::new(), dice());
            queue.set_end(Some(Refusal::Deleted))
        };
        end_all(ended, Refusal::Deleted);
        self.metrics.load(0, 0, 0);
        self.metrics.left_out(0);
    }

    /// The connection to a worker came up or broke.
    pub fn set_reachable(self: &Arc<Self>, worker: &Arc<Worker>, reachable: bool) {
        let started = lock(&self.queue).set_reachable(
            |target| Arc::ptr_eq(&target.worker, worker),
            reachable,
            dice(),
        );
        self.deliver(started);
    }

    /// Load now, and what passed through so far; also publishes the load as metrics.
    pub fn load(&self) -> v1::DeploymentLoad {
        let queue = lock(&self.queue);
        let (queued, ongoing) = (queue.queued(), queue.ongoing());
        self.metrics.load(queued, ongoing, queue.queued_max());
        self.metrics.left_out(queue.left_out());
        for load in queue.loads() {
            load.target.load.set(f64::from(load.ongoing + load.queued));
        }
        v1::DeploymentLoad {
            application: self.application.clone(),
            deployment: self.name.clone(),
            queued_requests: u32::try_from(queued).unwrap_or(u32::MAX),
            ongoing_requests: ongoing,
            flow: Some(self.flow.report(queue.arrivals())),
        }
    }

    /// Where the answers of a version are counted from now on.
    pub fn answers_of(&self, version: &str) -> Arc<Answers> {
        let mut answers = lock(&self.answers);
        Arc::clone(answers.entry(version.to_owned()).or_default())
    }

    /// How the versions that share the requests answered so far; empty without sharing.
    pub fn answers(&self) -> Vec<v1::VersionAnswers> {
        let answers = lock(&self.answers);
        let reports = answers
            .iter()
            .map(|(version, answers)| answers.report(&self.application, &self.name, version));
        reports.collect()
    }

    /// A replica is left out from now on, for the so-manieth time in a row.
    fn leave_out(self: &Arc<Self>, key: ReplicaKey, target: &Target, times: u32) {
        let pause = doubled(LEFT_OUT_MIN, times, LEFT_OUT_MAX);
        self.metrics.times_left_out.increment(1);
        tracing::warn!(
            application = self.application,
            deployment = self.name,
            replica = target.replica_id,
            seconds = pause.as_secs(),
            "calls at a replica fail one after the other, it is left out"
        );
        let deployment = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let started = lock(&deployment.queue).try_again(key, dice());
            deployment.deliver(started);
        });
    }

    /// What to answer when the queue is full.
    pub fn backpressure(&self) -> Backpressure {
        *lock(&self.backpressure)
    }

    fn permit(self: &Arc<Self>, key: ReplicaKey, seq: Seq, target: Arc<Target>) -> Permit {
        Permit {
            deployment: Arc::clone(self),
            key,
            seq,
            target,
            since: Instant::now(),
            outcome: Outcome::default(),
            returned: false,
        }
    }

    /// Wakes those who may start. Never under the queue's lock: the permit of somebody who has
    /// left goes straight back to the queue.
    fn deliver(self: &Arc<Self>, started: Vec<Start<Arc<Target>, Waiter>>) {
        for start in started {
            let permit = self.permit(start.key, start.seq, start.target);
            drop(start.waiter.send(Ok(permit)));
        }
    }
}

fn waiter(slot: &mut Option<oneshot::Receiver<Result<Permit, Refusal>>>) -> Waiter {
    let (sender, receiver) = oneshot::channel();
    *slot = Some(receiver);
    sender
}

fn end_all(waiters: Vec<Waiter>, refusal: Refusal) {
    for waiter in waiters {
        drop(waiter.send(Err(refusal)));
    }
}

fn dice() -> Dice {
    Dice::new(fastrand::u64(..))
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        lock(&self.deployment.queue).cancel(self.seq);
    }
}

// === impl Target ===

impl Target {
    /// A replica of a deployment.
    pub fn new(
        replica_id: &str,
        worker: Arc<Worker>,
        metrics: &DeploymentMetrics,
        answers: Option<Arc<Answers>>,
    ) -> Target {
        Target {
            replica_id: replica_id.to_owned(),
            worker,
            answers,
            _series: ReplicaSeries::hold(replica_id),
            load: metrics.replica(replica_id),
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.load.set(0.0);
    }
}

// === impl Permit ===

impl Permit {
    /// The replica.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Notes how the call at the replica ended.
    pub fn ended(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// The replica did not take the request: gives the slot back and waits for another, without
    /// losing the place in line. The replica is left alone for a while.
    pub async fn elsewhere(mut self) -> Result<Permit, Refusal> {
        self.returned = true;
        let deployment = Arc::clone(&self.deployment);
        deployment.metrics.refused.increment(1);
        let mut slot = None;
        let (left_out, refused) = {
            let mut queue = lock(&deployment.queue);
            let left_out = queue.ended(self.key, self.outcome);
            let refused = queue.refused(self.key, self.seq, dice(), || waiter(&mut slot));
            (left_out, refused)
        };
        if let Some(times) = left_out {
            deployment.leave_out(self.key, &self.target, times);
        }
        let pause = pause_after(refused.in_a_row);
        tokio::spawn(resume_later(Arc::clone(&deployment), self.key, pause));
        drop(self);
        deployment.follow(refused.admission, slot).await
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.returned {
            self.deployment.flow.served(self.since.elapsed());
            let (left_out, started) = {
                let mut queue = lock(&self.deployment.queue);
                let left_out = queue.ended(self.key, self.outcome);
                (left_out, queue.release(self.key))
            };
            if let Some(times) = left_out {
                self.deployment.leave_out(self.key, &self.target, times);
            }
            self.deployment.deliver(started);
        }
    }
}

/// How long a replica that refused is left alone.
pub fn pause_after(refusals_in_a_row: u32) -> Duration {
    doubled(FULL_PAUSE_MIN, refusals_in_a_row, FULL_PAUSE_MAX)
}

/// A pause that doubles each time in a row, up to a limit.
fn doubled(min: Duration, times: u32, max: Duration) -> Duration {
    let doublings = times.saturating_sub(1).min(16);
    min.saturating_mul(1 << doublings).min(max)
}

async fn resume_later(deployment: Arc<Deployment>, key: ReplicaKey, pause: Duration) {
    tokio::time::sleep(pause).await;
    let started = lock(&deployment.queue).resume(key, dice());
    deployment.deliver(started);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_keeps_refusing_is_left_alone_longer_up_to_a_limit() {
        let (min, max) = (FULL_PAUSE_MIN, FULL_PAUSE_MAX);
        assert_eq!(doubled(min, 1, max), min);
        assert_eq!(doubled(min, 2, max), min * 2);
        assert_eq!(doubled(min, u32::MAX, max), max);
    }
}
