//! The session with the head: reports go up, route tables come down. When the head is away the
//! router serves on from its last table and dials again for ever.

use std::sync::Arc;
use std::time::Duration;

use mobula_process::access;
use mobula_process::net::{self, Addr};
use mobula_process::repeats::Repeats;
use mobula_proto::v1;
use mobula_proto::v1::cluster_service_client::ClusterServiceClient;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::limits::{
    HEAD_RETRY_DELAY_MAX, HEAD_RETRY_DELAY_MIN, HEARTBEAT_INTERVAL, LOAD_REPORT_INTERVAL,
    REPORTS_QUEUED_MAX, TABLE_BYTES_MAX,
};

/// Who this router is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// 56 hex digits, new for each process.
    pub router_id: String,
    /// The machine.
    pub node_id: String,
    /// Its address.
    pub node_ip: String,
}

/// Keeps a session with one of the heads until told to stop.
pub async fn run(core: Arc<Core>, heads: Vec<Addr>, identity: Identity, stop: CancellationToken) {
    let mut pause = HEAD_RETRY_DELAY_MIN;
    let mut repeats = Repeats::default();
    for head in heads.iter().cycle() {
        let ended = tokio::select! {
            ended = session(&core, head, &identity) => ended,
            () = stop.cancelled() => return,
        };
        pause = match ended {
            // It was up: the next try comes at once.
            Ended::Lost(reason) => {
                tracing::warn!(%head, reason, "session with the head lost");
                repeats.forget(&head.to_string());
                HEAD_RETRY_DELAY_MIN
            }
            Ended::NotUp(reason) => {
                if repeats.is_news(&head.to_string(), &reason, Instant::now().into_std()) {
                    tracing::warn!(%head, reason, "cannot join, dialling again");
                }
                (pause * 2).min(HEAD_RETRY_DELAY_MAX)
            }
        };
        let spread = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        tokio::select! {
            () = tokio::time::sleep(spread) => {}
            () = stop.cancelled() => return,
        }
    }
}

enum Ended {
    NotUp(String),
    Lost(String),
}

type Tables = tonic::Streaming<v1::RouteTable>;

async fn open(
    core: &Core,
    head: &Addr,
    reports: mpsc::Receiver<v1::RouterReport>,
) -> Result<Tables, String> {
    let connected = core.credentials.connect(head).await;
    let channel = connected.map_err(|e| e.to_string())?;
    let mut client = ClusterServiceClient::new(channel).max_decoding_message_size(TABLE_BYTES_MAX);
    let opened = client.router_session(ReceiverStream::new(reports));
    match tokio::time::timeout(net::CONNECT_SECONDS_MAX, opened).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(access::reason(&status)),
        Err(_) => Err("no answer".to_owned()),
    }
}

/// One session from beginning to end.
async fn session(core: &Arc<Core>, head: &Addr, identity: &Identity) -> Ended {
    let (reports, queued) = mpsc::channel(REPORTS_QUEUED_MAX);
    // The first report says who speaks; the head may wait for it before it answers.
    let first = report(core, identity, core.loads());
    let mut loads = first.loads.clone();
    drop(reports.try_send(first));
    let mut tables = match open(core, head, queued).await {
        Ok(tables) => tables,
        Err(reason) => return Ended::NotUp(reason),
    };
    tracing::info!(%head, "session with the head open");
    let mut versions = core.version.subscribe();
    let mut listening = core.listening.subscribe();
    let mut tick = tokio::time::interval(LOAD_REPORT_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = Instant::now();
    let mut due = true;
    loop {
        tokio::select! {
            table = tables.message() => match table {
                Ok(Some(table)) => {
                    core.apply(table);
                    due = true;
                }
                Ok(None) => return Ended::Lost("closed by the head".to_owned()),
                Err(status) => return Ended::Lost(status.to_string()),
            },
            room = reports.reserve(), if due => match room {
                Ok(room) => {
                    let report = report(core, identity, core.loads());
                    loads.clone_from(&report.loads);
                    room.send(report);
                    sent = Instant::now();
                    due = false;
                }
                Err(_) => return Ended::Lost("the head stopped listening".to_owned()),
            },
            // Both senders live in `core`; draining is told by the first.
            _ = versions.changed() => due = true,
            _ = listening.changed() => due = true,
            // Somebody waits for a replica: the head should know before the next tick.
            () = core.waiting.notified() => due |= sent.elapsed() >= LOAD_REPORT_INTERVAL,
            _ = tick.tick() => {
                due |= is_due(sent.elapsed(), || core.loads() != loads);
            }
        }
    }
}

fn is_due(since: Duration, changed: impl FnOnce() -> bool) -> bool {
    since >= HEARTBEAT_INTERVAL || changed()
}

fn report(core: &Core, identity: &Identity, loads: Vec<v1::DeploymentLoad>) -> v1::RouterReport {
    let listening = core.listening.borrow().clone();
    let errors = [listening.http_error, listening.grpc_error];
    let errors: Vec<String> = errors.into_iter().filter(|e| !e.is_empty()).collect();
    v1::RouterReport {
        router_id: identity.router_id.clone(),
        node_id: identity.node_id.clone(),
        node_ip: identity.node_ip.clone(),
        pid: std::process::id(),
        http_addr: listening.http_addr,
        grpc_addr: listening.grpc_addr,
        table_version: core.snapshot.load().table.version,
        draining: core.is_draining(),
        error: errors.join("; "),
        loads,
        answers: core.answers(),
        runtime_version: mobula_process::release::VERSION.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_due_when_the_load_changed_and_otherwise_as_a_heartbeat() {
        assert!(is_due(HEARTBEAT_INTERVAL, || false));
        assert!(is_due(Duration::ZERO, || true));
        assert!(!is_due(LOAD_REPORT_INTERVAL, || false));
    }
}
