//! One connection from its first byte to its last: which HTTP it speaks, the requests on it, and
//! what goes on after HTTP.
//!
//! An HTTP/1 connection without a request is taken apart after a moment, and put together again
//! with the next byte: hyper keeps two buffers and the room of the largest request for each, some
//! 28 KiB, and most connections of most servers are idle.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::connection::{Activity, Answering, Held, Look, Patience, Seen, Version, Watched};
use super::listener::Port;
use super::quiet::Quiet;
use super::websocket::Tunnel;
use crate::limits::{HEADER_BYTES_MAX, HEADERS_MAX, HTTP2_STREAMS_MAX};

/// HTTP/2 window of one request's body, and of all on one connection.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// HTTP/2 pings find clients that vanished without a word.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// One connection that was accepted.
pub struct Connection<P> {
    service: Arc<P>,
    activity: Arc<Activity>,
    patience: Patience,
    ends: Ends,
}

/// What ends a connection from outside.
pub struct Ends {
    /// The port closes: what is in progress may end.
    pub close: CancellationToken,
    /// The time for that is over.
    pub cut: CancellationToken,
}

/// What ends a connection, or a part of its life.
enum End {
    Close,
    Cut,
    /// The client's time is used up.
    Exhausted,
    /// There was no request for a moment.
    Idle,
}

type Io<I> = Watched<TokioIo<I>>;

impl<P: Port> Connection<P> {
    /// A connection with what lives as long as it does.
    pub fn new(service: Arc<P>, patience: Patience, ends: Ends) -> Connection<P> {
        Connection {
            service,
            activity: Arc::default(),
            patience,
            ends,
        }
    }

    /// Does something before HTTP begins; none when there was no time for it.
    pub async fn unless_cut<F: Future>(&self, future: F) -> Option<F::Output> {
        self.ends.cut.run_until_cancelled(future).await
    }

    /// Serves until either side ends it.
    pub async fn serve<I>(self, socket: I)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut io = Watched::new(TokioIo::new(socket), Arc::clone(&self.activity));
        let mut seen = Seen::of_newcomer(self.ends.close.is_cancelled());
        let mut is_first = true;
        loop {
            let version = self.version(&mut io, is_first, &mut seen).await;
            is_first = false;
            // On the heap, so that an idle connection does not keep the room.
            match version {
                None => return,
                Some(Version::Http2) => return Box::pin(self.http2(io)).await,
                Some(Version::Http1) => match Box::pin(self.http1(io, &mut seen)).await {
                    Some(idle) => io = idle,
                    None => break,
                },
            }
        }
        if let Some(tunnel) = self.activity.tunnel() {
            self.unless_cut(tunnel.run(self.ends.close.clone())).await;
        }
    }

    /// Waits for the first bytes; none when they do not come.
    async fn version<I>(
        &self,
        io: &mut Io<I>,
        may_be_http2: bool,
        seen: &mut Seen,
    ) -> Option<Version>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        tokio::select! {
            version = io.version(may_be_http2) => return version,
            () = self.ends.close.cancelled() => {}
            _ = self.cut_or_exhausted(seen, self.patience) => return None,
        }
        // The client may be sending at this moment.
        let wait = self.activity.last_request_wait(seen);
        let version = tokio::time::timeout(wait, io.version(may_be_http2));
        self.unless_cut(version).await?.ok()?
    }

    /// Requests until the connection has none for a moment; then what is left of it.
    async fn http1<I>(&self, io: Io<I>, seen: &mut Seen) -> Option<Io<I>>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let answer = service_fn(|request| self.answer(request, false));
        let mut serving = http1_builder().serve_connection(io, answer).with_upgrades();
        // Boxed: it is looked at seldom.
        let ending = Quiet::new(Box::pin(self.http1_end(seen)));
        tokio::select! {
            // The end first: what is answered after it is the last answer.
            biased;
            end = ending => match end {
                End::Close => self.activity.set_closing(),
                End::Idle => {
                    let parts = serving.into_parts()?;
                    return Some(parts.io.with_unread(parts.read_buf));
                }
                // There is nothing that a client without patience left could be told.
                End::Exhausted | End::Cut => return None,
            },
            // An error is the client's: it broke off, or does not speak HTTP.
            _ = &mut serving => return None,
        }
        // The client of an idle connection may be sending at this moment: it is answered, and told
        // with the answer that the connection goes.
        let wait = self.activity.last_request_wait(seen);
        tokio::select! {
            // What came before the time was over is answered.
            biased;
            _ = &mut serving => return None,
            () = tokio::time::sleep(wait) => {}
            () = self.ends.cut.cancelled() => return None,
        }
        Pin::new(&mut serving).graceful_shutdown();
        // Without a request in progress this ends at once.
        tokio::select! {
            _ = serving => {}
            _ = self.cut_or_exhausted(seen, self.patience) => {}
        }
        None
    }

    async fn http2<I>(&self, io: Io<I>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let answer = service_fn(|request| self.answer(request, true));
        let mut serving = pin!(http2_builder().serve_connection(io, answer));
        let mut seen = Seen::default();
        let ending = Quiet::new(Box::pin(self.http2_end(&mut seen)));
        tokio::select! {
            biased;
            end = ending => if matches!(end, End::Cut) { return },
            _ = serving.as_mut() => return,
        }
        // The client is told that the connection goes. Without a request in progress this ends
        // after a round trip, for which one that says nothing gets no longer than for a head.
        serving.as_mut().graceful_shutdown();
        let patience = Patience {
            idle: self.patience.head,
            ..self.patience
        };
        let mut again = Seen::default();
        tokio::select! {
            _ = serving => {}
            _ = self.cut_or_exhausted(&mut again, patience) => {}
        }
    }

    async fn http1_end(&self, seen: &mut Seen) -> End {
        tokio::select! {
            () = self.ends.close.cancelled() => End::Close,
            () = self.ends.cut.cancelled() => End::Cut,
            look = self.activity.idle(seen, self.patience) => match look {
                Look::Exhausted => End::Exhausted,
                Look::Wait | Look::Idle => End::Idle,
            },
        }
    }

    async fn http2_end(&self, seen: &mut Seen) -> End {
        tokio::select! {
            () = self.ends.close.cancelled() => End::Close,
            end = self.cut_or_exhausted(seen, self.patience) => end,
        }
    }

    async fn cut_or_exhausted(&self, seen: &mut Seen, patience: Patience) -> End {
        tokio::select! {
            () = self.ends.cut.cancelled() => End::Cut,
            () = self.activity.exhausted(seen, patience) => End::Exhausted,
        }
    }

    fn answer(
        &self,
        request: Request<Incoming>,
        is_http2: bool,
    ) -> impl Future<Output = Result<Response<Answered<P>>, Infallible>> + Send + 'static + use<P>
    {
        let service = Arc::clone(&self.service);
        let answering: Answering = self.activity.on_head(is_http2);
        async move {
            let mut response = service.answer(request).await;
            if let Some(tunnel) = response.extensions_mut().remove::<Arc<Tunnel>>() {
                answering.set_tunnel(tunnel);
            }
            if answering.is_last() && !is_http2 {
                let last = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, last);
            }
            Ok(response.map(|body| answering.hold(body)))
        }
    }
}

type Answered<P> = Held<<P as Port>::Body>;

fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // The watchman does it (see `connection`).
        .header_read_timeout(None)
        .max_headers(HEADERS_MAX)
        // Also what is read of an answer before the client has read; `pipeline_flush` would
        // lift that limit, so it stays off.
        .max_buf_size(HEADER_BYTES_MAX);
    builder
}

fn http2_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEADER_BYTES_MAX).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;

    use super::*;
    use crate::core::Listening;

    pub(crate) const PATIENCE: Patience = Patience {
        head: Duration::from_secs(15),
        idle: Duration::from_secs(90),
        write: Duration::from_secs(120),
    };

    fn never() -> Ends {
        Ends {
            close: CancellationToken::new(),
            cut: CancellationToken::new(),
        }
    }

    struct Ok200;

    impl Port for Ok200 {
        type Body = Full<Bytes>;

        async fn answer(&self, _request: Request<Incoming>) -> Response<Full<Bytes>> {
            Response::new(Full::default())
        }

        fn note(_listening: &mut Listening, _outcome: Result<String, String>) {}
    }

    /// What the client reads until the connection ends, and how long that took by the paused
    /// clock, which goes on whenever nothing else does.
    async fn held(sent: &[u8]) -> (Vec<u8>, Duration) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        client.write_all(sent).await.unwrap();
        socket.readable().await.unwrap();
        let start = Instant::now();
        let serving =
            tokio::spawn(Connection::new(Arc::new(Ok200), PATIENCE, never()).serve(socket));
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        serving.await.unwrap();
        (read, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_comes_as_the_port_closes_is_answered_and_is_the_last() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        client.write_all(request).await.unwrap();
        socket.readable().await.unwrap();
        let ends = never();
        ends.close.cancel();
        let serving = tokio::spawn(Connection::new(Arc::new(Ok200), PATIENCE, ends).serve(socket));
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        serving.await.unwrap();
        let read = String::from_utf8(read).unwrap();
        assert!(read.starts_with("HTTP/1.1 200"), "{read}");
        assert!(read.contains("connection: close"), "{read}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_every_few_seconds_is_told_with_an_answer_that_the_port_closes() {
        for pause in [0.5, 2.5, 4.0] {
            let pause = Duration::from_secs_f64(pause);
            let close = CancellationToken::new();
            let ends = Ends {
                close: close.clone(),
                cut: CancellationToken::new(),
            };
            let mut client = client_until(ends).await;
            for _ in 0..3 {
                tokio::time::sleep(pause).await;
                client.write_all(REQUEST).await.unwrap();
                answer(&mut client).await;
            }
            close.cancel();
            tokio::time::sleep(pause).await;
            client.write_all(REQUEST).await.unwrap();
            let mut read = Vec::new();
            client.read_to_end(&mut read).await.unwrap();
            let read = String::from_utf8(read).unwrap();
            assert!(read.starts_with("HTTP/1.1 200"), "{pause:?}: {read}");
            assert!(read.contains("connection: close"), "{pause:?}: {read}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_never_ends_is_cut_off_when_its_time_is_over_and_not_after_twice_that() {
        let (read, held) = held(b"GET / HTTP/1.1\r\nhost: a\r\n").await;
        assert!(read.is_empty(), "{read:?}");
        assert!(held < 2 * PATIENCE.head, "{held:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_answered_and_closed_when_its_time_is_over() {
        let (read, held) = held(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(read.starts_with(b"HTTP/1.1 200"), "{read:?}");
        assert!(
            held >= PATIENCE.idle && held < 2 * PATIENCE.idle,
            "{held:?}"
        );
    }

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    /// A client of a connection that is being served.
    async fn client() -> TcpStream {
        client_until(never()).await
    }

    async fn client_until(ends: Ends) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let client = client.await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        tokio::spawn(Connection::new(Arc::new(Ok200), PATIENCE, ends).serve(socket));
        client
    }

    async fn answer(client: &mut TcpStream) {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            assert!(client.read_buf(&mut read).await.unwrap() > 0, "{read:?}");
        }
        assert!(read.starts_with(b"HTTP/1.1 200"), "{read:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_idle_answers_as_before() {
        let mut client = client().await;
        for pause in [0, 1, 10, 60] {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            client.write_all(REQUEST).await.unwrap();
            answer(&mut client).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_beginning_of_a_request_is_kept_while_its_rest_is_waited_for() {
        for cut in [1, 5, 20, REQUEST.len() - 1] {
            let mut client = client().await;
            let (begin, rest) = REQUEST.split_at(cut);
            client.write_all(&[REQUEST, begin].concat()).await.unwrap();
            answer(&mut client).await;
            // Longer than it takes until an idle connection is taken apart.
            tokio::time::sleep(PATIENCE.head * 2 / 3).await;
            client.write_all(rest).await.unwrap();
            answer(&mut client).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_preface_that_does_not_end_is_cut_off_like_a_head() {
        let (read, held) = held(b"PRI * HTTP/2.0\r\n").await;
        assert!(read.is_empty(), "{read:?}");
        assert!(held < 2 * PATIENCE.head, "{held:?}");
    }
}
