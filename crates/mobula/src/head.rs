//! `mobula head`: wiring of the head role. Workers and routers are started by somebody else and
//! join.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use mobula_head::provision::{Joining, Provisioner, WorkerSet};
use mobula_head::{ElectedConfig, HeadConfig, NewProvisioner};
use mobula_process::access::Credentials;
use mobula_process::client_tls::Trust;
use mobula_process::follow::Current;
use mobula_process::https::Https;
use mobula_process::metrics::MetricsHandle;
use mobula_process::net::{self, Listener};
use mobula_process::token::Token;
use mobula_process::{ids, metrics, signals};
use mobula_store::{EmbeddedStore, EtcdStore};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::access::{Following, admin_https, admin_token, admin_trust, credentials};
use crate::args::{EtcdArgs, HeadArgs};
use crate::telemetry::Telemetry;
use crate::{etcd, state_dir};

/// What both ways of keeping state have in common.
struct Parts {
    credentials: Credentials,
    admin_token: Option<Current<Token>>,
    admin_https: Option<Current<Https>>,
    metrics: MetricsHandle,
    admin_listener: TcpListener,
    cluster_listener: Listener,
    ray_version: String,
    shutdown: CancellationToken,
}

/// Leads the cluster, or follows the head that does, until it is told to stop. Workers and
/// routers go on without it.
pub async fn run(args: HeadArgs) -> Result<()> {
    // A file with a mistake is refused before anything starts.
    let provisioner = provisioners(&args)?;
    let metrics = metrics::install(&[])?;
    let mut following = Following::default();
    let addrs = [("--cluster-addr", &args.cluster_addr)];
    let credentials = credentials(&args.access, &addrs, &mut following)?;
    let admin_token = admin_token(&args.admin, args.admin_addr, &mut following)?;
    let admin_https = admin_https(&args.admin, &mut following)?;
    let etcd = match args.etcd.etcd.is_empty() {
        true => None,
        false => Some(etcd::store(&args.etcd, &mut following)?),
    };
    let admin_trust = match (&etcd, &admin_https) {
        (Some(_), Some(_)) => Some(admin_trust(&args.etcd, &mut following)?),
        (None, _) | (_, None) => None,
    };
    let shutdown = signals::shutdown_token()?;
    let _telemetry = Telemetry::start(metrics.clone());
    let bound = TcpListener::bind(args.admin_addr).await;
    let admin_listener =
        bound.with_context(|| format!("cannot listen on --admin-addr {}", args.admin_addr))?;
    let cluster_listener = net::listen(&args.cluster_addr).await?;
    tracing::info!(
        admin = %admin_listener.local_addr()?,
        cluster = %cluster_listener.local_addr()?,
        "the head is up"
    );
    let parts = Parts {
        credentials,
        admin_token,
        admin_https,
        metrics,
        admin_listener,
        cluster_listener,
        ray_version: args.ray.ray_version,
        shutdown,
    };
    match etcd {
        None => run_alone(parts, args.state_dir, provisioner()).await,
        Some(store) => run_elected(parts, &args.etcd, store, admin_trust, provisioner).await,
    }
}

/// The only head: its state is a file.
async fn run_alone(
    parts: Parts,
    state_dir: Option<PathBuf>,
    provisioner: Box<dyn Provisioner>,
) -> Result<()> {
    let state_dir = state_dir::open(state_dir)?;
    let store = EmbeddedStore::open(&state_dir.join("state.redb"))?;
    let config = HeadConfig {
        registry: crate::registry(),
        env: crate::environment(),
        store: Arc::new(store),
        provisioner,
        workers: WorkerSet { workers: 0 },
        admin_listener: parts.admin_listener,
        admin_https: parts.admin_https,
        cluster_listener: parts.cluster_listener,
        credentials: parts.credentials,
        admin_token: parts.admin_token,
        node_id: ids::node_id(),
        node_ip: ids::node_ip(),
        metrics: parts.metrics,
        ray_version: parts.ray_version,
        router_here: false,
        shutdown: parts.shutdown,
    };
    mobula_head::run(config).await.context("head")
}

/// One of several heads: their state is in etcd.
async fn run_elected(
    parts: Parts,
    args: &EtcdArgs,
    store: EtcdStore,
    admin_trust: Option<Trust>,
    provisioner: NewProvisioner,
) -> Result<()> {
    let store = Arc::new(store);
    let scheme = if parts.admin_https.is_some() {
        "https"
    } else {
        "http"
    };
    let candidate = etcd::candidate(args, parts.admin_listener.local_addr()?, scheme);
    let config = ElectedConfig {
        election: store.clone(),
        candidate,
        provisioner,
        registry: crate::registry(),
        env: crate::environment(),
        store,
        admin_listener: parts.admin_listener,
        admin_https: parts.admin_https,
        admin_trust,
        cluster_listener: parts.cluster_listener,
        credentials: parts.credentials,
        admin_token: parts.admin_token,
        node_id: ids::node_id(),
        node_ip: ids::node_ip(),
        metrics: parts.metrics,
        ray_version: parts.ray_version,
        shutdown: parts.shutdown,
    };
    mobula_head::run_elected(config).await.context("head")
}

/// Where workers come from: pods that the head makes, or whoever joins.
fn provisioners(args: &HeadArgs) -> Result<NewProvisioner> {
    #[cfg(feature = "kubernetes")]
    if let Some(file) = &args.kubernetes.kubernetes_groups {
        return crate::kubernetes::provisioners(&args.kubernetes, file);
    }
    let _ = args;
    Ok(Arc::new(|| Box::new(Joining)))
}
