//! One request from its admission to the beginning of its answer: acquires a permit, calls the
//! replica, and goes elsewhere when the replica did not take the request.
//!
//! Not here: what the client speaks (`ingress`), and the deadline, at which the caller drops the
//! whole.

use std::time::Instant;

use bytes::Bytes;
use mobula_proto::v1;

use crate::answers::{Trial, is_error};
use crate::core::RouteEntry;
use crate::deployment::Permit;
use crate::dispatch::{CallHandle, First, Upload, UploadError};
use crate::limits::REPEATS_MAX;
use crate::queue::{Refusal, Wish};

/// An answer has begun.
pub struct Answer {
    /// Its head and the first piece of its body.
    pub reply: v1::Reply,
    /// The rest; none when the reply is whole.
    pub rest: Option<CallHandle>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// Refused by the queue.
    Refused(Refusal),
    /// The replica's code failed.
    Internal,
    /// The replica was lost with the request in it.
    ReplicaDied,
    /// The client's body did not arrive.
    Upload(UploadError),
}

/// A request, ready to be sent as often as it takes.
pub struct Ask<F> {
    /// Makes the call's frame, without body, for a replica.
    pub call: F,
    /// The body.
    pub upload: Upload,
    /// Where it would rather go, and when.
    pub wish: Wish,
    /// Whether a replica may execute it although another may have done so already.
    pub repeatable: bool,
    /// When the config's own time-out passes.
    pub timeout_at: Option<Instant>,
}

/// What became of one attempt.
enum Attempt {
    Answered(Answer),
    Elsewhere(Permit),
    Failed(Failure),
}

impl<F: Fn(&str) -> v1::Call> Ask<F> {
    /// Sends the request until a replica answers it.
    pub async fn answer(&mut self, route: &RouteEntry) -> Result<Answer, Failure> {
        let mut repeats = 0;
        let mut permit = route
            .deployment
            .acquire(self.wish)
            .await
            .map_err(Failure::Refused)?;
        route.metrics.handed_over();
        loop {
            permit = match self.attempt(permit, route, &mut repeats).await {
                Attempt::Answered(answer) => return Ok(answer),
                Attempt::Failed(failure) => return Err(failure),
                Attempt::Elsewhere(permit) => permit.elsewhere().await.map_err(Failure::Refused)?,
            };
        }
    }

    async fn attempt(&mut self, permit: Permit, route: &RouteEntry, repeats: &mut u32) -> Attempt {
        let target = permit.target();
        let Some(link) = target.worker.link() else {
            return Attempt::Elsewhere(permit);
        };
        let answers = target.answers.as_ref();
        let trial = answers.map(|answers| Trial::begin(answers, self.timeout_at));
        let mut call = (self.call)(&target.replica_id);
        call.body = Bytes::clone(&self.upload.first);
        call.end = self.upload.rest.is_none();
        let mut handle = match link.begin(call, permit) {
            Ok((handle, sending)) => {
                // Should the link close now, the call is among those that are told.
                let _ = sending.await;
                handle
            }
            Err(permit) => {
                if let Some(trial) = trial {
                    trial.void();
                }
                return Attempt::Elsewhere(permit);
            }
        };
        let first = match self.follow(&mut handle).await {
            Ok(()) => {
                handle.set_late_at(self.timeout_at);
                handle.first().await
            }
            Err(error) => First::Upload(error),
        };
        handle.set_late_at(None);
        if let Some(trial) = trial {
            judge(trial, &first, &mut handle);
        }
        match first {
            First::Reply(reply) => Attempt::Answered(Answer::new(reply, handle)),
            First::NotTaken(permit) => Attempt::Elsewhere(permit),
            First::Died(Some(permit)) if may_repeat(self.repeatable, *repeats) => {
                *repeats += 1;
                route.deployment.metrics.repeated.increment(1);
                Attempt::Elsewhere(permit)
            }
            First::Died(_) => Attempt::Failed(Failure::ReplicaDied),
            First::Failed => Attempt::Failed(Failure::Internal),
            First::Upload(error) => Attempt::Failed(Failure::Upload(error)),
        }
    }

    /// Sends what of the body did not go with the call.
    async fn follow(&mut self, handle: &mut CallHandle) -> Result<(), UploadError> {
        // On the heap: most bodies are small.
        if self.upload.rest.is_some() && Box::pin(self.upload.follow(handle)).await? {
            self.repeatable = false;
        }
        Ok(())
    }
}

fn judge(trial: Trial, first: &First, handle: &mut CallHandle) {
    match first {
        First::Reply(reply) => handle.set_answers(trial.answered(is_error(reply))),
        First::Died(_) | First::Failed => drop(trial.answered(true)),
        First::NotTaken(_) | First::Upload(_) => trial.void(),
    }
}

/// Whether a request that a replica took and was lost with may be sent to another one.
pub fn may_repeat(repeatable: bool, repeats: u32) -> bool {
    repeatable && repeats < REPEATS_MAX
}

impl Answer {
    fn new(reply: v1::Reply, mut handle: CallHandle) -> Answer {
        if reply.end {
            return Answer { reply, rest: None };
        }
        handle.consumed(reply.body.len());
        Answer {
            reply,
            rest: Some(handle),
        }
    }
}
