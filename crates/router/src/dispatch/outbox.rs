//! Frames on their way to one worker. Whoever has a frame puts it here; the connection takes all
//! that lie here as one message whenever it can write, so that under load many requests share
//! one message and one system call.

use std::future::{Ready, ready};
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use futures_util::future::Either;
use mobula_proto::limits::{BATCH_BODY_BYTES_MAX, BATCH_FRAMES_MAX, STREAM_FRAMES_QUEUED_MAX};
use mobula_proto::v1::{self, frame::Kind};
use tokio::sync::Notify;

use super::LinkClosed;
use crate::sync::lock;

/// Frames that wait to be written.
#[derive(Default)]
pub struct Outbox {
    state: Mutex<State>,
    /// Told when a full outbox was emptied.
    room: Notify,
}

#[derive(Default)]
struct State {
    frames: Vec<v1::Frame>,
    /// Sum of [`weight`] over `frames`.
    bytes: usize,
    writer: Option<Waker>,
    /// The writer has let others go first.
    lingered: bool,
    closed: bool,
}

/// A frame on its way: in already, or on the heap until there is room, which is rare. So the
/// futures of requests have no room for one.
pub type Sending<'a> = Either<
    Ready<Result<(), LinkClosed>>,
    Pin<Box<dyn Future<Output = Result<(), LinkClosed>> + Send + 'a>>,
>;

#[derive(PartialEq, Eq)]
enum Push {
    Done,
    Full,
}

// === impl Outbox ===

impl Outbox {
    /// Puts a frame in that does not wait for room: cancel and credit, of which there are no
    /// more than calls and chunks of them.
    pub fn push(&self, frame: v1::Frame) {
        // Nobody is left to cancel or credit when the link is closed.
        let _ = self.try_push(&mut Some(frame), usize::MAX);
    }

    /// Puts a frame in, when there is room.
    pub fn send(&self, frame: v1::Frame) -> Sending<'_> {
        let mut frame = Some(frame);
        match self.try_push(&mut frame, STREAM_FRAMES_QUEUED_MAX) {
            Ok(Push::Done) => Either::Left(ready(Ok(()))),
            Ok(Push::Full) => Either::Right(Box::pin(self.send_later(frame))),
            Err(closed) => Either::Left(ready(Err(closed))),
        }
    }

    async fn send_later(&self, mut frame: Option<v1::Frame>) -> Result<(), LinkClosed> {
        loop {
            // Made before the look, so that no word of room is missed in between.
            let room = self.room.notified();
            match self.try_push(&mut frame, STREAM_FRAMES_QUEUED_MAX)? {
                Push::Done => return Ok(()),
                Push::Full => room.await,
            }
        }
    }

    /// Takes the frame when there is room.
    fn try_push(
        &self,
        frame: &mut Option<v1::Frame>,
        frames_max: usize,
    ) -> Result<Push, LinkClosed> {
        let writer = {
            let mut state = lock(&self.state);
            if state.closed {
                return Err(LinkClosed);
            }
            if state.frames.len() >= frames_max {
                return Ok(Push::Full);
            }
            if let Some(frame) = frame.take() {
                state.bytes += weight(&frame);
                state.frames.push(frame);
            }
            state.writer.take()
        };
        if let Some(writer) = writer {
            writer.wake();
        }
        Ok(Push::Done)
    }

    /// What is to be written next; `None` after the end. With other calls about, everybody
    /// else has one turn first: what they send then goes with it as one message, without a timer.
    pub fn poll_batch(
        &self,
        cx: &mut Context<'_>,
        has_company: bool,
    ) -> Poll<Option<v1::FrameBatch>> {
        let mut state = lock(&self.state);
        if state.closed {
            return Poll::Ready(None);
        }
        if state.frames.is_empty() {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let was_full = state.frames.len() >= STREAM_FRAMES_QUEUED_MAX;
        if has_company && !was_full && !state.lingered {
            state.lingered = true;
            drop(state);
            // Comes back when the thread has nothing else to do.
            return pin!(tokio::task::yield_now()).poll(cx).map(|()| None);
        }
        state.lingered = false;
        let frames = state.take();
        drop(state);
        if was_full {
            self.room.notify_waiters();
        }
        Poll::Ready(Some(v1::FrameBatch { frames }))
    }

    /// Drops what lies here and refuses more.
    pub fn close(&self) {
        let writer = {
            let mut state = lock(&self.state);
            state.closed = true;
            state.frames = Vec::new();
            state.writer.take()
        };
        self.room.notify_waiters();
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

// === impl State ===

impl State {
    fn take(&mut self) -> Vec<v1::Frame> {
        if self.frames.len() <= BATCH_FRAMES_MAX && self.bytes <= BATCH_BODY_BYTES_MAX {
            self.bytes = 0;
            return std::mem::take(&mut self.frames);
        }
        let mut count = 0;
        let mut bytes = 0;
        for frame in self.frames.iter().take(BATCH_FRAMES_MAX) {
            count += 1;
            bytes += weight(frame);
            if bytes >= BATCH_BODY_BYTES_MAX {
                break;
            }
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        self.frames.drain(..count).collect()
    }
}

/// Bytes of a frame that can be many.
fn weight(frame: &v1::Frame) -> usize {
    match &frame.kind {
        Some(Kind::Call(call)) => {
            let header = |header: &v1::Header| header.name.len() + header.value.len();
            let headers: usize = call.headers.iter().map(header).sum();
            let query = call.query.as_ref().map_or(0, String::len);
            call.body.len() + call.path.len() + query + headers
        }
        Some(Kind::Data(data)) => data.bytes.len(),
        Some(
            Kind::Credit(_)
            | Kind::Cancel(_)
            | Kind::Leave(_)
            | Kind::Accepted(_)
            | Kind::Rejected(_)
            | Kind::Reply(_)
            | Kind::Fault(_)
            | Kind::End(_),
        )
        | None => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use bytes::Bytes;
    use futures_util::FutureExt as _;

    use super::*;

    fn data(request: u64, size: usize) -> v1::Frame {
        v1::Frame {
            request,
            kind: Some(Kind::Data(v1::Data {
                bytes: Bytes::from(vec![0; size]),
                end: false,
            })),
        }
    }

    fn batch(outbox: &Outbox) -> Option<Vec<u64>> {
        match outbox.poll_batch(&mut Context::from_waker(Waker::noop()), false) {
            Poll::Ready(Some(batch)) => Some(batch.frames.iter().map(|f| f.request).collect()),
            Poll::Ready(None) | Poll::Pending => None,
        }
    }

    #[test]
    fn what_lies_there_goes_out_as_one_message_in_order() {
        let outbox = Outbox::default();
        (0..3).for_each(|n| outbox.push(data(n, 10)));
        assert_eq!(batch(&outbox), Some(vec![0, 1, 2]));
        assert_eq!(batch(&outbox), None);
    }

    #[tokio::test]
    async fn with_company_what_others_send_in_one_turn_goes_along() {
        let outbox = Outbox::default();
        outbox.push(data(0, 10));
        let mut turns = 0;
        let first = poll_fn(|cx| {
            turns += 1;
            let polled = outbox.poll_batch(cx, true);
            if polled.is_pending() {
                outbox.push(data(1, 10));
            }
            polled
        });
        let frames = first.await.unwrap().frames;
        assert_eq!((turns, frames.len()), (2, 2));
    }

    #[test]
    fn a_message_ends_when_its_bodies_or_its_frames_reach_the_limit() {
        let outbox = Outbox::default();
        (0..3).for_each(|n| outbox.push(data(n, BATCH_BODY_BYTES_MAX / 2)));
        assert_eq!(batch(&outbox), Some(vec![0, 1]));
        assert_eq!(batch(&outbox), Some(vec![2]));
        (0..BATCH_FRAMES_MAX as u64 + 1).for_each(|n| outbox.push(data(n, 0)));
        assert_eq!(batch(&outbox).map(|b| b.len()), Some(BATCH_FRAMES_MAX));
        assert_eq!(batch(&outbox).map(|b| b.len()), Some(1));
    }

    #[tokio::test]
    async fn a_full_outbox_makes_senders_wait_until_it_is_emptied() {
        let outbox = Outbox::default();
        for n in 0..STREAM_FRAMES_QUEUED_MAX as u64 {
            assert!(outbox.send(data(n, 0)).now_or_never().is_some());
        }
        let mut late = std::pin::pin!(outbox.send(data(9999, 0)));
        assert!(late.as_mut().now_or_never().is_none());
        assert!(batch(&outbox).is_some());
        assert_eq!(late.await, Ok(()));
    }

    #[tokio::test]
    async fn a_closed_outbox_refuses_and_frees_those_who_wait() {
        let outbox = Outbox::default();
        for n in 0..STREAM_FRAMES_QUEUED_MAX as u64 {
            outbox.push(data(n, 0));
        }
        let mut late = std::pin::pin!(outbox.send(data(9999, 0)));
        assert!(late.as_mut().now_or_never().is_none());
        outbox.close();
        assert_eq!(late.await, Err(LinkClosed));
        assert_eq!(outbox.send(data(0, 0)).await, Err(LinkClosed));
    }
}
