//! An answer that has begun and is still coming: its pieces, as fast as the client reads, until
//! its deadline.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use mobula_proto::v1;
use thiserror::Error;
use tokio::time::Sleep;

use crate::dispatch::CallHandle;

/// What is left of an answer. Dropped before its end, the replica is told.
pub struct Pieces {
    first: Bytes,
    /// None: nothing comes after `first`, or nobody waits for it any more.
    call: Option<CallHandle>,
    deadline: Option<Pin<Box<Sleep>>>,
}

/// The answer cannot be finished.
#[derive(Debug, Error)]
pub enum CutOff {
    /// The replica or the way to it failed.
    #[error("the replica's answer broke off")]
    Broken,
    /// The deadline passed.
    #[error("the request timed out during the answer")]
    TimedOut,
}

impl Pieces {
    /// An answer that begins with `first`; what comes after it is the call's.
    pub fn new(first: Bytes, call: Option<CallHandle>, deadline: Option<Instant>) -> Pieces {
        Pieces {
            first,
            call,
            deadline: deadline.map(|at| Box::pin(tokio::time::sleep_until(at.into()))),
        }
    }

    /// The next piece, which is never empty.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CutOff>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.first))));
        }
        let Some(call) = &mut self.call else {
            return Poll::Ready(None);
        };
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            self.call = None;
            return Poll::Ready(Some(Err(CutOff::TimedOut)));
        }
        match ready!(call.poll_chunk(cx)) {
            // It would end a chunked body; the next one comes at once.
            Some(Ok(piece)) if piece.is_empty() => self.poll_next(cx),
            next => Poll::Ready(next.map(|piece| piece.map_err(|_| CutOff::Broken))),
        }
    }

    /// What the replica said at the end.
    pub fn take_end(&self) -> Option<v1::End> {
        self.call.as_ref()?.take_end()
    }
}
