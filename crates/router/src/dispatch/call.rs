//! One call on a link: what the worker has said about it so far, and the handle of whoever waits
//! for the answer.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use mobula_proto::limits::BODY_WINDOW_BYTES_INITIAL;
use mobula_proto::v1::{self, frame::Kind};
use tokio::task::AbortHandle;

use super::{Link, UploadError};
use crate::answers::Answers;
use crate::deployment::Permit;
use crate::queue::Outcome;
use crate::sync::lock;

/// Credit is given back in pieces of this size: often enough that the sender never runs dry,
/// seldom enough that it costs nothing.
const CREDIT_BYTES_MIN: usize = BODY_WINDOW_BYTES_INITIAL / 4;

/// A sender that ignores credit is cut off here.
const BUFFERED_BYTES_MAX: usize = 4 * BODY_WINDOW_BYTES_INITIAL;

/// One call. Shared by the link's reader, who writes, and the handle, who waits.
pub struct Call {
    state: Mutex<State>,
}

struct State {
    accepted: bool,
    reply: Option<v1::Reply>,
    chunks: VecDeque<Bytes>,
    chunk_bytes: usize,
    over: Option<Over>,
    /// How a streamed gRPC call or a WebSocket ended.
    end: Option<v1::End>,
    upload_failed: Option<UploadError>,
    /// Bytes of the request's body that may be sent now.
    credit: usize,
    /// Given back to the queue as soon as the worker is done, not when the client has read.
    permit: Option<Permit>,
    reader: Option<Waker>,
    uploader: Option<Waker>,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Over {
    /// The answer is whole.
    Complete,
    /// The replica did not take it.
    Rejected,
    /// It failed after it was taken.
    Fault(v1::FaultKind),
    /// The connection broke.
    Lost,
}

/// What a call is answered with first.
pub enum First {
    /// The answer begins.
    Reply(v1::Reply),
    /// Not executed: it may go elsewhere.
    NotTaken(Permit),
    /// The replica was lost with it; it may have been executed. With the permit when there still
    /// is one to go elsewhere with.
    Died(Option<Permit>),
    /// The replica's code failed.
    Failed,
    /// The request's body failed.
    Upload(UploadError),
}

/// Waits for the answer. Dropping it tells the worker that nobody does any more.
pub struct CallHandle {
    link: Arc<Link>,
    request: u64,
    call: Arc<Call>,
    /// Bytes that were read and for which no credit was given yet.
    consumed: usize,
    uploader: Option<AbortHandle>,
    /// Told when the answer breaks off.
    answers: Option<Arc<Answers>>,
    /// When the replica is late; none once its answer began.
    late_at: Option<Instant>,
}

// === impl Call: the link's side ===

impl Call {
    /// A call that is about to be sent with `body_bytes` of its body.
    pub fn new(permit: Permit, body_bytes: usize) -> Call {
        Call {
            state: Mutex::new(State {
                accepted: false,
                reply: None,
                chunks: VecDeque::new(),
                chunk_bytes: 0,
                over: None,
                end: None,
                upload_failed: None,
                credit: BODY_WINDOW_BYTES_INITIAL.saturating_sub(body_bytes),
                permit: Some(permit),
                reader: None,
                uploader: None,
            }),
        }
    }

    /// A frame came. True when it was the last.
    pub fn on_frame(&self, kind: Kind) -> bool {
        let mut state = lock(&self.state);
        if state.over.is_some() {
            return true;
        }
        match kind {
            Kind::Accepted(_) => {
                state.accepted = true;
                // Only an uploader waits for this; the reader waits for the reply.
                wake_and_unlock(state.uploader.take(), state);
                return false;
            }
            Kind::Credit(credit) => {
                let bytes = usize::try_from(credit.bytes).unwrap_or(usize::MAX);
                state.credit = state.credit.saturating_add(bytes);
                wake_and_unlock(state.uploader.take(), state);
                return false;
            }
            Kind::Rejected(_) => state.over = Some(Over::Rejected),
            Kind::Reply(reply) => {
                state.accepted = true;
                state.over = reply.end.then_some(Over::Complete);
                state.reply = Some(reply);
            }
            Kind::Data(data) => {
                state.chunk_bytes += data.bytes.len();
                state.chunks.push_back(data.bytes);
                state.over = data.end.then_some(Over::Complete);
                if state.over.is_none() && state.chunk_bytes > BUFFERED_BYTES_MAX {
                    state.over = Some(Over::Fault(v1::FaultKind::Body));
                }
            }
            Kind::End(end) => {
                state.end = Some(end);
                state.over = Some(Over::Complete);
            }
            Kind::Fault(fault) => {
                state.accepted = true;
                state.over = Some(Over::Fault(fault.kind()));
                tracing::debug!(message = fault.message, "a replica failed a call");
            }
            // Only routers send these.
            Kind::Call(_) | Kind::Cancel(_) | Kind::Leave(_) => {}
        }
        self.settle(state)
    }

    /// The connection broke.
    pub fn on_lost(&self) {
        let mut state = lock(&self.state);
        if state.over.is_none() {
            state.over = Some(Over::Lost);
            self.settle(state);
        }
    }

    /// Wakes those who wait; gives the slot back when the worker is done with the call.
    fn settle(&self, mut state: std::sync::MutexGuard<'_, State>) -> bool {
        let is_over = state.over.is_some();
        let outcome = state.over.as_ref().map_or(Outcome::Unknown, Over::outcome);
        if let Some(permit) = &mut state.permit {
            permit.ended(outcome);
        }
        let permit = match &state.over {
            // Whoever waits may go elsewhere with the permit.
            None | Some(Over::Rejected | Over::Lost) => None,
            Some(Over::Fault(v1::FaultKind::ReplicaDied)) => None,
            Some(Over::Complete | Over::Fault(_)) => state.permit.take(),
        };
        let reader = state.reader.take();
        let uploader = state.uploader.take();
        drop(state);
        // Dropped outside the lock: it wakes the next request.
        drop(permit);
        for waker in [reader, uploader].into_iter().flatten() {
            waker.wake();
        }
        is_over
    }

    // ---- the uploader's side ----

    /// How many bytes of the body may be sent now, whether or not the call was taken.
    pub fn room(&self) -> usize {
        lock(&self.state).credit
    }

    /// Waits until the worker has taken the call; false when it is over.
    pub async fn taken(&self) -> bool {
        poll_fn(|cx| {
            let mut state = lock(&self.state);
            if state.over.is_some() || state.accepted {
                return Poll::Ready(state.over.is_none());
            }
            state.uploader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Waits until the worker, which has taken the call, wants more of the body: how many bytes,
    /// or none when the call is over.
    pub async fn credit(&self) -> Option<usize> {
        poll_fn(|cx| {
            let mut state = lock(&self.state);
            if state.over.is_some() {
                return Poll::Ready(None);
            }
            if state.credit > 0 {
                return Poll::Ready(Some(state.credit));
            }
            state.uploader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// So much of the body was sent.
    pub fn spend(&self, bytes: usize) {
        let mut state = lock(&self.state);
        state.credit = state.credit.saturating_sub(bytes);
    }

    /// The body cannot be sent on.
    pub fn fail_upload(&self, error: UploadError) {
        let mut state = lock(&self.state);
        state.upload_failed = Some(error);
        wake_and_unlock(state.reader.take(), state);
    }
}

fn wake_and_unlock(waker: Option<Waker>, state: std::sync::MutexGuard<'_, State>) {
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

// === impl Over ===

impl Over {
    /// What it says about the replica.
    fn outcome(&self) -> Outcome {
        match self {
            Over::Complete => Outcome::Answered,
            Over::Rejected => Outcome::Unknown,
            Over::Fault(_) | Over::Lost => Outcome::Failed,
        }
    }
}

// === impl CallHandle ===

impl CallHandle {
    /// A handle for a call that is registered on the link.
    pub fn new(link: Arc<Link>, request: u64, call: Arc<Call>) -> CallHandle {
        CallHandle {
            link,
            request,
            call,
            consumed: 0,
            uploader: None,
            answers: None,
            late_at: None,
        }
    }

    /// Where it counts if the answer breaks off.
    pub fn set_answers(&mut self, answers: Option<Arc<Answers>>) {
        self.answers = answers;
    }

    /// When the replica is late with the beginning of its answer.
    pub fn set_late_at(&mut self, late_at: Option<Instant>) {
        self.late_at = late_at;
    }

    /// The task that sends the rest of the body ends with the handle.
    pub fn set_uploader(&mut self, uploader: AbortHandle) {
        self.uploader = Some(uploader);
    }

    /// The shared state, for the uploader.
    pub fn call(&self) -> &Arc<Call> {
        &self.call
    }

    /// The link and the call's number on it.
    pub fn link(&self) -> (&Arc<Link>, u64) {
        (&self.link, self.request)
    }

    /// The first thing that matters to the caller.
    pub async fn first(&self) -> First {
        poll_fn(|cx| self.poll_first(cx)).await
    }

    fn poll_first(&self, cx: &Context<'_>) -> Poll<First> {
        let mut state = lock(&self.call.state);
        if let Some(reply) = state.reply.take() {
            return Poll::Ready(First::Reply(reply));
        }
        if let Some(error) = state.upload_failed.take() {
            return Poll::Ready(First::Upload(error));
        }
        let accepted = state.accepted;
        match (&state.over, accepted) {
            (None, _) => {}
            (Some(Over::Rejected | Over::Lost), false) | (Some(Over::Rejected), true) => {
                if let Some(permit) = state.permit.take() {
                    return Poll::Ready(First::NotTaken(permit));
                }
                return Poll::Ready(First::Died(None));
            }
            (Some(Over::Lost | Over::Fault(v1::FaultKind::ReplicaDied)), _) => {
                return Poll::Ready(First::Died(state.permit.take()));
            }
            (Some(Over::Fault(_) | Over::Complete), _) => return Poll::Ready(First::Failed),
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// A piece of the reply's body was read by the client: lets the worker send more.
    pub fn consumed(&mut self, bytes: usize) {
        self.consumed += bytes;
        if self.consumed >= CREDIT_BYTES_MIN {
            let credit = v1::Credit {
                bytes: u32::try_from(self.consumed).unwrap_or(u32::MAX),
            };
            self.consumed = 0;
            self.link.push(self.request, Kind::Credit(credit));
        }
    }

    /// How a streamed gRPC call or a WebSocket ended, after the last piece of its body.
    pub fn take_end(&self) -> Option<v1::End> {
        lock(&self.call.state).end.take()
    }

    /// The next piece of the reply's body; `None` at its end, `Err` when it broke off.
    pub fn poll_chunk(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Over>>> {
        let call = Arc::clone(&self.call);
        let mut state = lock(&call.state);
        if let Some(chunk) = state.chunks.pop_front() {
            state.chunk_bytes -= chunk.len();
            let over = state.over.is_some();
            drop(state);
            if !over {
                self.consumed(chunk.len());
            }
            return Poll::Ready(Some(Ok(chunk)));
        }
        match &state.over {
            Some(Over::Complete) => Poll::Ready(None),
            Some(broken) => {
                if let Some(answers) = self.answers.take() {
                    answers.broke_off();
                }
                Poll::Ready(Some(Err(broken.clone())))
            }
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for CallHandle {
    fn drop(&mut self) {
        if let Some(uploader) = &self.uploader {
            uploader.abort();
        }
        let (over, permit) = {
            let mut state = lock(&self.call.state);
            let over = state.over.is_some();
            state.over.get_or_insert(Over::Lost);
            let is_late = self.late_at.is_some_and(|at| at <= Instant::now());
            if let Some(permit) = state.permit.as_mut().filter(|_| !over && is_late) {
                permit.ended(Outcome::TimedOut);
            }
            (over, state.permit.take())
        };
        if !over {
            self.link.cancel(self.request);
        }
        // After the cancel frame, so that the worker sees it before the slot's next call.
        drop(permit);
    }
}
