//! Wires the head up, in order of dependency, and takes it down in the reverse order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mobula_app::Registry;
use mobula_process::access::Credentials;
use mobula_process::follow::Current;
use mobula_process::https::Https;
use mobula_process::metrics::MetricsHandle;
use mobula_process::net::Listener;
use mobula_process::token::Token;
use mobula_store::StateStore;
use ractor::{Actor, ActorRef};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::{self, Admin};
use crate::controller::{Arguments, Controller};
use crate::error::HeadError;
use crate::executor::Executor;
use crate::handle::ControllerHandle;
use crate::message::Message;
use crate::metrics;
use crate::outbox::Outbox;
use crate::prepare::Preparer;
use crate::provision::{Notice, Provisioner, WorkerSet};
use crate::restore::restore;
use crate::sessions::Sessions;
use crate::status::About;
use crate::world::World;

/// A peer that does not answer a ping within this time is gone; finds dead machines, whose
/// connections nobody closes.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Open requests to the admin API are answered within this time when the head ends.
const ADMIN_DRAIN_MAX: Duration = Duration::from_secs(5);

/// Sessions are told that the head goes away, and end within this time.
const SESSIONS_DRAIN_MAX: Duration = Duration::from_secs(2);

/// Everything the head needs from its process.
pub struct HeadConfig {
    /// The applications that are compiled in.
    pub registry: Registry,
    /// The process's environment.
    pub env: BTreeMap<String, String>,
    /// Durable state.
    pub store: Arc<dyn StateStore>,
    /// Where workers come from.
    pub provisioner: Box<dyn Provisioner>,
    /// How many there shall be.
    pub workers: WorkerSet,
    /// The admin API, already bound.
    pub admin_listener: TcpListener,
    /// What it is opened with, where that is TLS.
    pub admin_https: Option<Current<Https>>,
    /// Where workers and routers connect, already bound.
    pub cluster_listener: Listener,
    /// What workers and routers have to show.
    pub credentials: Credentials,
    /// What clients of the admin API have to show.
    pub admin_token: Option<Current<Token>>,
    /// 56 hex digits, one per machine.
    pub node_id: String,
    /// The machine's address.
    pub node_ip: String,
    /// This process's recorder.
    pub metrics: MetricsHandle,
    /// The Ray version to be compatible with, "2.60.0".
    pub ray_version: String,
    /// The router is of this machine: files that a config names for it are looked at before the
    /// config is accepted.
    pub router_here: bool,
    /// Ends the head when cancelled.
    pub shutdown: CancellationToken,
}

/// Runs the head until `shutdown`; workers that end with the head have ended when it returns.
///
/// # Errors
/// When the stored state cannot be read, or a part of the head fails by itself.
pub async fn run(config: HeadConfig) -> Result<(), HeadError> {
    let HeadConfig {
        registry,
        env,
        store,
        mut provisioner,
        workers,
        admin_listener,
        admin_https,
        cluster_listener,
        credentials,
        admin_token,
        node_id,
        node_ip,
        metrics,
        ray_version,
        router_here,
        shutdown,
    } = config;
    // Ours to cancel: a head that fails takes its own parts down and leaves the rest to the caller.
    let stopping = shutdown.child_token();
    metrics::describe();
    let about = About {
        ray_version: ray_version
            .parse()
            .map_err(|()| HeadError::RayVersion(ray_version.clone()))?,
        node_id,
        node_ip,
        pid: std::process::id(),
        started_at_s: unix_now_s(),
    };
    // Workers load code and models while the head loads its state.
    if let Err(error) = provisioner.ensure(workers).await {
        warn!(%error, "workers cannot be started");
    }
    let preparer = Preparer::new(registry, env).with_router_here(router_here);
    let executor = Executor::load(store).await?;
    let outlive = provisioner.workers_outlive_head();
    let world = restore(&executor, &preparer, &about, outlive).await?;

    let (actor, mut controller_task, controller) = start_controller(world, executor, about).await?;

    let ending = CancellationToken::new();
    let mut cluster_task = serve_cluster(
        cluster_listener,
        &credentials,
        controller.clone(),
        ending.child_token(),
    );
    let admin = Admin::new(
        controller.clone(),
        preparer,
        metrics,
        ray_version,
        &stopping,
    )
    .with_access(admin_token, credentials);
    let port = admin::Port {
        listener: admin_listener,
        https: admin_https,
    };
    let admin_task = tokio::spawn(admin::serve(admin, port, ending.child_token()));
    let provision_task = tokio::spawn(provide(provisioner, controller, stopping.clone()));

    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        _ = &mut controller_task => Err(HeadError::Controller("it ended by itself".to_owned())),
        ended = &mut cluster_task => Err(HeadError::Cluster(format!("it ended: {ended:?}"))),
    };
    stopping.cancel();
    // Workers drain through the controller and their sessions, so those end after them.
    let _ = provision_task.await;
    ending.cancel();
    let _ = tokio::time::timeout(ADMIN_DRAIN_MAX, admin_task).await;
    let _ = tokio::time::timeout(SESSIONS_DRAIN_MAX, cluster_task).await;
    actor.stop(None);
    if outcome.is_ok() {
        let _ = controller_task.await;
    }
    info!("the head ended");
    outcome
}

async fn start_controller(
    world: World,
    executor: Executor,
    about: About,
) -> Result<(ActorRef<Message>, JoinHandle<()>, ControllerHandle), HeadError> {
    let outbox = Outbox::new();
    let (table, serving) = (outbox.table.subscribe(), outbox.serving.subscribe());
    let demand = outbox.demand.subscribe();
    let arguments = Arguments {
        world,
        executor,
        about,
        started: Instant::now(),
        outbox,
    };
    let (actor, task) = Actor::spawn(None, Controller, arguments)
        .await
        .map_err(|error| HeadError::Controller(error.to_string()))?;
    let controller = ControllerHandle::new(actor.clone(), table, serving, demand);
    Ok((actor, task, controller))
}

fn serve_cluster(
    listener: Listener,
    credentials: &Credentials,
    controller: ControllerHandle,
    ending: CancellationToken,
) -> JoinHandle<Result<(), tonic::transport::Error>> {
    let service = Sessions::service(controller, ending.clone());
    tokio::spawn(
        tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .add_service(credentials.guard(service))
            .serve_with_incoming_shutdown(credentials.incoming(listener), ending.cancelled_owned()),
    )
}

/// Ends the workers at shutdown, and passes on what the provisioner notices while they live and
/// while they end: the last replicas leave sooner when the head knows who is gone.
async fn provide(
    mut provisioner: Box<dyn Provisioner>,
    controller: ControllerHandle,
    shutdown: CancellationToken,
) {
    let mut notices = provisioner.attend(controller.demand());
    let ending = async move {
        shutdown.cancelled().await;
        provisioner.shutdown().await;
    };
    tokio::pin!(ending);
    loop {
        tokio::select! {
            Some(notice) = notices.recv() => controller.tell(match notice {
                Notice::Exited(exit) => Message::WorkerExited { pid: exit.pid, how: exit.how },
                Notice::Supplied(supply) => Message::Supplied(supply),
                Notice::PodGone(pod) => Message::PodGone(pod),
            }),
            () = &mut ending => return,
        }
    }
}

fn unix_now_s() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
