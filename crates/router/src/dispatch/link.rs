//! One living exchange with a worker: the calls on it and the frames in both directions.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::Stream;
use mobula_process::busy_poll;
use mobula_proto::numbers::NumberMap;
use mobula_proto::v1::{self, frame::Kind};
use thiserror::Error;
use tokio::sync::Notify;

use super::call::{Call, CallHandle};
use super::outbox::{Outbox, Sending};
use crate::deployment::Permit;
use crate::sync::lock;

/// The connection is gone.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the connection to the worker is closed")]
pub struct LinkClosed;

/// One exchange. A new connection is a new link.
#[derive(Default)]
pub struct Link {
    outbox: Outbox,
    calls: Mutex<Calls>,
    next: AtomicU64,
    /// Told when the last call has ended.
    idle: Notify,
}

#[derive(Default)]
struct Calls {
    closed: bool,
    open: NumberMap<Arc<Call>>,
}

/// The frames of a link as the body of its request stream.
pub struct Outgoing(pub Arc<Link>);

// === impl Link ===

impl Link {
    /// Registers a call and sends its first frame, for which to wait is the caller's. Gives the
    /// permit back when the link is gone.
    pub fn begin(
        self: &Arc<Self>,
        call: v1::Call,
        permit: Permit,
    ) -> Result<(CallHandle, Sending<'_>), Permit> {
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        let (state, is_alone) = {
            let mut calls = lock(&self.calls);
            if calls.closed {
                return Err(permit);
            }
            let state = Arc::new(Call::new(permit, call.body.len()));
            calls.open.insert(request, Arc::clone(&state));
            (state, calls.open.len() == 1)
        };
        // With company there is enough to do.
        if is_alone {
            busy_poll::expect_more();
        }
        let handle = CallHandle::new(Arc::clone(self), request, state);
        let frame = v1::Frame {
            request,
            kind: Some(Kind::Call(call)),
        };
        Ok((handle, self.outbox.send(frame)))
    }

    /// Sends a frame without waiting.
    pub fn push(&self, request: u64, kind: Kind) {
        let kind = Some(kind);
        self.outbox.push(v1::Frame { request, kind });
    }

    /// Sends a frame when there is room.
    pub fn send(&self, request: u64, kind: Kind) -> Sending<'_> {
        let kind = Some(kind);
        self.outbox.send(v1::Frame { request, kind })
    }

    /// Nobody waits for the call any more.
    pub fn cancel(&self, request: u64) {
        if self.forget(request).is_some() {
            self.push(request, Kind::Cancel(v1::Cancel {}));
        }
    }

    /// Frames came from the worker.
    pub fn on_batch(&self, batch: v1::FrameBatch) {
        for frame in batch.frames {
            let Some(kind) = frame.kind else { continue };
            let call = lock(&self.calls).open.get(&frame.request).cloned();
            // Unknown: cancelled, and the worker had not heard of it yet.
            let Some(call) = call else { continue };
            if call.on_frame(kind) {
                self.forget(frame.request);
            }
        }
    }

    /// The connection broke: tells every call.
    pub fn close(&self) {
        self.outbox.close();
        let open = {
            let mut calls = lock(&self.calls);
            calls.closed = true;
            std::mem::take(&mut calls.open)
        };
        for call in open.into_values() {
            call.on_lost();
        }
        self.idle.notify_waiters();
    }

    /// Waits until no call is open.
    pub async fn drained(&self) {
        loop {
            let idle = self.idle.notified();
            if lock(&self.calls).open.is_empty() {
                return;
            }
            idle.await;
        }
    }

    fn forget(&self, request: u64) -> Option<Arc<Call>> {
        let (call, idle) = {
            let mut calls = lock(&self.calls);
            (calls.open.remove(&request), calls.open.is_empty())
        };
        if idle {
            self.idle.notify_waiters();
            // The next request.
            busy_poll::expect_more();
        }
        call
    }
}

// === impl Outgoing ===

impl Stream for Outgoing {
    type Item = v1::FrameBatch;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<v1::FrameBatch>> {
        let has_company = lock(&self.0.calls).open.len() > 1;
        self.0.outbox.poll_batch(cx, has_company)
    }
}
