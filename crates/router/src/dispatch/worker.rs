//! One worker and the connection to it, which is dialled again for ever while the table has the
//! worker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use mobula_process::access::{self, Credentials};
use mobula_process::net::{self, Addr};
use mobula_process::repeats::Repeats;
use mobula_proto::limits::MESSAGE_BYTES_MAX;
use mobula_proto::v1::worker_service_client::WorkerServiceClient;
use tokio_util::sync::CancellationToken;

use super::Link;
use super::link::Outgoing;
use crate::limits::{
    RETIRED_LINK_SECONDS_MAX, WORKER_FAILURES_TOLD_MIN, WORKER_RETRY_DELAY_MAX,
    WORKER_RETRY_DELAY_MIN,
};

/// A worker of the table.
pub struct Worker {
    /// Its id.
    pub id: String,
    /// Where it listens.
    pub data_addr: String,
    link: ArcSwapOption<Link>,
    /// The table no longer has it: close when the last call has ended.
    pub retired: CancellationToken,
}

// === impl Worker ===

impl Worker {
    /// A worker that nobody has dialled yet.
    pub fn new(id: &str, data_addr: &str, shutdown: &CancellationToken) -> Worker {
        Worker {
            id: id.to_owned(),
            data_addr: data_addr.to_owned(),
            link: ArcSwapOption::empty(),
            retired: shutdown.child_token(),
        }
    }

    /// The living link, if there is one.
    pub fn link(&self) -> Option<Arc<Link>> {
        self.link.load_full()
    }

    /// Whether calls can be sent now.
    pub fn is_reachable(&self) -> bool {
        self.link.load().is_some()
    }
}

/// Keeps the worker connected until it is retired. `on_change` is told after the link came up
/// and before the calls on a broken one are, so that none of them goes back to it.
pub async fn run(
    worker: Arc<Worker>,
    credentials: Credentials,
    on_change: impl Fn(&Arc<Worker>, bool) + Send,
) {
    let mut pause = WORKER_RETRY_DELAY_MIN;
    let mut failures = 0_u32;
    let mut repeats = Repeats::default();
    while !worker.retired.is_cancelled() {
        match exchange(&worker, &credentials, &on_change).await {
            Ok(()) => {
                pause = WORKER_RETRY_DELAY_MIN;
                failures = 0;
            }
            Err(reason) => {
                failures = failures.saturating_add(1);
                // One that died is out of the table before that.
                let is_lasting = failures >= WORKER_FAILURES_TOLD_MIN;
                if is_lasting && repeats.is_news(&worker.data_addr, &reason, Instant::now()) {
                    let addr = &worker.data_addr;
                    tracing::warn!(worker = worker.id, addr, reason, "worker not reached");
                }
                pause = (pause * 2).min(WORKER_RETRY_DELAY_MAX);
            }
        }
        // Spread, so that all routers do not dial a worker that came back at one moment.
        let spread = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        tokio::select! {
            () = worker.retired.cancelled() => {}
            () = tokio::time::sleep(spread) => {}
        }
    }
}

/// One connection from beginning to end. `Err` when it never came up.
async fn exchange(
    worker: &Arc<Worker>,
    credentials: &Credentials,
    on_change: &(impl Fn(&Arc<Worker>, bool) + Send),
) -> Result<(), String> {
    let addr: Addr = worker.data_addr.parse().map_err(|e| format!("{e}"))?;
    let link = Arc::new(Link::default());
    let opened = tokio::select! {
        opened = open(&addr, credentials, &link) => opened?,
        () = worker.retired.cancelled() => return Ok(()),
    };
    let _closing = Closing {
        worker,
        link: &link,
        on_change,
    };
    worker.link.store(Some(Arc::clone(&link)));
    tracing::info!(worker = worker.id, %addr, "worker connected");
    on_change(worker, true);
    tokio::select! {
        reason = read(&link, opened) => {
            tracing::info!(worker = worker.id, reason, "worker connection lost");
        }
        () = drained(worker, &link) => {}
    }
    Ok(())
}

/// Whatever ends the exchange, this comes with it, in this order.
struct Closing<'a, F: Fn(&Arc<Worker>, bool)> {
    worker: &'a Arc<Worker>,
    link: &'a Arc<Link>,
    on_change: &'a F,
}

impl<F: Fn(&Arc<Worker>, bool)> Drop for Closing<'_, F> {
    fn drop(&mut self) {
        self.worker.link.store(None);
        (self.on_change)(self.worker, false);
        self.link.close();
    }
}

type Incoming = tonic::Streaming<mobula_proto::v1::FrameBatch>;

async fn open(
    addr: &Addr,
    credentials: &Credentials,
    link: &Arc<Link>,
) -> Result<Incoming, String> {
    let channel = credentials.connect(addr).await.map_err(|e| e.to_string())?;
    let mut client = WorkerServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let opened = client.exchange(Outgoing(Arc::clone(link)));
    match tokio::time::timeout(net::CONNECT_SECONDS_MAX, opened).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(access::reason(&status)),
        Err(_) => Err(format!(
            "no answer within {} s",
            Duration::as_secs(&net::CONNECT_SECONDS_MAX)
        )),
    }
}

async fn read(link: &Arc<Link>, mut incoming: Incoming) -> String {
    loop {
        match incoming.message().await {
            Ok(Some(batch)) => link.on_batch(batch),
            Ok(None) => return "closed by the worker".to_owned(),
            Err(status) => return status.to_string(),
        }
    }
}

/// Waits until the worker is retired and its last call has ended.
async fn drained(worker: &Worker, link: &Link) {
    worker.retired.cancelled().await;
    // What has not ended by then never will.
    drop(tokio::time::timeout(RETIRED_LINK_SECONDS_MAX, link.drained()).await);
}
