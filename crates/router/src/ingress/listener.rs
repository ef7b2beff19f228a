//! The ports: opened when the table has an ingress, closed and drained when it has none or the
//! router stops. A port that is taken is tried again, and reported meanwhile.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use mobula_process::https::HttpsFiles;
use mobula_proto::v1;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Activity, Answering, Patience, Watched};
use super::quiet::Quiet;
use super::tls::Certificate;
use super::websocket::Tunnel;
use super::{GrpcIngress, HttpIngress};
use crate::core::{Core, Listening};
use crate::error::RouterError;
use crate::limits::{
    ACCEPT_RETRY_DELAY, BIND_RETRY_DELAY, CONNECTIONS_MAX, DRAIN_SECONDS_MAX, HEADER_BYTES_MAX,
    HEADER_READ_SECONDS_MAX, HEADERS_MAX, HTTP2_STREAMS_MAX, LAST_REQUEST_WAIT,
    WRITE_STALL_SECONDS_MAX,
};

/// HTTP/2 window of one request's body, and of all on one connection.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// HTTP/2 pings find clients that vanished without a word.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// What answers on a port.
pub trait Port: Send + Sync + 'static {
    /// Body of the answers.
    type Body: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static;

    /// Answers one request.
    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// Notes where it listens, or why it does not.
    fn note(listening: &mut Listening, outcome: Result<String, String>);
}

/// What the ports need besides the table.
pub struct Ports {
    /// Shared state.
    pub core: Arc<Core>,
    /// Limit of HTTP bodies.
    pub body_bytes_max: u64,
    /// For gRPC reflection.
    pub descriptor_sets: Vec<&'static [u8]>,
    /// Where to listen for HTTP instead of where the table says.
    pub http_addr: Option<SocketAddr>,
    /// The same for gRPC.
    pub grpc_addr: Option<SocketAddr>,
}

/// Opens and closes the ports as the table says, until the router stops; then drains.
pub async fn run(ports: Ports, shutdown: CancellationToken) -> Result<(), RouterError> {
    let core = Arc::clone(&ports.core);
    let mut tables = core.version.subscribe();
    while !shutdown.is_cancelled() {
        let asked = core.snapshot.load().table.ingress.clone();
        let Some(ingress) = asked else {
            tokio::select! {
                _ = tables.changed() => {}
                () = shutdown.cancelled() => {}
            }
            continue;
        };
        let close = shutdown.child_token();
        let gone = async {
            while core.snapshot.load().table.ingress.is_some() {
                // The sender lives in `core`.
                drop(tables.changed().await);
            }
            close.cancel();
        };
        let open = serve(&ports, &ingress, &close);
        // `gone` ends first or not at all.
        let (served, ()) = tokio::join!(open, async {
            tokio::select! {
                () = gone => {}
                () = close.cancelled() => {}
            }
        });
        served?;
    }
    Ok(())
}

/// Serves both ports until told to close, then until both are drained.
async fn serve(
    ports: &Ports,
    ingress: &v1::Ingress,
    close: &CancellationToken,
) -> Result<(), RouterError> {
    let patience = Patience {
        head: HEADER_READ_SECONDS_MAX,
        write: WRITE_STALL_SECONDS_MAX,
        idle: Duration::try_from_secs_f64(ingress.keep_alive_timeout_s)
            .ok()
            .filter(|idle| !idle.is_zero())
            .unwrap_or(KEEP_ALIVE_DEFAULT),
    };
    let core = &ports.core;
    let timeout = ingress.http_request_timeout_s;
    let http = HttpIngress::new(Arc::clone(core), ports.body_bytes_max, timeout);
    let grpc = GrpcIngress::new(
        Arc::clone(core),
        ingress.grpc_request_timeout_s,
        ingress.grpc_reflection.then_some(&ports.descriptor_sets),
    )?;
    let host = ingress.http_host.as_str();
    let http_at = place(ports.http_addr, host, ingress.http_port);
    let grpc_at = place(ports.grpc_addr, host, ingress.grpc_port);
    tokio::join!(
        keep_open(core, http_at, https_files(ingress), http, patience, close),
        keep_open(core, grpc_at, None, grpc, patience, close),
    );
    Ok(())
}

fn https_files(ingress: &v1::Ingress) -> Option<HttpsFiles> {
    ingress.http_tls.as_ref().map(|files| HttpsFiles {
        cert: files.certfile.clone().into(),
        key: files.keyfile.clone().into(),
    })
}

/// Where a port opens: where this process was told, or where the table says.
fn place(own: Option<SocketAddr>, host: &str, port: u32) -> (String, u32) {
    match own {
        Some(addr) => (addr.ip().to_string(), u32::from(addr.port())),
        None => (host.to_owned(), port),
    }
}

/// Ray's default.
const KEEP_ALIVE_DEFAULT: Duration = Duration::from_secs(90);

async fn keep_open<P: Port>(
    core: &Core,
    (host, port): (String, u32),
    files: Option<HttpsFiles>,
    service: P,
    patience: Patience,
    close: &CancellationToken,
) {
    let note = |outcome| core.listening.send_modify(|all| P::note(all, outcome));
    let (listener, certificate) = loop {
        match open(&host, port, files.as_ref()).await {
            Ok(opened) => break opened,
            Err(error) => {
                tracing::warn!(host = %host, port, error, "port not opened");
                note(Err(format!("cannot listen on {host}:{port}: {error}")));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(BIND_RETRY_DELAY) => {}
            () = close.cancelled() => return,
        }
    };
    let addr = listener
        .local_addr()
        .map(|addr: SocketAddr| addr.to_string());
    let addr = addr.unwrap_or_default();
    tracing::info!(addr, "ingress open");
    note(Ok(addr.clone()));
    let secured = certificate.clone();
    tokio::select! {
        () = accept(listener, secured, Arc::new(service), patience, close) => {}
        () = follow(certificate) => {}
    }
    note(Ok(String::new()));
    tracing::info!(addr, "ingress closed");
}

/// The certificate first: a port that is open and cannot be used helps nobody.
async fn open(
    host: &str,
    port: u32,
    files: Option<&HttpsFiles>,
) -> Result<(TcpListener, Option<Arc<Certificate>>), String> {
    let certificate = match files {
        None => None,
        Some(files) => {
            let opened = Certificate::open(files.clone()).await;
            Some(Arc::new(opened.map_err(|error| error.to_string())?))
        }
    };
    Ok((bind(host, port).await?, certificate))
}

async fn follow(certificate: Option<Arc<Certificate>>) {
    match certificate {
        Some(certificate) => certificate.follow().await,
        None => std::future::pending().await,
    }
}

async fn bind(host: &str, port: u32) -> Result<TcpListener, String> {
    let port = u16::try_from(port).map_err(|_| "a port is at most 65535".to_owned())?;
    let bound = TcpListener::bind((host, port)).await;
    bound.map_err(|error| error.to_string())
}

/// Accepts until told to close; then lets what is in progress end, up to a limit.
async fn accept<P: Port>(
    listener: TcpListener,
    certificate: Option<Arc<Certificate>>,
    service: Arc<P>,
    patience: Patience,
    close: &CancellationToken,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    // Cancelled when the time for draining is over.
    let cut = CancellationToken::new();
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&room).acquire_owned().await.ok()?;
            Some((permit, listener.accept().await))
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => match accepted {
                Some(accepted) => accepted,
                None => break,
            },
            () = close.cancelled() => break,
        };
        match accepted {
            Ok((socket, _)) => {
                // Answers go out whole; waiting for more only adds delay.
                drop(socket.set_nodelay(true));
                let service = Arc::clone(&service);
                let ends = Ends {
                    close: close.clone(),
                    cut: cut.clone(),
                };
                // Two tasks, so that a connection without TLS does not take the room of one with.
                match certificate.clone() {
                    None => connections.spawn(async move {
                        connection(socket, service, patience, ends).await;
                        drop(permit);
                    }),
                    Some(certificate) => connections.spawn(async move {
                        let accepting = certificate.accept(socket);
                        let accepted = ends.cut.run_until_cancelled(accepting).await;
                        if let Some(stream) = accepted.flatten() {
                            connection(stream, service, patience, ends).await;
                        }
                        drop(permit);
                    }),
                };
            }
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
    drop(listener);
    connections.close();
    let drained = tokio::time::timeout(DRAIN_SECONDS_MAX, connections.wait()).await;
    if drained.is_err() {
        tracing::warn!(
            left = connections.len(),
            "connections cut off after draining"
        );
        cut.cancel();
        connections.wait().await;
    }
}

async fn connection<P: Port, I>(socket: I, service: Arc<P>, patience: Patience, ends: Ends)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::default());
    let io = Watched::new(TokioIo::new(socket), Arc::clone(&activity));
    let answer = service_fn(|request: Request<Incoming>| {
        let service = Arc::clone(&service);
        let is_http2 = request.version() == http::Version::HTTP_2;
        let answering: Answering = activity.on_head(is_http2);
        async move {
            let mut response = service.answer(request).await;
            if let Some(tunnel) = response.extensions_mut().remove::<Arc<Tunnel>>() {
                answering.set_tunnel(tunnel);
            }
            if answering.is_last() && !is_http2 {
                let last = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, last);
            }
            Ok::<_, Infallible>(response.map(|body| answering.hold(body)))
        }
    });
    let builder = builder();
    let mut serving = std::pin::pin!(builder.serve_connection_with_upgrades(io, answer));
    // Boxed: it is looked at seldom, and a connection is moved often.
    let ending = Quiet::new(Box::pin(ends.first(&activity, patience)));
    tokio::select! {
        // The end first: what is answered after it is the last answer.
        biased;
        end = ending => match end {
            End::Close => activity.set_closing(),
            // An HTTP/1 client without patience left has nothing to be told; one of HTTP/2 is
            // told that the connection goes.
            End::Exhausted if activity.is_http2() => {}
            End::Exhausted | End::Cut => return,
        },
        // An error is the client's: it broke off, or does not speak HTTP.
        _ = serving.as_mut() => return ends.tunnel(&activity).await,
    }
    if !activity.is_http2() {
        // The client of an idle connection may be sending at this moment: it is answered, and told
        // with the answer that the connection goes.
        tokio::select! {
            _ = serving.as_mut() => return ends.tunnel(&activity).await,
            () = tokio::time::sleep(LAST_REQUEST_WAIT) => {}
            () = ends.cut.cancelled() => return,
        }
    }
    serving.as_mut().graceful_shutdown();
    // Without a request in progress this ends at once for HTTP/1, and for HTTP/2 after a round
    // trip, for which a client that says nothing gets no longer than for a head.
    tokio::select! {
        _ = serving => {}
        _ = ends.cut_or_exhausted(&activity, Patience { idle: patience.head, ..patience }) => {}
    }
    ends.tunnel(&activity).await;
}

/// What ends a connection from outside.
struct Ends {
    /// The port closes: what is in progress may end.
    close: CancellationToken,
    /// The time for that is over.
    cut: CancellationToken,
}

/// Which of them did.
enum End {
    Close,
    Cut,
    /// The client's time is used up.
    Exhausted,
}

impl Ends {
    async fn first(&self, activity: &Activity, patience: Patience) -> End {
        tokio::select! {
            () = self.close.cancelled() => End::Close,
            end = self.cut_or_exhausted(activity, patience) => end,
        }
    }

    async fn cut_or_exhausted(&self, activity: &Activity, patience: Patience) -> End {
        tokio::select! {
            () = self.cut.cancelled() => End::Cut,
            () = activity.exhausted(patience) => End::Exhausted,
        }
    }

    /// What goes on after HTTP, in the connection's place.
    async fn tunnel(&self, activity: &Activity) {
        if let Some(tunnel) = activity.tunnel() {
            self.cut.run_until_cancelled(tunnel.run()).await;
        }
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        // The watchman does it (see `connection`).
        .header_read_timeout(None)
        .max_headers(HEADERS_MAX)
        // Also what is read of an answer before the client has read; `pipeline_flush` would
        // lift that limit, so it stays off.
        .max_buf_size(HEADER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEADER_BYTES_MAX).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder
}

// === impl Port ===

impl Port for HttpIngress {
    type Body = super::reply::ReplyBody;

    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send {
        HttpIngress::answer(self, request)
    }

    fn note(listening: &mut Listening, outcome: Result<String, String>) {
        (listening.http_addr, listening.http_error) = split(outcome);
    }
}

impl Port for GrpcIngress {
    type Body = tonic::body::Body;

    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send {
        GrpcIngress::answer(self, request)
    }

    fn note(listening: &mut Listening, outcome: Result<String, String>) {
        (listening.grpc_addr, listening.grpc_error) = split(outcome);
    }
}

fn split(outcome: Result<String, String>) -> (String, String) {
    match outcome {
        Ok(addr) => (addr, String::new()),
        Err(error) => (String::new(), error),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::Instant;

    use super::*;

    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(15),
        idle: Duration::from_secs(90),
        write: Duration::from_secs(120),
    };

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
        let never = Ends {
            close: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        let serving = tokio::spawn(connection(socket, Arc::new(Ok200), PATIENCE, never));
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
        let ends = Ends {
            close: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        ends.close.cancel();
        let serving = tokio::spawn(connection(socket, Arc::new(Ok200), PATIENCE, ends));
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        serving.await.unwrap();
        let read = String::from_utf8(read).unwrap();
        assert!(read.starts_with("HTTP/1.1 200"), "{read}");
        assert!(read.contains("connection: close"), "{read}");
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
}
