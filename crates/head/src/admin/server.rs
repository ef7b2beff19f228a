//! Accepts connections to the admin API, over TLS if that is asked for, within limits, and drains
//! them at the end.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use mobula_process::follow::Current;
use mobula_process::https::{Https, TlsStream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::reply::Reply;

/// Connections at once; each carries one request at a time. People, scrapers and an operator
/// need a handful.
pub const CONNECTIONS_MAX: usize = 256;

/// A client has this long for the TLS handshake, as at the ingress.
const HANDSHAKE_SECONDS_MAX: Duration = Duration::from_secs(10);

/// From the connection, or the answer before, to the end of the next request's headers.
const HEADERS_SECONDS_MAX: Duration = Duration::from_secs(30);

/// Bytes of one request's headers that are buffered.
const HEADERS_BYTES_MAX: usize = 64 * 1024;

/// The pause after an accept that failed, usually for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Open requests are answered within this time at the end.
const DRAIN_SECONDS_MAX: Duration = Duration::from_secs(4);

/// Answers the requests of the admin port.
pub trait Answer: Clone + Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Reply> + Send;
}

/// The admin port.
pub struct Port {
    /// Already bound.
    pub listener: TcpListener,
    /// What connections are opened with; none: as they are.
    pub https: Option<Current<Https>>,
}

/// Serves until `ending`.
pub async fn serve(admin: impl Answer, port: Port, ending: CancellationToken) {
    let Port { listener, https } = port;
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    loop {
        // Accepting only with a permit leaves the rest to the kernel's queue.
        let accepted = tokio::select! {
            accepted = async {
                let permit = permits.clone().acquire_owned().await;
                (permit, listener.accept().await)
            } => accepted,
            () = ending.cancelled() => break,
        };
        let (Ok(permit), connection) = accepted else {
            break;
        };
        let stream = match connection {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "a connection to the admin API cannot be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let (admin, https, watcher) = (admin.clone(), https.clone(), graceful.watcher());
        let ending = ending.clone();
        tokio::spawn(async move {
            match https {
                None => converse(admin, stream, watcher).await,
                Some(https) => {
                    if let Some(stream) = secure(&https, stream, &ending).await {
                        converse(admin, stream, watcher).await;
                    }
                }
            }
            drop(permit);
        });
    }
    let _ = tokio::time::timeout(DRAIN_SECONDS_MAX, graceful.shutdown()).await;
}

/// Over TLS from here on; none when the client does not get it done, or the port closes, as
/// nothing was asked yet.
async fn secure(
    https: &Current<Https>,
    stream: TcpStream,
    ending: &CancellationToken,
) -> Option<TlsStream<TcpStream>> {
    let https = https.get();
    tokio::select! {
        opened = https.accept(stream, HANDSHAKE_SECONDS_MAX) => {
            let note = |error: &_| debug!(%error, "a TLS handshake with the admin API failed");
            opened.inspect_err(note).ok()
        }
        () = ending.cancelled() => None,
    }
}

async fn converse<S>(admin: impl Answer, stream: S, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let admin = admin.clone();
        async move { Ok::<_, Infallible>(admin.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_SECONDS_MAX)
        .max_buf_size(HEADERS_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        debug!(%error, "a connection to the admin API broke off");
    }
}
