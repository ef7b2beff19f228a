//! The ports: opened when the table has an ingress, closed and drained when it has none or the
//! router stops. A port that is taken is tried again, and reported meanwhile.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use mobula_process::follow::{Credential, Followed};
use mobula_process::https::{HttpsFiles, INGRESS};
use mobula_proto::v1;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::connection::Patience;
use super::door::Door;
use super::{GrpcIngress, HttpIngress};
use crate::core::{Core, Listening};
use crate::error::RouterError;
use crate::limits::{BIND_RETRY_DELAY, HEADER_READ_SECONDS_MAX, WRITE_STALL_SECONDS_MAX};

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
        port: INGRESS,
        cert: files.certfile.clone().into(),
        key: files.keyfile.clone().into(),
        password: files.keyfile_password.clone(),
        client_ca: files.ca_certs.as_ref().map(Into::into),
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
    let in_force = certificate.as_ref().map(Followed::current);
    let door = Door::new(service, in_force, patience, close);
    tokio::select! {
        () = door.serve(listener) => {}
        () = follow(certificate.as_ref()) => {}
    }
    note(Ok(String::new()));
    tracing::info!(addr, "ingress closed");
}

type Certificate = Followed<HttpsFiles>;

/// The certificate first: a port that is open and cannot be used helps nobody.
async fn open(
    host: &str,
    port: u32,
    files: Option<&HttpsFiles>,
) -> Result<(TcpListener, Option<Certificate>), String> {
    let certificate = match files {
        None => None,
        Some(files) => {
            let files = files.clone();
            let open = || Followed::open(Credential::IngressCertificate, files);
            let opened = tokio::task::spawn_blocking(open).await;
            let opened = opened.map_err(|error| error.to_string())?;
            Some(opened.map_err(|error| error.to_string())?)
        }
    };
    Ok((bind(host, port).await?, certificate))
}

async fn follow(certificate: Option<&Certificate>) {
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
