//! `mobula router`: wiring of the router role.

use anyhow::{Context, Result};
use mobula_process::admin::Readiness;
use mobula_process::{ids, metrics, signals};
use mobula_router::{RouterConfig, RouterLimits};

use crate::access::{Following, credentials};
use crate::args::RouterArgs;
use crate::telemetry::Telemetry;

/// Serves requests until it is told to stop, then finishes those that it has.
pub async fn run(args: RouterArgs) -> Result<()> {
    let heads: Vec<_> = args.join.iter().map(|addr| ("--join", addr)).collect();
    let metrics = metrics::install(&[])?;
    let mut following = Following::default();
    let credentials = credentials(&args.access, &heads, &mut following)?;
    let shutdown = signals::shutdown_token()?;
    let router_id = ids::hex56();
    let readiness = Readiness::default();
    let mut telemetry = Telemetry::start(metrics.clone());
    telemetry
        .open_port(args.admin_addr, metrics, readiness.clone())
        .await?;
    let config = RouterConfig {
        head: args.join,
        credentials,
        http_addr: args.http_addr,
        grpc_addr: args.grpc_addr,
        readiness,
        router_id,
        node_id: ids::node_id(),
        node_ip: ids::node_ip(),
        descriptor_sets: crate::registry().descriptor_sets().to_vec(),
        limits: RouterLimits::default(),
        shutdown,
    };
    mobula_router::run(config).await.context("router")
}
