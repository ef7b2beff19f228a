//! `mobula head`: wiring of the head role. Workers and routers are started by somebody else and
//! join.

use std::sync::Arc;

use anyhow::{Context, Result};
use mobula_head::HeadConfig;
use mobula_head::provision::{Joining, WorkerSet};
use mobula_process::{ids, metrics, net, signals};
use mobula_store::{EmbeddedStore, StateStore};
use tokio::net::TcpListener;

use crate::access::{admin_token, credentials};
use crate::args::HeadArgs;
use crate::state_dir;
use crate::telemetry::Telemetry;

/// Ray's release whose REST contract the admin API keeps.
pub const RAY_VERSION: &str = "2.60.0";

/// Leads the cluster until it is told to stop. Workers and routers go on without it.
pub async fn run(args: HeadArgs) -> Result<()> {
    let credentials = credentials(&args.access, &[("--cluster-addr", &args.cluster_addr)])?;
    let admin_token = admin_token(&args.admin, args.admin_addr)?;
    let shutdown = signals::shutdown_token()?;
    let store = open_store(&args)?;
    let metrics = metrics::install(&[])?;
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
    let config = HeadConfig {
        registry: crate::registry(),
        env: crate::environment(),
        store,
        provisioner: Box::new(Joining),
        workers: WorkerSet { workers: 0 },
        admin_listener,
        cluster_listener,
        credentials,
        admin_token,
        node_id: ids::node_id(),
        node_ip: ids::node_ip(),
        metrics,
        ray_version: RAY_VERSION.to_owned(),
        shutdown,
    };
    mobula_head::run(config).await.context("head")
}

/// Where the state is kept.
fn open_store(args: &HeadArgs) -> Result<Arc<dyn StateStore>> {
    let state_dir = state_dir::open(args.state_dir.clone())?;
    Ok(Arc::new(EmbeddedStore::open(
        &state_dir.join("state.redb"),
    )?))
}
