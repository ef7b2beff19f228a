//! `mobula worker`: wiring of the worker role.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};
use mobula_process::{ids, metrics, signals};
use mobula_proto::v1::Resources;
use mobula_worker::WorkerConfig;

use crate::args::WorkerArgs;

/// Histogram samples are sorted into their buckets this often.
pub const METRICS_UPKEEP_PERIOD: Duration = Duration::from_secs(5);

/// Hosts replicas until it is told to stop.
pub async fn run(args: WorkerArgs) -> Result<()> {
    if let Some(parent_pid) = args.parent_pid {
        signals::end_with_parent(parent_pid).context("cannot follow the parent process")?;
    }
    let shutdown = signals::shutdown_token()?;
    let worker_id = args.worker_id.unwrap_or_else(ids::hex56);
    let metrics = metrics::install(&[("WorkerId", &worker_id)])?;
    let upkeep = metrics.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(METRICS_UPKEEP_PERIOD).await;
            upkeep.upkeep();
        }
    });
    let config = WorkerConfig {
        head: args.join,
        data_addr: args.data_addr,
        worker_id,
        node_id: ids::node_id(),
        node_ip: ids::node_ip(),
        capacity: Resources {
            cpus: args.cpus,
            gpus: args.gpus,
            memory_bytes: args.memory,
            custom: HashMap::new(),
        },
        labels: args.labels.into_iter().collect(),
        registry: crate::registry(),
        env: crate::environment(),
        metrics,
        shutdown,
    };
    mobula_worker::run(config).await.context("worker")
}
