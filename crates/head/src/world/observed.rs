//! What workers and routers report. Never stored: they say it again within a second.

use std::collections::BTreeMap;

use mobula_proto::POD_UID_LABEL;

use super::autoscale::flow::Counts;
use super::{ReplicaId, Resources, RouterId, WorkerId};

/// A router that has not taken a table for this long, while its reports still come, is no
/// longer waited for. Long enough for a router on a starved machine, short enough that one
/// broken router does not hold every rollout for good.
pub const ROUTER_ACK_MS_MAX: u64 = 30_000;

/// A worker as it last described itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// New for each process.
    pub id: WorkerId,
    /// The machine.
    pub node_id: String,
    /// The machine's address.
    pub node_ip: String,
    /// The process.
    pub pid: u32,
    /// Its release.
    pub version: String,
    /// Where routers connect.
    pub data_addr: String,
    /// What it has.
    pub capacity: Resources,
    /// What it was told to call itself.
    pub labels: BTreeMap<String, String>,
    /// The newest assignment that the report reflects.
    pub assignment_version: u64,
    /// Told to stop: place nothing here, withdraw what runs.
    pub draining: bool,
    /// When that was first seen.
    pub draining_since_ms: Option<u64>,
    /// When it last reported.
    pub heard_ms: u64,
    /// When its session ended, if it has none now.
    pub disconnected_since_ms: Option<u64>,
    /// Without a session for so long that replacements of its replicas are started.
    pub away: bool,
    /// It was away and is back: until then its replacements are kept.
    pub trusted_at_ms: Option<u64>,
    /// Replicas that failed here, in a row, of versions that run elsewhere.
    pub failures: u32,
    /// Every replica in the process.
    pub replicas: BTreeMap<ReplicaId, ReplicaReport>,
}

/// One replica as its worker sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaReport {
    /// Whose it is.
    pub application: String,
    /// Whose it is.
    pub deployment: String,
    /// What it was made from.
    pub code_version: String,
    /// The config in force in it.
    pub config_version: String,
    /// Where it is in its life.
    pub state: ReportedState,
    /// Why it failed or is unhealthy.
    pub message: String,
    /// Unix time at which construction began.
    pub start_time_s: f64,
    /// Requests in progress.
    pub ongoing_requests: u32,
}

/// States of a replica as workers name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportedState {
    /// Constructing, loading, warming.
    Starting,
    /// Answers.
    Running,
    /// Answers, reconfigure under way.
    Updating,
    /// Refuses new calls.
    Draining,
    /// Ended as asked.
    Stopped,
    /// Did not start, or died.
    Failed,
    /// Answers, but its health checks fail.
    Unhealthy,
}

/// A router as it last described itself; only connected ones are known.
#[derive(Clone, Debug, PartialEq)]
pub struct Router {
    /// New for each process.
    pub id: RouterId,
    /// The machine.
    pub node_id: String,
    /// The machine's address.
    pub node_ip: String,
    /// The process.
    pub pid: u32,
    /// Its release; empty: one that did not say yet.
    pub version: String,
    /// Bound address, empty when not listening.
    pub http_addr: String,
    /// As `http_addr`.
    pub grpc_addr: String,
    /// The table in force.
    pub table_version: u64,
    /// Finishing what it has.
    pub draining: bool,
    /// Why it is not serving.
    pub error: String,
    /// When it last reported.
    pub heard_ms: u64,
    /// Since when it serves from an older table than the published one.
    pub behind_since_ms: Option<u64>,
    /// (application, deployment) -> its load
    pub loads: BTreeMap<(String, String), RouterLoad>,
    /// (application, deployment, version of the code) -> its answers, where versions share the
    /// requests; cumulative.
    pub answers: BTreeMap<(String, String, String), Answers>,
}

/// What one router has of one deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterLoad {
    /// Requests that wait.
    pub queued: u32,
    /// Requests with a replica.
    pub ongoing: u32,
    /// What passed through so far; None: a release that does not count it.
    pub counts: Option<Counts>,
}

/// How the replicas of one version answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// Answered or failed.
    pub answers: u64,
    /// Of those, failed.
    pub errors: u64,
    /// Of the answers, by the buckets of `mobula_proto::latency`.
    pub latencies: Vec<u64>,
}

// === impl Router ===

impl Router {
    /// Whether a report says what this one said before, apart from the loads.
    pub fn says_the_same(&self, report: &Router) -> bool {
        let Router {
            id,
            node_id,
            node_ip,
            pid,
            version,
            http_addr,
            grpc_addr,
            table_version,
            draining,
            error,
            // The head's own knowledge.
            heard_ms: _,
            behind_since_ms: _,
            loads: _,
            answers,
        } = self;
        (id, node_id, node_ip, *pid) == (&report.id, &report.node_id, &report.node_ip, report.pid)
            && (version, http_addr, grpc_addr, error)
                == (
                    &report.version,
                    &report.http_addr,
                    &report.grpc_addr,
                    &report.error,
                )
            && (*table_version, *draining) == (report.table_version, report.draining)
            && *answers == report.answers
    }

    /// Whether changes wait for this router.
    pub fn is_waited_for(&self, now_ms: u64) -> bool {
        self.behind_since_ms
            .is_none_or(|since| now_ms.saturating_sub(since) < ROUTER_ACK_MS_MAX)
    }
}

// === impl Worker ===

impl Worker {
    /// Whether a report says what this one, whose session holds, said before.
    pub fn says_the_same(&self, report: &Worker) -> bool {
        let Worker {
            id,
            node_id,
            node_ip,
            pid,
            version,
            data_addr,
            capacity,
            labels,
            assignment_version,
            draining,
            // The head's own knowledge.
            draining_since_ms: _,
            heard_ms: _,
            away: _,
            trusted_at_ms: _,
            failures: _,
            disconnected_since_ms,
            replicas,
        } = self;
        disconnected_since_ms.is_none()
            && (id, node_id, node_ip, *pid)
                == (&report.id, &report.node_id, &report.node_ip, report.pid)
            && (version, data_addr) == (&report.version, &report.data_addr)
            && (capacity, labels) == (&report.capacity, &report.labels)
            && (*assignment_version, *draining) == (report.assignment_version, report.draining)
            && *replicas == report.replicas
    }

    /// The uid of the pod that it runs in, if it runs in one.
    pub fn pod(&self) -> Option<&str> {
        self.labels.get(POD_UID_LABEL).map(String::as_str)
    }

    /// Whether new replicas may be placed here.
    pub fn takes_replicas(&self) -> bool {
        !self.draining && self.disconnected_since_ms.is_none()
    }
}
