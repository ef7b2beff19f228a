//! The body of an answer over HTTP: whole, or streamed from a replica as fast as the client
//! reads.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;
use tokio::time::Sleep;
use tokio_util::task::TaskTracker;

use super::lasting::Lasting;
use super::tally::Tally;
use crate::dispatch::CallHandle;

/// The body of an answer.
pub enum ReplyBody {
    /// Whole; taken when it was handed out.
    Whole(Bytes),
    /// Still coming.
    Streamed(Box<Streamed>),
    /// Still coming, wanted or not.
    Lasting(Lasting),
}

/// A body that is still coming.
pub struct Streamed {
    first: Bytes,
    call: CallHandle,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Counts the request when the body ends; the client's doing when it is dropped before.
    tally: Option<(Tally, u16)>,
}

/// The answer cannot be finished. The client sees the connection break, because the status is
/// already gone.
#[derive(Debug, Error)]
pub enum CutOff {
    /// The replica or the way to it failed.
    #[error("the replica's answer broke off")]
    Broken,
    /// The deadline passed.
    #[error("the request timed out during the answer")]
    TimedOut,
}

// === impl ReplyBody ===

impl ReplyBody {
    /// A whole body.
    pub fn whole(bytes: impl Into<Bytes>) -> ReplyBody {
        ReplyBody::Whole(bytes.into())
    }

    /// A body that begins with `first` and is still coming.
    pub fn streamed(
        first: Bytes,
        call: CallHandle,
        deadline: Option<Instant>,
        tally: (Tally, u16),
    ) -> ReplyBody {
        let deadline = deadline.map(|at| Box::pin(tokio::time::sleep_until(at.into())));
        ReplyBody::Streamed(Box::new(Streamed {
            first,
            call,
            deadline,
            tally: Some(tally),
        }))
    }

    /// The same body, read to its end even when it is dropped before.
    pub fn lasting(self, tasks: TaskTracker) -> ReplyBody {
        match self {
            ReplyBody::Streamed(streamed) => ReplyBody::Lasting(Lasting::new(streamed, tasks)),
            done @ (ReplyBody::Whole(_) | ReplyBody::Lasting(_)) => done,
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        match self.get_mut() {
            ReplyBody::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            ReplyBody::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            ReplyBody::Streamed(streamed) => streamed.poll_frame(cx),
            ReplyBody::Lasting(lasting) => lasting.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ReplyBody::Whole(bytes) => bytes.is_empty(),
            ReplyBody::Streamed(_) | ReplyBody::Lasting(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ReplyBody::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            ReplyBody::Streamed(_) | ReplyBody::Lasting(_) => SizeHint::default(),
        }
    }
}

// === impl Streamed ===

impl Streamed {
    /// Whether its end was seen.
    pub fn is_over(&self) -> bool {
        self.tally.is_none()
    }

    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            self.end(Some(408));
            return Poll::Ready(Some(Err(CutOff::TimedOut)));
        }
        match self.call.poll_chunk(cx) {
            Poll::Pending => Poll::Pending,
            // An empty frame would end a chunked body; the next one comes at once.
            Poll::Ready(Some(Ok(chunk))) if chunk.is_empty() => self.poll_frame(cx),
            Poll::Ready(Some(Ok(chunk))) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
            Poll::Ready(None) => {
                self.end(None);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(_))) => {
                self.end(Some(500));
                Poll::Ready(Some(Err(CutOff::Broken)))
            }
        }
    }

    /// Counts the request: with the status that the client saw, unless something else happened.
    fn end(&mut self, instead: Option<u16>) {
        if let Some((tally, seen)) = self.tally.take() {
            tally.end(instead.unwrap_or(seen));
        }
    }
}
