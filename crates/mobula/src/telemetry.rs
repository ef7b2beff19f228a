//! Metrics and the admin port of a process.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use mobula_process::admin::{self, Readiness};
use mobula_process::metrics::MetricsHandle;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Histogram samples are sorted into their buckets this often.
const METRICS_UPKEEP_PERIOD: Duration = Duration::from_secs(5);

/// Tasks that end when this is dropped.
pub struct Telemetry(JoinSet<()>);

impl Telemetry {
    /// Histogram samples are sorted into their buckets even when nobody reads the metrics.
    pub fn start(metrics: MetricsHandle) -> Telemetry {
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(METRICS_UPKEEP_PERIOD).await;
                metrics.upkeep();
            }
        });
        Telemetry(tasks)
    }

    /// Opens the admin port of a role that has no API of its own, if it shall have one.
    pub async fn open_port(
        &mut self,
        addr: Option<SocketAddr>,
        metrics: MetricsHandle,
        readiness: Readiness,
    ) -> Result<()> {
        let Some(addr) = addr else {
            return Ok(());
        };
        let bound = TcpListener::bind(addr).await;
        let listener = bound.with_context(|| format!("cannot listen on --admin-addr {addr}"))?;
        self.0.spawn(admin::serve(listener, metrics, readiness));
        Ok(())
    }
}
