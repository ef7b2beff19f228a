//! The frames of one answer: in order, and ended exactly once whatever happens to the call.
//!
//! An answer that is dropped half-way says what is true then: not executed, died with the request
//! in it, or broke off.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::Either;
use mobula_app::Response;
use mobula_proto::limits::BODY_CHUNK_BYTES_MAX;
use mobula_proto::v1::{Accepted, Data, Fault, FaultKind, Frame, RejectReason, Rejected, frame};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::calls::OpenCalls;
use super::convert;
use super::window::Window;
use crate::gate::Permit;

/// How far the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The code has not seen the request.
    Waiting,
    Accepted,
    /// The head of the reply is out.
    Replying,
    Ended,
}

/// Why an answer could not be given.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Nobody reads the stream any more.
    Gone,
    /// The response's body broke off.
    Body(String),
}

/// A frame on its way: out already, or on the heap until a router that reads slowly has made
/// room. So a call's future, which is moved a few times, has no room for one.
type Sending =
    Either<Ready<Result<(), Broken>>, Pin<Box<dyn Future<Output = Result<(), Broken>> + Send>>>;

pub(crate) struct Answer {
    request: u64,
    progress: Progress,
    outgoing: mpsc::Sender<Frame>,
    window: Arc<Window>,
    calls: Arc<OpenCalls>,
}

impl Answer {
    pub(crate) fn new(
        request: u64,
        outgoing: mpsc::Sender<Frame>,
        window: Arc<Window>,
        calls: Arc<OpenCalls>,
    ) -> Answer {
        Answer {
            request,
            progress: Progress::Waiting,
            outgoing,
            window,
            calls,
        }
    }

    /// Tells the router that the request is bound to this replica.
    pub(crate) fn accept(&mut self) -> Sending {
        self.progress = Progress::Accepted;
        self.send(frame::Kind::Accepted(Accepted {}))
    }

    /// Sends the response. The permit is given back before the frame that ends it, so that the
    /// router's next call finds the slot free.
    pub(crate) async fn reply(
        &mut self,
        mut response: Response,
        permit: &mut Option<Permit>,
    ) -> Result<(), Broken> {
        let small = response
            .body
            .as_whole()
            .filter(|bytes| bytes.len() <= BODY_CHUNK_BYTES_MAX)
            .cloned();
        if let Some(body) = small {
            let reply = convert::reply(&mut response, body, true);
            return self.end(reply, permit).await;
        }
        // On the heap: most answers are small.
        Box::pin(self.stream(response, permit)).await
    }

    /// The call failed. The code may have seen the request, so that it was accepted is said
    /// before, if it was not yet.
    pub(crate) async fn fault(&mut self, kind: FaultKind, message: String) {
        let kind = match self.progress {
            Progress::Waiting => {
                // A router that is gone is noticed below.
                let _ = self.accept().await;
                kind
            }
            Progress::Accepted => kind,
            Progress::Replying => FaultKind::Body,
            Progress::Ended => return,
        };
        self.progress = Progress::Ended;
        // A router that is gone does not ask why.
        let _ = self.send(fault(kind, message)).await;
    }

    /// Nobody waits for the answer any more; nothing more is sent.
    pub(crate) fn abandon(&mut self) {
        self.progress = Progress::Ended;
    }

    async fn stream(
        &mut self,
        mut response: Response,
        permit: &mut Option<Permit>,
    ) -> Result<(), Broken> {
        let head = convert::reply(&mut response, Bytes::new(), false);
        self.send(head).await?;
        self.progress = Progress::Replying;
        while let Some(piece) = response.body.next().await {
            let mut piece = piece.map_err(|error| Broken::Body(error.to_string()))?;
            while !piece.is_empty() {
                let taken = self
                    .window
                    .take(piece.len().min(BODY_CHUNK_BYTES_MAX))
                    .await;
                let bytes = piece.split_to(taken);
                let data = Data { bytes, end: false };
                self.send(frame::Kind::Data(data)).await?;
            }
        }
        self.end(convert::end(response.ending.take()), permit).await
    }

    async fn end(&mut self, last: frame::Kind, permit: &mut Option<Permit>) -> Result<(), Broken> {
        // Room first: from here to the queue nothing waits, so the answer cannot be cut between
        // giving back the permit and sending the frame.
        let room = match self.outgoing.try_reserve() {
            Ok(room) => room,
            Err(_) => Box::pin(self.outgoing.reserve())
                .await
                .map_err(|_| Broken::Gone)?,
        };
        permit.take();
        self.progress = Progress::Ended;
        room.send(convert::frame(self.request, last));
        Ok(())
    }

    fn send(&self, kind: frame::Kind) -> Sending {
        let frame = convert::frame(self.request, kind);
        match self.outgoing.try_send(frame) {
            Ok(()) => Either::Left(ready(Ok(()))),
            Err(TrySendError::Closed(_)) => Either::Left(ready(Err(Broken::Gone))),
            Err(TrySendError::Full(frame)) => {
                let outgoing = self.outgoing.clone();
                Either::Right(Box::pin(async move {
                    let sent = outgoing.send(frame).await;
                    sent.map_err(|_| Broken::Gone)
                }))
            }
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.calls.close(self.request);
        let last = match self.progress {
            Progress::Ended => return,
            Progress::Waiting => rejected(RejectReason::Draining, 0),
            Progress::Accepted => fault(
                FaultKind::ReplicaDied,
                "the replica stopped with the request in it".to_owned(),
            ),
            Progress::Replying => fault(
                FaultKind::Body,
                "the replica stopped while it answered".to_owned(),
            ),
        };
        let frame = convert::frame(self.request, last);
        if let Err(TrySendError::Full(frame)) = self.outgoing.try_send(frame)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // As many of these as there were permits.
            let outgoing = self.outgoing.clone();
            runtime.spawn(async move {
                let _ = outgoing.send(frame).await;
            });
        }
    }
}

pub(crate) fn rejected(reason: RejectReason, ongoing_requests: u32) -> frame::Kind {
    frame::Kind::Rejected(Rejected {
        reason: reason.into(),
        ongoing_requests,
    })
}

fn fault(kind: FaultKind, message: String) -> frame::Kind {
    frame::Kind::Fault(Fault {
        kind: kind.into(),
        message,
    })
}

#[cfg(test)]
mod tests {
    use mobula_app::Body;

    use super::*;

    fn answer() -> (Answer, mpsc::Receiver<Frame>) {
        let (outgoing, frames) = mpsc::channel(8);
        let answer = Answer::new(4, outgoing, Arc::default(), Arc::default());
        (answer, frames)
    }

    fn kinds(frames: &mut mpsc::Receiver<Frame>) -> Vec<frame::Kind> {
        std::iter::from_fn(|| frames.try_recv().ok())
            .filter_map(|frame| frame.kind)
            .collect()
    }

    #[tokio::test]
    async fn a_dropped_answer_says_whether_the_code_saw_the_request() {
        let (unseen, mut frames) = answer();
        drop(unseen);
        let sent = kinds(&mut frames);
        assert!(matches!(sent[..], [frame::Kind::Rejected(_)]), "{sent:?}");

        let (mut seen, mut frames) = answer();
        seen.accept().await.unwrap();
        drop(seen);
        let sent = kinds(&mut frames);
        let [frame::Kind::Accepted(_), frame::Kind::Fault(fault)] = &sent[..] else {
            panic!("{sent:?}");
        };
        assert_eq!(fault.kind(), FaultKind::ReplicaDied);
    }

    #[tokio::test]
    async fn an_answer_is_ended_once() {
        let (mut answer, mut frames) = answer();
        answer.accept().await.unwrap();
        let response = Response::text("hello");
        answer.reply(response, &mut None).await.unwrap();
        answer.fault(FaultKind::Exception, "late".to_owned()).await;
        drop(answer);
        let sent = kinds(&mut frames);
        assert!(
            matches!(&sent[..], [frame::Kind::Accepted(_), frame::Kind::Reply(r)] if r.end),
            "{sent:?}"
        );
    }

    #[tokio::test]
    async fn a_fault_after_the_reply_began_is_a_broken_body() {
        let (mut answer, mut frames) = answer();
        answer.accept().await.unwrap();
        let (sender, body) = Body::channel(4);
        sender.send(Bytes::from_static(b"half")).await.unwrap();
        sender.abort("disk gone").await;
        let response = Response::new(http::StatusCode::OK, "text/plain", body);
        let broken = answer.reply(response, &mut None).await.unwrap_err();
        let Broken::Body(text) = broken else {
            panic!("{broken:?}")
        };
        answer.fault(FaultKind::Exception, text).await;
        let sent = kinds(&mut frames);
        let Some(frame::Kind::Fault(fault)) = sent.last() else {
            panic!("{sent:?}")
        };
        assert_eq!(fault.kind(), FaultKind::Body);
        assert!(fault.message.contains("disk gone"));
    }
}
