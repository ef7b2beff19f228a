//! Reads one router's frames: the hot path of the worker. A batch is decoded at once, a call is
//! refused here or handed to its replica's actor with its permit; nothing here waits for a
//! replica. It waits only for a router that does not read its refusals.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use mobula_app::Body;
use mobula_process::busy_poll;
use mobula_proto::v1::{Call, FaultKind, Frame, FrameBatch, Protocol, RejectReason, frame};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::answer::{Answer, rejected};
use super::calls::{OpenCall, OpenCalls};
use super::convert;
use super::inbound::inbound;
use super::job::Job;
use super::window::Window;
use crate::board::{Directory, Hosted};
use crate::gate::{Permit, Refusal};
use crate::replica::ReplicaMsg;

/// Tells a router that its call is not taken. On the heap, as it is rare and the reader's future is
/// moved with every batch.
type Refusing = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One router's stream.
pub(crate) struct Exchange {
    published: watch::Receiver<Directory>,
    replicas: Directory,
    calls: Arc<OpenCalls>,
    outgoing: mpsc::Sender<Frame>,
}

impl Exchange {
    pub(crate) fn new(
        mut published: watch::Receiver<Directory>,
        outgoing: mpsc::Sender<Frame>,
    ) -> Exchange {
        let replicas = published.borrow_and_update().clone();
        Exchange {
            replicas,
            published,
            calls: Arc::default(),
            outgoing,
        }
    }

    /// Reads until the router or the connection is gone; then nobody waits for what is open, and
    /// it is cancelled.
    pub(crate) async fn run(mut self, mut frames: Streaming<FrameBatch>) {
        loop {
            let batch = tokio::select! {
                batch = frames.message() => batch,
                () = self.outgoing.closed() => break,
            };
            match batch {
                Ok(Some(batch)) => {
                    if let Err(status) = self.take(batch).await {
                        tracing::error!(error = %status.message(), "a router broke the protocol");
                        break;
                    }
                }
                Ok(None) => break,
                Err(status) => {
                    tracing::debug!(error = %status, "a router's stream broke");
                    break;
                }
            }
        }
        self.calls.cancel_all();
    }

    async fn take(&mut self, batch: FrameBatch) -> Result<(), Status> {
        if self.published.has_changed().unwrap_or(false) {
            self.replicas = self.published.borrow_and_update().clone();
        }
        let now = Instant::now();
        // With company there is enough to do.
        if batch.frames.len() == 1 {
            busy_poll::expect_more();
        }
        for frame in batch.frames {
            let request = frame.request;
            match frame.kind {
                Some(frame::Kind::Call(call)) => {
                    if let Some(refusing) = self.call(request, call, now)? {
                        refusing.await;
                    }
                }
                Some(frame::Kind::Data(data)) => self.calls.data(request, data),
                Some(frame::Kind::Credit(credit)) => self.calls.credit(request, credit.bytes),
                Some(frame::Kind::Cancel(_)) => self.calls.cancel(request),
                Some(frame::Kind::Leave(leave)) => {
                    self.calls.leave(request, convert::leave(leave, now));
                }
                // Only workers send these; a newer router may send kinds that we do not know.
                Some(
                    frame::Kind::Accepted(_)
                    | frame::Kind::Rejected(_)
                    | frame::Kind::Reply(_)
                    | frame::Kind::Fault(_)
                    | frame::Kind::End(_),
                )
                | None => {}
            }
        }
        Ok(())
    }

    /// Hands a call on. What is left to do otherwise, telling its router why not, is returned.
    fn call(&self, request: u64, mut call: Call, now: Instant) -> Result<Option<Refusing>, Status> {
        let (hosted, permit) = match self.admit(&call.replica_id) {
            Ok(admitted) => admitted,
            Err((reason, ongoing)) => {
                return Ok(Some(self.refuse(request, rejected(reason, ongoing))));
            }
        };
        let cancelled = CancellationToken::new();
        let lasts = call.protocol() == Protocol::Websocket;
        let leaving = lasts.then(|| Arc::new(hosted.cell.leaving.child()));
        let window = Arc::<Window>::default();
        let first = std::mem::take(&mut call.body);
        let (inbound, body) = if call.end {
            (None, Body::whole(first))
        } else {
            let (sender, body) = inbound(request, first, self.outgoing.clone());
            (Some(sender), body)
        };
        let open = OpenCall {
            cancelled: cancelled.clone(),
            window: window.clone(),
            leaving: leaving.clone(),
            inbound,
        };
        if !self.calls.open(request, open) {
            return Err(Status::invalid_argument(format!(
                "request number {request} is in use"
            )));
        }
        let mut answer = Answer::new(request, self.outgoing.clone(), window, self.calls.clone());
        match convert::request(call, body, now, cancelled) {
            Ok(mut request) => {
                request.context.leaving = leaving;
                let job = Box::new(Job {
                    context: request.context.clone(),
                    request: Some(request),
                    permit: Some(permit),
                    answer,
                });
                // An actor that died drops the job, and the job tells the router.
                let _ = hosted.actor.cast(ReplicaMsg::Call(job));
            }
            // No replica could answer it; another one need not try.
            Err(text) => {
                return Ok(Some(Box::pin(async move {
                    answer.fault(FaultKind::Exception, text).await;
                })));
            }
        }
        Ok(None)
    }

    fn admit(&self, replica_id: &str) -> Result<(&Hosted, Permit), (RejectReason, u32)> {
        let hosted = self
            .replicas
            .get(replica_id)
            .ok_or((RejectReason::UnknownReplica, 0))?;
        match hosted.cell.gate.enter() {
            Ok(permit) => Ok((hosted, permit)),
            Err(refusal) => {
                let reason = match refusal {
                    Refusal::Full => RejectReason::Full,
                    Refusal::Draining => RejectReason::Draining,
                    Refusal::Absent => RejectReason::UnknownReplica,
                };
                Err((reason, hosted.cell.gate.ongoing()))
            }
        }
    }

    fn refuse(&self, request: u64, kind: frame::Kind) -> Refusing {
        let (outgoing, frame) = (self.outgoing.clone(), convert::frame(request, kind));
        Box::pin(async move {
            // A stream that is gone is noticed by the loop.
            let _ = outgoing.send(frame).await;
        })
    }
}
