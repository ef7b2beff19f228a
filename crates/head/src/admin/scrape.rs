//! `/metrics`: the head's own series and those of all workers, as one exposition.
//!
//! Workers listen on private sockets only, so the head is where their metrics are read.

use std::time::Duration;

use futures_util::future::join_all;
use mobula_process::access::Credentials;
use mobula_process::metrics::merge_expositions;
use mobula_process::net::Addr;
use mobula_proto::v1::MetricsRequest;
use mobula_proto::v1::worker_service_client::WorkerServiceClient;
use tracing::debug;

use super::Admin;
use super::reply::{Reply, reply, text_reply};

/// A scraper gives up after ten seconds; a worker that needs longer than this is left out.
const WORKER_SECONDS_MAX: Duration = Duration::from_secs(2);

/// Workers asked for one scrape. A cluster with more scrapes its workers itself.
const WORKERS_ASKED_MAX: usize = 64;

/// One worker's exposition.
const EXPOSITION_BYTES_MAX: usize = 16 * 1024 * 1024;

const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

pub async fn metrics(admin: &Admin) -> Reply {
    let Ok((state, workers)) = admin.controller.scrape().await else {
        return text_reply(503, "the controller is not available");
    };
    let asked = workers
        .iter()
        .take(WORKERS_ASKED_MAX)
        .map(|addr| ask(&admin.credentials, addr));
    let mut texts = vec![admin.metrics.render(), state];
    texts.extend(join_all(asked).await.into_iter().flatten());
    reply(200, EXPOSITION, merge_expositions(&texts))
}

/// None: the worker is away or too slow, which its own series show by their absence.
async fn ask(credentials: &Credentials, addr: &str) -> Option<String> {
    let asked = async {
        let addr: Addr = addr.parse().map_err(|error| format!("{error}"))?;
        let connected = credentials.connect(&addr).await;
        let channel = connected.map_err(|error| error.to_string())?;
        WorkerServiceClient::new(channel)
            .max_decoding_message_size(EXPOSITION_BYTES_MAX)
            .metrics(MetricsRequest {})
            .await
            .map(|reply| reply.into_inner().text)
            .map_err(|status| status.to_string())
    };
    match tokio::time::timeout(WORKER_SECONDS_MAX, asked).await {
        Ok(Ok(text)) => Some(text),
        Ok(Err(error)) => {
            debug!(addr, error, "a worker's metrics cannot be read");
            None
        }
        Err(_) => {
            debug!(addr, "a worker's metrics take too long");
            None
        }
    }
}
