//! The admin port of a role that has no API of its own: `/metrics`, `/livez`, `/readyz`.
//!
//! Not here: the head's admin API, which answers these paths itself.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::metrics::MetricsHandle;

/// Connections at once: scrapers and probes need a handful.
pub const CONNECTIONS_MAX: usize = 64;

/// From the connection, or the answer before, to the end of the next request's headers.
const HEADERS_SECONDS_MAX: Duration = Duration::from_secs(30);

/// Bytes of one request's headers that are buffered.
const HEADERS_BYTES_MAX: usize = 16 * 1024;

/// The pause after an accept that failed, usually for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Whether a process does its work: first it starts, then it is ready, then it ends. It never
/// goes back, so a head that is away for a while makes nobody unready.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicU8>);

const READY: u8 = 1;
const ENDING: u8 = 2;

// === impl Readiness ===

impl Readiness {
    /// The process has joined and can work.
    pub fn set_ready(&self) {
        self.0.fetch_max(READY, Ordering::Relaxed);
    }

    /// The process goes away.
    pub fn set_ending(&self) {
        self.0.fetch_max(ENDING, Ordering::Relaxed);
    }

    /// Whether it is ready; if not, why.
    ///
    /// # Errors
    /// The reason for which it is not.
    pub fn check(&self) -> Result<(), &'static str> {
        match self.0.load(Ordering::Relaxed) {
            READY => Ok(()),
            ENDING => Err("going away"),
            _ => Err("has not joined yet"),
        }
    }
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, metrics: MetricsHandle, readiness: Readiness) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Accepting only with a permit leaves the rest to the kernel's queue.
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "a connection to the admin port cannot be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let (metrics, readiness) = (metrics.clone(), readiness.clone());
        tokio::spawn(async move {
            connection(stream, metrics, readiness).await;
            drop(permit);
        });
    }
}

async fn connection(stream: TcpStream, metrics: MetricsHandle, readiness: Readiness) {
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
        let reply = answer(
            request.method(),
            request.uri().path(),
            readiness.check(),
            || metrics.render(),
        );
        async move { Ok::<_, Infallible>(reply) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_SECONDS_MAX)
        .max_buf_size(HEADERS_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "a connection to the admin port broke off");
    }
}

fn answer(
    method: &Method,
    path: &str,
    ready: Result<(), &'static str>,
    render: impl FnOnce() -> String,
) -> Response<Full<Bytes>> {
    let known = matches!(path, "/metrics" | "/livez" | "/readyz");
    if known && !matches!(*method, Method::GET | Method::HEAD) {
        let mut refused = reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "method not allowed");
        let allow = HeaderValue::from_static("GET,HEAD");
        refused.headers_mut().insert(ALLOW, allow);
        return refused;
    }
    match (path, ready) {
        ("/metrics", _) => reply(StatusCode::OK, EXPOSITION, render()),
        ("/livez", _) | ("/readyz", Ok(())) => reply(StatusCode::OK, TEXT, "ok"),
        ("/readyz", Err(why)) => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, why),
        _ => reply(StatusCode::NOT_FOUND, TEXT, "not found"),
    }
}

fn reply(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: &Method, path: &str, readiness: &Readiness) -> u16 {
        answer(method, path, readiness.check(), String::new)
            .status()
            .as_u16()
    }

    #[test]
    fn a_process_is_ready_after_it_joined_and_until_it_ends_and_alive_throughout() {
        let readiness = Readiness::default();
        let both = |readiness: &Readiness| {
            (
                status(&Method::GET, "/livez", readiness),
                status(&Method::GET, "/readyz", readiness),
            )
        };
        assert_eq!(both(&readiness), (200, 503));
        readiness.set_ready();
        assert_eq!(both(&readiness), (200, 200));
        readiness.set_ending();
        assert_eq!(both(&readiness), (200, 503));
        readiness.set_ready();
        assert_eq!(both(&readiness), (200, 503), "an end is an end");
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        let readiness = Readiness::default();
        assert_eq!(status(&Method::GET, "/", &readiness), 404);
        assert_eq!(status(&Method::POST, "/metrics", &readiness), 405);
        assert_eq!(status(&Method::HEAD, "/metrics", &readiness), 200);
    }
}
