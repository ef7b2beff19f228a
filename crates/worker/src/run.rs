//! A worker's life as a story: listen, host, serve, attend the head; when told to end, drain and
//! return.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mobula_app::Registry;
use mobula_process::access::Credentials;
use mobula_process::admin::Readiness;
use mobula_process::metrics::MetricsHandle;
use mobula_process::net::{self, Addr};
use mobula_proto::v1::Resources;
use ractor::{Actor, ActorRef};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::WorkerError;
use crate::advertise::advertised;
use crate::board::Board;
use crate::data_plane::{DataPlane, serve};
use crate::gpus::Gpus;
use crate::host::{Host, HostArgs, HostMsg};
use crate::lifecycle::Phase;
use crate::replica::{Builder, Threads};
use crate::report::Identity;
use crate::session::Session;
use crate::standstill::within;

/// A worker that shall end waits this long for the head to move its replicas elsewhere. Beyond
/// that it drains all the same: routers send what it refuses to other replicas.
const RETIRE_WAIT_MAX: Duration = Duration::from_secs(60);

/// The same when no head is there: long enough for one that hands over, short enough for a whole
/// house that is being shut down.
const HEAD_AWAY_WAIT_MAX: Duration = Duration::from_secs(2);

/// Each replica drains within its own `graceful_shutdown_timeout_s`; one whose code blocks the
/// thread for this much longer is left behind.
const STOP_OVERDUE_WAIT_MAX: Duration = Duration::from_secs(15);

/// How long the last report, which says that every replica has ended, may take.
const LAST_REPORT_WAIT_MAX: Duration = Duration::from_secs(1);

/// What a worker is told at its start.
pub struct WorkerConfig {
    /// Where the heads are; the first one that takes the session has it.
    pub head: Vec<Addr>,
    /// Where to listen for routers.
    pub data_addr: Addr,
    /// Where routers and the head reach `data_addr`, if not there; port 0 stands for the port
    /// that was bound.
    pub advertise_addr: Option<Addr>,
    /// What to show the heads, and to ask of routers.
    pub credentials: Credentials,
    /// Told when the worker has joined, and when it goes away.
    pub readiness: Readiness,
    /// 56 hex digits, new for each process.
    pub worker_id: String,
    /// 56 hex digits, one per machine.
    pub node_id: String,
    /// The machine's address.
    pub node_ip: String,
    /// What replicas may use here.
    pub capacity: Resources,
    /// Whatever placement may look at.
    pub labels: BTreeMap<String, String>,
    /// The applications of this binary.
    pub registry: Registry,
    /// The process's environment.
    pub env: BTreeMap<String, String>,
    /// Renders the process's metrics.
    pub metrics: MetricsHandle,
    /// Runs the replicas and the calls of them. Another runtime than the one that runs [`run`]:
    /// code that blocks then holds up neither the session with the head nor what a probe asks.
    pub replicas_on: Handle,
    /// Fires on SIGTERM: drain and return.
    pub shutdown: CancellationToken,
}

/// What is up while a worker lives.
struct House {
    board: Arc<Board>,
    host: ActorRef<HostMsg>,
    data_addr: Addr,
    /// Fires to close the data plane.
    closing: CancellationToken,
    /// Set when the worker was told to end.
    draining: watch::Sender<bool>,
    /// Whether a head is there.
    connected: watch::Receiver<bool>,
    /// Fired by the head.
    retire: CancellationToken,
    readiness: Readiness,
    /// The session with the head; it ends with the house.
    _attending: JoinSet<()>,
}

/// A house, and the two tasks that must not end before it.
struct Built {
    house: House,
    server: JoinSet<Result<(), WorkerError>>,
    host_task: JoinHandle<()>,
}

/// Runs a worker until `shutdown` fires or the head retires it, and everything has drained.
///
/// # Errors
/// When the data plane cannot listen or fails, or the replica host dies.
pub async fn run(config: WorkerConfig) -> Result<(), WorkerError> {
    crate::metrics::describe();
    let shutdown = config.shutdown.clone();
    let Built {
        house,
        mut server,
        mut host_task,
    } = build(config).await?;
    tracing::info!(data_addr = %house.data_addr, "worker is up");
    let ended = tokio::select! {
        () = until_told(&house, &shutdown) => Ok(()),
        served = joined(&mut server) => served,
        _ = &mut host_task => Err(WorkerError::Host("has died".to_owned())),
    };
    if ended.is_ok() {
        drain(&house.board, &house.host).await;
    }
    house.closing.cancel();
    let closed = joined(&mut server).await;
    house.host.stop(None);
    remove_socket(&house.data_addr);
    ended.and(closed)
}

/// Brings everything up: first what can fail, then what lives on.
async fn build(config: WorkerConfig) -> Result<Built, WorkerError> {
    let WorkerConfig {
        head,
        data_addr,
        advertise_addr,
        credentials,
        readiness,
        worker_id,
        node_id,
        node_ip,
        capacity,
        labels,
        registry,
        env,
        metrics,
        replicas_on,
        shutdown: _,
    } = config;
    // A listener is of the runtime that it is made on.
    let listening = replicas_on.spawn(async move { net::listen(&data_addr).await });
    let listener = listening
        .await
        .map_err(|error| WorkerError::Serve(error.to_string()))??;
    let data_addr = listener.local_addr()?;
    let advertised = advertised(&data_addr, advertise_addr, &node_ip);
    let gpus = Gpus::of(capacity.gpus);
    let identity = Identity {
        worker_id,
        node_id,
        node_ip,
        pid: std::process::id(),
        data_addr: advertised.to_string(),
        capacity,
        labels: labels.into_iter().collect(),
    };
    let board = Board::new();
    let builder = Arc::new(Builder {
        registry,
        env,
        threads: Threads::default(),
    });
    let host_args = HostArgs {
        board: board.clone(),
        builder,
        gpus,
    };
    let hosting = replicas_on.spawn(Actor::spawn(None, Host, host_args));
    let (host, host_task) = hosting
        .await
        .map_err(|error| WorkerError::Host(error.to_string()))?
        .map_err(|error| WorkerError::Host(error.to_string()))?;

    let (draining, told_draining) = watch::channel(false);
    let (is_connected, connected) = watch::channel(false);
    let retire = CancellationToken::new();
    let session = Session {
        heads: head,
        credentials: credentials.clone(),
        readiness: readiness.clone(),
        identity,
        board: board.clone(),
        host: host.clone(),
        draining: told_draining,
        connected: is_connected,
        retire: retire.clone(),
    };
    let closing = CancellationToken::new();
    let data_plane = DataPlane {
        board: board.clone(),
        metrics,
        credentials,
        closing: closing.clone(),
    };
    let mut attending = JoinSet::new();
    attending.spawn(session.run());
    let mut server = JoinSet::new();
    server.spawn_on(serve(listener, data_plane), &replicas_on);
    Ok(Built {
        house: House {
            board,
            host,
            data_addr,
            closing,
            draining,
            connected,
            retire,
            readiness,
            _attending: attending,
        },
        server,
        host_task,
    })
}

/// Waits for the word to end: the head's, or this process's and then the head's for a while.
async fn until_told(house: &House, shutdown: &CancellationToken) {
    tokio::select! {
        () = house.retire.cancelled() => tracing::info!("retired by the head"),
        () = shutdown.cancelled() => {
            tracing::info!("told to end, waiting for the head to move the replicas");
            house.readiness.set_ending();
            house.draining.send_replace(true);
            until_moved(house).await;
        }
    }
    house.readiness.set_ending();
    house.draining.send_replace(true);
}

async fn until_moved(house: &House) {
    tokio::select! {
        () = house.retire.cancelled() => {}
        () = house.board.all(|_| false) => tracing::info!("no replicas here any more"),
        () = tokio::time::sleep(RETIRE_WAIT_MAX) => tracing::warn!("the head let us wait"),
        () = away(house.connected.clone()) => tracing::warn!("no head, draining alone"),
    }
}

/// Returns when no head was there for [`HEAD_AWAY_WAIT_MAX`] without a break.
async fn away(mut connected: watch::Receiver<bool>) {
    loop {
        if connected.wait_for(|connected| !connected).await.is_err() {
            return;
        }
        let back = connected.wait_for(|connected| *connected);
        if tokio::time::timeout(HEAD_AWAY_WAIT_MAX, back)
            .await
            .is_err()
        {
            return;
        }
    }
}

/// Stops every replica gracefully, and lets the head hear of it.
async fn drain(board: &Board, host: &ActorRef<HostMsg>) {
    if let Err(error) = ractor::call!(host, HostMsg::Retire) {
        tracing::error!(%error, "the replica host did not take the order to stop");
        return;
    }
    let drain_max = board
        .replicas()
        .values()
        .map(|hosted| hosted.drain_timeout)
        .max()
        .unwrap_or_default();
    let all_ended = board.all(|hosted| hosted.cell.phase() == Phase::Stopped);
    let limit = drain_max + STOP_OVERDUE_WAIT_MAX;
    if within(limit, all_ended).await.is_none() {
        tracing::error!("some replicas did not stop in time, leaving them behind");
        return;
    }
    // The session forgets a replica when it has reported its end.
    let _ = tokio::time::timeout(LAST_REPORT_WAIT_MAX, board.all(|_| false)).await;
}

async fn joined(server: &mut JoinSet<Result<(), WorkerError>>) -> Result<(), WorkerError> {
    match server.join_next().await {
        Some(Ok(served)) => served,
        Some(Err(error)) => Err(WorkerError::Serve(error.to_string())),
        // It was joined before.
        None => Ok(()),
    }
}

fn remove_socket(addr: &Addr) {
    match addr {
        Addr::Unix(path) => {
            // The next process replaces a file that stays.
            let _ = std::fs::remove_file(path);
        }
        Addr::Tcp(_) => {}
    }
}
