//! The requests that are open on one stream: where `Data`, `Credit`, `Cancel` and
//! `Leave` go.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mobula_app::{Leave, Leaving};
use mobula_proto::numbers::NumberMap;
use mobula_proto::v1::Data;
use tokio_util::sync::CancellationToken;

use super::inbound::InboundSender;
use super::window::Window;

/// One open request, as its router may reach it.
pub(crate) struct OpenCall {
    pub cancelled: CancellationToken,
    pub window: Arc<Window>,
    /// Of a WebSocket: told when its router stops.
    pub leaving: Option<Arc<Leaving>>,
    /// None once the body is whole.
    pub inbound: Option<InboundSender>,
}

/// The open requests of one stream. At most as many as there are permits.
#[derive(Default)]
pub(crate) struct OpenCalls(Mutex<NumberMap<OpenCall>>);

impl OpenCalls {
    /// Opens a request; false when the router used its number before.
    pub(crate) fn open(&self, request: u64, call: OpenCall) -> bool {
        let mut calls = self.lock();
        if calls.contains_key(&request) {
            return false;
        }
        calls.insert(request, call);
        true
    }

    pub(crate) fn close(&self, request: u64) {
        // Dropped outside the lock: a body's end may wake its reader.
        let closed = self.lock().remove(&request);
        drop(closed);
    }

    pub(crate) fn data(&self, request: u64, data: Data) {
        if let Some(call) = self.lock().get_mut(&request) {
            if let Some(inbound) = &call.inbound {
                inbound.push(data.bytes, data.end);
            }
            if data.end {
                call.inbound = None;
            }
        }
    }

    pub(crate) fn credit(&self, request: u64, bytes: u32) {
        if let Some(call) = self.lock().get(&request) {
            call.window
                .give(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
    }

    pub(crate) fn cancel(&self, request: u64) {
        let token = self.lock().get(&request).map(|call| call.cancelled.clone());
        if let Some(token) = token {
            token.cancel();
        }
    }

    pub(crate) fn leave(&self, request: u64, leave: Leave) {
        let leaving = self.lock().get(&request).and_then(|c| c.leaving.clone());
        if let Some(leaving) = leaving {
            leaving.tell(leave);
        }
    }

    /// The stream is gone, and with it everybody who waits for an answer.
    pub(crate) fn cancel_all(&self) {
        let tokens: Vec<_> = self.lock().values().map(|c| c.cancelled.clone()).collect();
        for token in tokens {
            token.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, NumberMap<OpenCall>> {
        // Nothing panics while holding it, and each entry stands alone.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
