//! The body of an answer over HTTP: whole, or streamed from a replica as fast as the client
//! reads.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio_util::task::TaskTracker;

use super::lasting::Lasting;
use super::pieces::{CutOff, Pieces};
use super::tally::Tally;

/// The body of an answer.
pub enum ReplyBody {
    /// Whole; taken when it was handed out.
    Whole(Bytes),
    /// Still coming.
    Streamed(Box<Streamed>),
    /// Still coming, wanted or not.
    Lasting(Lasting),
}

/// A body that is still coming. The client sees the connection break when it is cut off, because
/// the status is already gone.
pub struct Streamed {
    pieces: Pieces,
    /// Counts the request when the body ends; the client's doing when it is dropped before.
    tally: Option<(Tally, u16)>,
}

// === impl ReplyBody ===

impl ReplyBody {
    /// A whole body.
    pub fn whole(bytes: impl Into<Bytes>) -> ReplyBody {
        ReplyBody::Whole(bytes.into())
    }

    /// A body that is still coming.
    pub fn streamed(pieces: Pieces, tally: (Tally, u16)) -> ReplyBody {
        ReplyBody::Streamed(Box::new(Streamed {
            pieces,
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
        let next = ready!(self.pieces.poll_next(cx));
        match &next {
            Some(Ok(_)) => {}
            None => self.end(None),
            Some(Err(CutOff::TimedOut)) => self.end(Some(408)),
            Some(Err(CutOff::Broken)) => self.end(Some(500)),
        }
        Poll::Ready(next.map(|piece| piece.map(Frame::data)))
    }

    /// Counts the request: with the status that the client saw, unless something else happened.
    fn end(&mut self, instead: Option<u16>) {
        if let Some((tally, seen)) = self.tally.take() {
            tally.end(instead.unwrap_or(seen));
        }
    }
}
