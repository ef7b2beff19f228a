//! One call of a replica, from its permit to the last frame of its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_app::{Replica, Request};
use mobula_proto::v1::FaultKind;

use super::answer::{Answer, Broken};
use crate::gate::Permit;
use crate::metrics::{Failure, ReplicaMetrics};
use crate::replica::unpanicked;

/// The router answers its client at the deadline by its own clock. The worker's word that the
/// call ended comes this much later, so that it is only ever read by a router that lost count.
const DEADLINE_FAULT_DELAY: Duration = Duration::from_millis(100);

/// A call that holds its permit. Dropping it answers the router.
pub(crate) struct Job {
    pub request: Request,
    pub permit: Permit,
    pub answer: Answer,
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
    pub(crate) async fn run(self, code: Arc<dyn Replica>, metrics: Arc<ReplicaMetrics>) {
        let Job {
            request,
            permit,
            mut answer,
        } = self;
        let began = Instant::now();
        metrics.call_began();
        let mut permit = Some(permit);
        let cancelled = request.context.cancelled.clone();
        let deadline = request.context.deadline;
        let request_id = request.context.request_id.clone();
        let outcome = {
            let work = unpanicked(work(code, request, &mut answer, &mut permit));
            tokio::select! {
                biased;
                () = cancelled.cancelled() => Outcome::Gone,
                () = passed(deadline) => Outcome::TimedOut,
                done = work => done.unwrap_or_else(Outcome::Panicked),
            }
        };
        if matches!(outcome, Outcome::TimedOut) {
            // Whatever the code handed to other threads may stop too.
            cancelled.cancel();
        }
        drop(permit);
        metrics.call_ended(began.elapsed(), outcome.failure());
        outcome.log(&metrics.replica, &request_id);
        outcome.tell(answer).await;
    }
}

/// Calls the code and sends what it answers.
async fn work(
    code: Arc<dyn Replica>,
    request: Request,
    answer: &mut Answer,
    permit: &mut Option<Permit>,
) -> Outcome {
    if answer.accept().await.is_err() {
        return Outcome::Gone;
    }
    let response = match code.call(request).await {
        Ok(response) => response,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    match answer.reply(response, permit).await {
        Ok(()) => Outcome::Answered,
        Err(Broken::Gone) => Outcome::Gone,
        Err(Broken::Body(text)) => Outcome::BodyBroke(text),
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
    async fn tell(self, mut answer: Answer) {
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
    ) -> Job {
        let body = mobula_app::Body::empty();
        Job {
            request: Request::new(http::Method::GET, "/", body),
            permit,
            answer: Answer::new(1, outgoing, Arc::default(), Arc::default()),
        }
    }
}
