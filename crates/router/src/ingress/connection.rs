//! What a client connection is doing, and the time-outs that a connection needs: a client that begins a
//! request has to finish its head soon (slow loris), one that has none may stay idle for as long
//! as the config says, and one that gets an answer has to read it.
//!
//! hyper has one timer for the first two, and arms it for every request. Here the connection is
//! looked at from time to time instead, which costs a request a few relaxed stores. Not here: how
//! it is served (`serve`).

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};

use super::websocket::Tunnel;
use crate::limits::{IDLE_LOOK_INTERVAL, LAST_REQUEST_IDLE, LAST_REQUEST_WAIT, LOOK_INTERVAL_MIN};

/// What a connection is doing; shared by its socket, its service and its watchman.
#[derive(Default)]
pub struct Activity {
    /// Bytes came since the last head was complete.
    reading: AtomicBool,
    /// Heads that were complete.
    heads: AtomicU64,
    /// Answers that were begun or given up.
    answers: AtomicU64,
    /// The client does not read what was written.
    stalled: AtomicBool,
    /// HTTP/2 has its own pings and no slow heads that hold a connection.
    http2: AtomicBool,
    /// The port closes.
    closing: AtomicBool,
    /// What goes on when it is no longer HTTP.
    tunnel: OnceLock<Arc<Tunnel>>,
}

/// What the watchman saw last time, and for how long.
#[derive(Default)]
pub struct Seen {
    heads: u64,
    idle: Duration,
    reading: Duration,
    stalled: Duration,
}

/// What the watchman sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A request is in progress, or has begun.
    Wait,
    /// Nothing is, and the last answer is out.
    Idle,
    /// It is time to end.
    Exhausted,
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0 or 1.1, or nothing that we know.
    Http1,
    /// HTTP/2, by its preface.
    Http2,
}

/// How an HTTP/2 connection begins.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Limits of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a head that has begun.
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// For an answer that is not read.
    pub write: Duration,
}

/// A socket that tells of bytes read.
pub struct Watched<I> {
    io: I,
    /// Read before, and to be read again.
    unread: Bytes,
    activity: Arc<Activity>,
}

/// A request that is being answered, until the last byte of the answer was handed out.
pub struct Answering(Arc<Activity>);

/// A body that keeps its connection busy.
pub struct Held<B> {
    body: B,
    _answering: Answering,
}

// === impl Seen ===

impl Seen {
    /// Of a connection that begins. Who comes when the port closes is there because of a request.
    pub fn of_newcomer(is_closing: bool) -> Seen {
        Seen {
            idle: match is_closing {
                true => LAST_REQUEST_IDLE,
                false => Duration::ZERO,
            },
            ..Seen::default()
        }
    }
}

// === impl Activity ===

impl Activity {
    /// A head is complete, its answer begins.
    pub fn on_head(self: &Arc<Self>, is_http2: bool) -> Answering {
        self.reading.store(false, Ordering::Relaxed);
        self.heads.fetch_add(1, Ordering::Relaxed);
        if is_http2 {
            self.http2.store(true, Ordering::Relaxed);
        }
        Answering(Arc::clone(self))
    }

    /// From now on every answer is the last of its connection.
    pub fn set_closing(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// For how long the client may still send its last request, when the port closes.
    pub fn last_request_wait(&self, seen: &Seen) -> Duration {
        let idle = match self.heads.load(Ordering::Relaxed) == seen.heads {
            true => seen.idle,
            // There was a request since the last look.
            false => Duration::ZERO,
        };
        LAST_REQUEST_IDLE
            .saturating_sub(idle)
            .max(LAST_REQUEST_WAIT)
    }

    /// What goes on after HTTP, if anything.
    pub fn tunnel(&self) -> Option<&Arc<Tunnel>> {
        self.tunnel.get()
    }

    fn on_write(&self, written: &Poll<io::Result<usize>>) {
        self.stalled.store(written.is_pending(), Ordering::Relaxed);
    }

    /// Returns when the connection has used up its client's patience.
    pub async fn exhausted(&self, seen: &mut Seen, patience: Patience) {
        while self.next_look(seen, patience, Duration::MAX).await != Look::Exhausted {}
    }

    /// Returns when the connection was idle for a moment, or is used up.
    pub async fn idle(&self, seen: &mut Seen, patience: Patience) -> Look {
        loop {
            let look = self.next_look(seen, patience, IDLE_LOOK_INTERVAL).await;
            if look != Look::Wait {
                return look;
            }
        }
    }

    async fn next_look(&self, seen: &mut Seen, patience: Patience, longest: Duration) -> Look {
        let step = patience.head.min(patience.idle) / 4;
        let step = step.clamp(LOOK_INTERVAL_MIN, longest);
        tokio::time::sleep(step).await;
        self.look(seen, step, patience)
    }

    fn look(&self, seen: &mut Seen, passed: Duration, patience: Patience) -> Look {
        let heads = self.heads.load(Ordering::Relaxed);
        let is_busy = heads != self.answers.load(Ordering::Relaxed);
        if is_busy || heads != seen.heads {
            let stalled = match is_busy && self.stalled.load(Ordering::Relaxed) {
                true => seen.stalled + passed,
                false => Duration::ZERO,
            };
            *seen = Seen {
                heads,
                stalled,
                ..Seen::default()
            };
            return match stalled >= patience.write {
                true => Look::Exhausted,
                false => Look::Wait,
            };
        }
        if self.reading.load(Ordering::Relaxed) && !self.http2.load(Ordering::Relaxed) {
            seen.reading += passed;
            return match seen.reading >= patience.head {
                true => Look::Exhausted,
                false => Look::Wait,
            };
        }
        seen.idle += passed;
        match self.stalled.load(Ordering::Relaxed) {
            _ if seen.idle >= patience.idle => Look::Exhausted,
            true => Look::Wait,
            false => Look::Idle,
        }
    }
}

impl Answering {
    /// Whether the client is to be told that the connection goes.
    pub fn is_last(&self) -> bool {
        self.0.closing.load(Ordering::Relaxed)
    }

    /// After this answer the connection is no longer HTTP.
    pub fn set_tunnel(&self, tunnel: Arc<Tunnel>) {
        // HTTP ends once.
        let _ = self.0.tunnel.set(tunnel);
    }

    /// Ties the end of the answering to the body.
    pub fn hold<B>(self, body: B) -> Held<B> {
        Held {
            body,
            _answering: self,
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        // What was read until now was the request's body.
        self.0.reading.store(false, Ordering::Relaxed);
        self.0.answers.fetch_add(1, Ordering::Relaxed);
    }
}

// === impl Watched ===

impl<I> Watched<I> {
    /// Watches a socket.
    pub fn new(io: I, activity: Arc<Activity>) -> Watched<I> {
        Watched {
            io,
            unread: Bytes::new(),
            activity,
        }
    }

    /// Bytes that were read too early.
    pub fn with_unread(self, unread: Bytes) -> Watched<I> {
        if unread.is_empty() {
            // Not kept: even without bytes it holds hyper's buffer.
            return self;
        }
        self.activity.reading.store(true, Ordering::Relaxed);
        Watched { unread, ..self }
    }
}

impl<I: Read + Unpin> Watched<I> {
    /// Waits for what tells the version; `None` when the client ends before.
    pub async fn version(&mut self, may_be_http2: bool) -> Option<Version> {
        loop {
            let is_preface = may_be_http2 && PREFACE.starts_with(&self.unread);
            if self.unread.len() == PREFACE.len() && is_preface {
                return Some(Version::Http2);
            }
            if !self.unread.is_empty() && !is_preface {
                return Some(Version::Http1);
            }
            let mut begin = [0; PREFACE.len()];
            let room = begin.get_mut(self.unread.len()..)?;
            let mut buffer = ReadBuf::new(room);
            let read = poll_fn(|cx| Pin::new(&mut self.io).poll_read(cx, buffer.unfilled()));
            read.await.ok()?;
            let came = buffer.filled();
            if came.is_empty() {
                return None;
            }
            self.activity.reading.store(true, Ordering::Relaxed);
            self.unread = [&self.unread, came].concat().into();
        }
    }
}

impl<I: Read + Unpin> Read for Watched<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.unread.is_empty() {
            let size = this.unread.len().min(buf.remaining());
            buf.put_slice(&this.unread.split_to(size));
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        if read.is_ready() {
            this.activity.reading.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl<I: Write + Unpin> Write for Watched<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, buf);
        this.activity.on_write(&written);
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.activity.on_write(&written);
        written
    }
}

// === impl Held ===

impl<B: Body + Unpin> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(90),
        write: Duration::from_secs(120),
    };
    const STEP: Duration = Duration::from_secs(5);

    fn looks_until_end(activity: &Activity) -> u32 {
        let mut seen = Seen {
            heads: activity.heads.load(Ordering::Relaxed),
            ..Seen::default()
        };
        let ended = |_: &u32| activity.look(&mut seen, STEP, PATIENCE) == Look::Exhausted;
        (1..1000).find(ended).unwrap_or(0)
    }

    #[test]
    fn a_head_that_does_not_end_is_not_waited_for_as_long_as_the_next_one_may_take_to_begin() {
        let activity = Arc::new(Activity::default());
        assert_eq!(looks_until_end(&activity), 18);
        activity.reading.store(true, Ordering::Relaxed);
        assert_eq!(looks_until_end(&activity), 2);
    }

    #[test]
    fn an_answer_that_is_not_read_is_not_waited_for_for_ever() {
        let activity = Arc::new(Activity::default());
        let _answering = activity.on_head(false);
        activity.on_write(&Poll::Pending);
        assert_eq!(looks_until_end(&activity), 24);
        activity.on_write(&Poll::Ready(Ok(1)));
        assert_eq!(looks_until_end(&activity), 0);
    }

    #[test]
    fn the_last_request_is_waited_for_longer_on_a_connection_that_is_in_use() {
        let activity = Arc::new(Activity::default());
        let mut seen = Seen::default();
        drop(activity.on_head(false));
        activity.look(&mut seen, STEP, PATIENCE);
        assert_eq!(activity.last_request_wait(&seen), LAST_REQUEST_IDLE);
        let while_idle = [2, 1, 4].map(|seconds| {
            activity.look(&mut seen, Duration::from_secs(seconds), PATIENCE);
            activity.last_request_wait(&seen).as_secs()
        });
        assert_eq!(while_idle, [3, 2, LAST_REQUEST_WAIT.as_secs()]);
        // The next look has yet to see it.
        drop(activity.on_head(false));
        assert_eq!(activity.last_request_wait(&seen), LAST_REQUEST_IDLE);
    }

    #[test]
    fn a_connection_with_a_request_in_progress_is_never_ended() {
        let activity = Arc::new(Activity::default());
        let answering = activity.on_head(false);
        assert_eq!(looks_until_end(&activity), 0);
        drop(answering);
        assert_eq!(looks_until_end(&activity), 18);
    }
}
