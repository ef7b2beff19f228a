//! One call of a replica, from its permit to the last frame of its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_app::{Replica, Request, RequestContext};
use mobula_proto::v1::FaultKind;

use super::answer::{Answer, Broken};
use crate::gate::Permit;
use crate::metrics::{Failure, ReplicaMetrics};
use crate::replica::unpanicked;

/// The router answers its client at the deadline by its own clock. The worker's word that the
/// call ended comes this much later, so that it is only ever read by a router that lost count.
const DEADLINE_FAULT_DELAY: Duration = Duration::from_millis(100);

/// A call that holds its permit. Dropping it answers the router. It travels in a box: on its way
/// through the actor to its task it would be copied half a dozen times.
pub(crate) struct Job {
    /// Until the code has it.
    pub request: Option<Request>,
    /// Until the answer is about to end.
    pub permit: Option<Permit>,
    pub answer: Answer,
    /// What is needed of the request once the code has it.
    pub context: RequestContext,
}

/// How the code's part of a call ended.
enum Outcome {
    Answered,
    Gone,
    Failed(String),
    BodyBroke(String),
    Panicked(String),
    TimedOut,
}

impl Job {
    /// Runs the call. Its future is dropped when the router cancels it or its deadline passes.
    pub(crate) async fn run(
        mut self: Box<Self>,
        code: Arc<dyn Replica>,
        metrics: Arc<ReplicaMetrics>,
    ) {
        let began = Instant::now();
        metrics.call_began();
        let deadline = self.context.deadline;
        let cancelled = self.context.cancelled.clone();
        let outcome = tokio::select! {
            biased;
            () = cancelled.cancelled() => Outcome::Gone,
            () = passed(deadline) => Outcome::TimedOut,
            done = unpanicked(self.work(code.as_ref())) => done.unwrap_or_else(Outcome::Panicked),
        };
        if matches!(outcome, Outcome::TimedOut) {
            // Whatever the code handed to other threads may stop too.
            cancelled.cancel();
        }
        drop(self.permit.take());
        metrics.call_ended(began.elapsed(), outcome.failure());
        outcome.log(&metrics.replica, &self.context.request_id);
        if !matches!(outcome, Outcome::Answered) {
            Box::pin(outcome.tell(&mut self.answer)).await;
        }
    }

    /// Calls the code and sends what it answers.
    async fn work(&mut self, code: &dyn Replica) -> Outcome {
        if self.answer.accept().await.is_err() {
            return Outcome::Gone;
        }
        let Some(request) = self.request.take() else {
            return Outcome::Gone;
        };
        let response = match code.call(request).await {
            Ok(response) => response,
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        match self.answer.reply(response, &mut self.permit).await {
            Ok(()) => Outcome::Answered,
            Err(Broken::Gone) => Outcome::Gone,
            Err(Broken::Body(text)) => Outcome::BodyBroke(text),
        }
    }
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

// === impl Outcome ===

impl Outcome {
    /// Ends the answer, if the code did not.
    async fn tell(self, answer: &mut Answer) {
        match self {
            Outcome::Answered => {}
            Outcome::Gone => answer.abandon(),
            Outcome::Failed(text) | Outcome::Panicked(text) => {
                answer.fault(FaultKind::Exception, text).await;
            }
            Outcome::BodyBroke(text) => answer.fault(FaultKind::Body, text).await,
            Outcome::TimedOut => {
                tokio::time::sleep(DEADLINE_FAULT_DELAY).await;
                let text = "the deadline passed".to_owned();
                answer.fault(FaultKind::Exception, text).await;
            }
        }
    }

    /// What is the code's fault is logged here, once; the rest is the client's business.
    fn log(&self, replica: &str, request_id: &str) {
        match self {
            Outcome::Failed(error) | Outcome::Panicked(error) => {
                tracing::error!(replica, request_id, error, "call failed");
            }
            Outcome::BodyBroke(error) => {
                tracing::error!(replica, request_id, error, "response body broke off");
            }
            Outcome::Answered | Outcome::Gone | Outcome::TimedOut => {}
        }
    }

    fn failure(&self) -> Option<Failure> {
        match self {
            Outcome::Failed(_) | Outcome::BodyBroke(_) => Some(Failure::Error),
            Outcome::Panicked(_) => Some(Failure::Panic),
            Outcome::Answered | Outcome::Gone | Outcome::TimedOut => None,
        }
    }
}

#[cfg(test)]
impl Job {
    /// A call whose frames go to `outgoing`.
    pub(crate) fn for_tests(
        permit: Permit,
        outgoing: tokio::sync::mpsc::Sender<mobula_proto::v1::Frame>,
    ) -> Box<Job> {
        let body = mobula_app::Body::empty();
        let request = Request::new(http::Method::GET, "/", body);
        Box::new(Job {
            context: request.context.clone(),
            request: Some(request),
            permit: Some(permit),
            answer: Answer::new(1, outgoing, Arc::default(), Arc::default()),
        })
    }
}
