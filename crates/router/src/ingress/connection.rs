//! One client connection, with the time-outs that a connection needs: a client that begins a
//! request has to finish its head soon (slow loris), one that has none may stay idle for as long
//! as the config says, and one that gets an answer has to read it.
//!
//! hyper has one timer for the first two, and arms it for every request. Here the connection is
//! looked at from time to time instead, which costs a request a few relaxed stores.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};

use super::websocket::Tunnel;

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
struct Seen {
    heads: u64,
    idle: Duration,
    reading: Duration,
    stalled: Duration,
}

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
    activity: Arc<Activity>,
}

/// A request that is being answered, until the last byte of the answer was handed out.
pub struct Answering(Arc<Activity>);

/// A body that keeps its connection busy.
pub struct Held<B> {
    body: B,
    _answering: Answering,
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

    /// Whether a request came over HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }

    /// What goes on after HTTP, if anything.
    pub fn tunnel(&self) -> Option<&Arc<Tunnel>> {
        self.tunnel.get()
    }

    fn on_write(&self, written: &Poll<io::Result<usize>>) {
        self.stalled.store(written.is_pending(), Ordering::Relaxed);
    }

    /// Returns when the connection has used up its client's patience.
    pub async fn exhausted(&self, patience: Patience) {
        let step = (patience.head.min(patience.idle) / 4).max(Duration::from_millis(10));
        let mut seen = Seen::default();
        loop {
            tokio::time::sleep(step).await;
            if self.look(&mut seen, step, patience) {
                return;
            }
        }
    }

    /// True when it is time to end.
    fn look(&self, seen: &mut Seen, passed: Duration, patience: Patience) -> bool {
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
            return stalled >= patience.write;
        }
        if self.reading.load(Ordering::Relaxed) && !self.http2.load(Ordering::Relaxed) {
            seen.reading += passed;
            return seen.reading >= patience.head;
        }
        seen.idle += passed;
        seen.idle >= patience.idle
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
        Watched { io, activity }
    }
}

impl<I: Read + Unpin> Read for Watched<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
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
        let ended = |_: &u32| activity.look(&mut seen, STEP, PATIENCE);
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
    fn a_connection_with_a_request_in_progress_is_never_ended() {
        let activity = Arc::new(Activity::default());
        let answering = activity.on_head(false);
        assert_eq!(looks_until_end(&activity), 0);
        drop(answering);
        assert_eq!(looks_until_end(&activity), 18);
    }
}
