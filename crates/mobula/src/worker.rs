//! `mobula worker`: wiring of the worker role.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use mobula_models::settings::RUNTIME_VARIABLE;
use mobula_process::access::is_private;
use mobula_process::admin::Readiness;
use mobula_process::{ids, metrics, signals};
use mobula_proto::POD_UID_LABEL;
use mobula_proto::v1::Resources;
use mobula_worker::WorkerConfig;
use tokio::runtime::Handle;

use crate::access::{Following, credentials};
use crate::args::WorkerArgs;
use crate::gpus::{self, VISIBLE_DEVICES};
use crate::telemetry::Telemetry;

/// Hosts replicas, on the runtime that is given, until it is told to stop.
pub async fn run(args: WorkerArgs, replicas_on: Handle) -> Result<()> {
    if let Some(parent_pid) = args.parent_pid {
        signals::end_with_parent(parent_pid).context("cannot follow the parent process")?;
    }
    let mut addrs = vec![("--data-addr", &args.data_addr)];
    addrs.extend(args.join.iter().map(|addr| ("--join", addr)));
    let worker_id = args.worker_id.unwrap_or_else(ids::hex56);
    let metrics = metrics::install(&[("WorkerId", &worker_id)])?;
    let mut following = Following::default();
    let credentials = credentials(&args.access, &addrs, &mut following)?;
    let elsewhere = args.join.iter().find(|addr| !is_private(addr));
    if let (Some(head), None) = (elsewhere, &args.advertise_addr)
        && is_private(&args.data_addr)
    {
        let data_addr = &args.data_addr;
        tracing::warn!(%head, %data_addr, "routers on other machines cannot reach --data-addr");
    }
    let shutdown = signals::shutdown_token()?;
    let readiness = Readiness::default();
    let mut telemetry = Telemetry::start(metrics.clone());
    telemetry
        .open_port(args.admin_addr, metrics.clone(), readiness.clone())
        .await?;
    let mut labels: BTreeMap<String, String> = args.labels.into_iter().collect();
    if let Some(pod) = args.pod_uid {
        labels.insert(POD_UID_LABEL.to_owned(), pod);
    }
    let mut env = crate::environment();
    gpus::check_visible(args.gpus, env.get(VISIBLE_DEVICES).map(String::as_str))?;
    if args.gpus > 0.0 {
        // One library serves the whole process, also those replicas that ask for no GPU.
        let variable = RUNTIME_VARIABLE.to_owned();
        env.entry(variable).or_insert_with(|| "cuda".to_owned());
    }
    let node_ip = args.node_ip.map(|ip| ip.to_string());
    let config = WorkerConfig {
        head: args.join,
        data_addr: args.data_addr,
        advertise_addr: args.advertise_addr,
        credentials,
        readiness,
        worker_id,
        node_id: ids::node_id(),
        node_ip: node_ip.unwrap_or_else(ids::node_ip),
        capacity: Resources {
            cpus: args.cpus,
            gpus: args.gpus,
            memory_bytes: args.memory,
            custom: args.resources.into_iter().collect(),
        },
        labels,
        registry: crate::registry(),
        env,
        metrics,
        replicas_on,
        shutdown,
    };
    mobula_worker::run(config).await.context("worker")
}
