//! What the ingress, the session and the connections share: the table in force, the deployments
//! and workers behind it, and what the router says about itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderMap;
use metrics::{Gauge, Histogram, gauge, histogram};
use mobula_process::access::Credentials;
use mobula_proto::v1;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::deployment::{Deployment, Target};
use crate::dispatch::{Worker, run_worker};
use crate::metrics::{
    GRPC_ONGOING, HTTP_ONGOING, Ingress, PROXY_SHUTDOWN, PROXY_STATUS, RouteMetrics, milliseconds,
};
use crate::queue::{Affinity, Share, Side, Wanted, Wish};
use crate::ranking::Ranking;
use crate::sync::lock;
use crate::table::{RouteId, Table};

/// The router's shared state.
pub struct Core {
    /// The table in force.
    pub snapshot: ArcSwap<Snapshot>,
    /// Changes with every table, after it is in force.
    pub version: watch::Sender<u64>,
    /// What to show heads and workers.
    pub credentials: Credentials,
    /// Where the ingress listens, and why not.
    pub listening: watch::Sender<Listening>,
    /// Told when a request begins to wait.
    pub waiting: Arc<Notify>,
    /// The router is going away.
    pub draining: AtomicBool,
    /// Requests in progress over HTTP.
    pub http: Ongoing,
    /// Requests in progress over gRPC.
    pub grpc: Ongoing,
    /// For what leads nowhere over HTTP.
    pub nowhere_http: Arc<RouteMetrics>,
    /// For what leads nowhere over gRPC.
    pub nowhere_grpc: Arc<RouteMetrics>,
    handle: String,
    status: Gauge,
    shutdown: Histogram,
    behind: Mutex<Behind>,
    /// Requests that go on when their client leaves.
    pub lasting: TaskTracker,
    /// Ends the connections to workers; cancelled last.
    pub workers_stop: CancellationToken,
    /// Connections to workers.
    pub workers_tasks: TaskTracker,
}

/// A table with what is behind it.
#[derive(Default)]
pub struct Snapshot {
    /// The table.
    pub table: Table,
    /// One for each route of the table, in its order.
    entries: Vec<Arc<RouteEntry>>,
}

/// A route with its deployment and counters.
pub struct RouteEntry {
    /// What the table says.
    pub route: crate::table::Route,
    /// Who answers.
    pub deployment: Arc<Deployment>,
    /// What is counted.
    pub metrics: RouteMetrics,
    /// How its requests are told apart; absent: not at all.
    ranking: Option<Ranking>,
}

/// Where the ingress listens; empty when it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    /// HTTP.
    pub http_addr: String,
    /// gRPC.
    pub grpc_addr: String,
    /// Why HTTP does not.
    pub http_error: String,
    /// Why gRPC does not.
    pub grpc_error: String,
}

/// A count of requests that is published from time to time.
pub struct Ongoing {
    count: AtomicUsize,
    gauge: Gauge,
}

/// Keyed so that load reports always come in the same order.
type DeploymentKey = (String, String);

#[derive(Default)]
struct Behind {
    deployments: BTreeMap<DeploymentKey, Arc<Deployment>>,
    workers: HashMap<String, Arc<Worker>>,
}

// === impl Core ===

impl Core {
    /// A router without a table.
    pub fn new(router_id: &str, node_id: &str, node_ip: &str, credentials: Credentials) -> Core {
        let labels = [
            ("node_id", node_id.to_owned()),
            ("node_ip_address", node_ip.to_owned()),
        ];
        let status = gauge!(PROXY_STATUS, &labels);
        status.set(STARTING);
        Core {
            snapshot: ArcSwap::default(),
            version: watch::Sender::new(0),
            credentials,
            listening: watch::Sender::default(),
            waiting: Arc::default(),
            draining: AtomicBool::new(false),
            http: Ongoing::new(gauge!(HTTP_ONGOING, &labels)),
            grpc: Ongoing::new(gauge!(GRPC_ONGOING, &labels)),
            nowhere_http: Arc::new(RouteMetrics::nowhere(Ingress::Http)),
            nowhere_grpc: Arc::new(RouteMetrics::nowhere(Ingress::Grpc)),
            handle: router_id.to_owned(),
            status,
            shutdown: histogram!(PROXY_SHUTDOWN, &labels),
            behind: Mutex::default(),
            lasting: TaskTracker::new(),
            workers_stop: CancellationToken::new(),
            workers_tasks: TaskTracker::new(),
        }
    }

    /// Puts a table in force. When it returns, no request can go to a replica that the table
    /// does not name, those that waited for one have moved.
    pub fn apply(self: &Arc<Self>, mut source: v1::RouteTable) {
        let before = self.snapshot.load_full();
        if let (Some(open), Some(asked)) = (&before.table.ingress, &mut source.ingress) {
            // A port that is open stays as it is until the ingress was closed.
            asked.clone_from(open);
        }
        let table = Table::new(source);
        let version = table.version;
        let mut behind = lock(&self.behind);
        self.dial_workers(&mut behind, &table);
        self.update_deployments(&mut behind, &table);
        // New deployments are ready before the table names them, old ones end after it ceased to.
        let snapshot = self.with_entries(&behind, table);
        self.snapshot.store(Arc::new(snapshot));
        self.drop_missing(&mut behind);
        drop(behind);
        self.publish_status();
        self.version.send_replace(version);
        tracing::info!(version, "route table in force");
    }

    fn dial_workers(self: &Arc<Self>, behind: &mut Behind, table: &Table) {
        for replica in replicas(table) {
            let known = behind.workers.get(&replica.worker_id);
            if known.is_some_and(|worker| worker.data_addr == replica.data_addr) {
                continue;
            }
            let worker = Worker::new(&replica.worker_id, &replica.data_addr, &self.workers_stop);
            let worker = Arc::new(worker);
            let core = Arc::clone(self);
            let on_change = move |worker: &Arc<Worker>, up| core.set_reachable(worker, up);
            self.workers_tasks.spawn(run_worker(
                Arc::clone(&worker),
                self.credentials.clone(),
                on_change,
            ));
            if let Some(moved) = behind.workers.insert(replica.worker_id.clone(), worker) {
                moved.retired.cancel();
            }
        }
    }

    fn update_deployments(&self, behind: &mut Behind, table: &Table) {
        let share = Share::of(&table.routers, &self.handle);
        for application in &table.applications {
            for source in &application.deployments {
                let key = (application.name.clone(), source.name.clone());
                let new = || {
                    let waiting = Arc::clone(&self.waiting);
                    Arc::new(Deployment::new(&key.0, &key.1, &self.handle, waiting))
                };
                let known = behind.deployments.get(&key).cloned();
                let deployment = known.unwrap_or_else(new);
                let workers = &behind.workers;
                deployment.update(source, share, || targets(source, workers, &deployment));
                behind.deployments.insert(key, deployment);
            }
        }
    }

    fn with_entries(&self, behind: &Behind, table: Table) -> Snapshot {
        let entry = |route: &crate::table::Route| {
            let key = (route.application.clone(), route.deployment.clone());
            let ingress = if route.is_grpc {
                Ingress::Grpc
            } else {
                Ingress::Http
            };
            Some(Arc::new(RouteEntry {
                route: route.clone(),
                deployment: Arc::clone(behind.deployments.get(&key)?),
                metrics: RouteMetrics::new(ingress, route, &self.handle),
                ranking: table.queueing(route).map(Ranking::of),
            }))
        };
        // `Table` only has routes to deployments that it describes, so none is left out here.
        let entries = table.routes.iter().filter_map(entry).collect();
        Snapshot { table, entries }
    }

    fn drop_missing(&self, behind: &mut Behind) {
        let snapshot = self.snapshot.load();
        let table = &snapshot.table;
        let named: HashSet<&str> = replicas(table).map(|r| r.worker_id.as_str()).collect();
        behind.workers.retain(|id, worker| {
            let stays = named.contains(id.as_str());
            if !stays {
                worker.retired.cancel();
            }
            stays
        });
        behind
            .deployments
            .retain(|(application, name), deployment| {
                let mut all = table.applications.iter();
                let stays = all.any(|a| {
                    a.name == *application && a.deployments.iter().any(|d| d.name == *name)
                });
                if !stays {
                    deployment.delete();
                }
                stays
            });
    }

    /// A connection came up or broke. Takes the same lock as a new table, so neither misses the
    /// other.
    fn set_reachable(&self, worker: &Arc<Worker>, reachable: bool) {
        let behind = lock(&self.behind);
        for deployment in behind.deployments.values() {
            deployment.set_reachable(worker, reachable);
        }
    }

    /// Load of every deployment, in the order of names; publishes it as metrics too.
    pub fn loads(&self) -> Vec<v1::DeploymentLoad> {
        self.http.publish();
        self.grpc.publish();
        let behind = lock(&self.behind);
        let deployments = behind.deployments.values();
        deployments.map(|deployment| deployment.load()).collect()
    }

    /// How versions that share a deployment's requests answered so far.
    pub fn answers(&self) -> Vec<v1::VersionAnswers> {
        let behind = lock(&self.behind);
        let deployments = behind.deployments.values();
        deployments
            .flat_map(|deployment| deployment.answers())
            .collect()
    }

    /// From now on the router says that it is going away.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.publish_status();
        // Health and session look again.
        self.version.send_modify(|_| {});
    }

    /// Notes how long it took to drain.
    pub fn record_shutdown(&self, took: Duration) {
        self.shutdown.record(milliseconds(took));
    }

    /// Whether it is.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn publish_status(&self) {
        let has_table = self.snapshot.load().table.version > 0;
        self.status.set(match (self.is_draining(), has_table) {
            (true, _) => DRAINING,
            (false, true) => HEALTHY,
            (false, false) => STARTING,
        });
    }
}

const STARTING: f64 = 1.0;
const HEALTHY: f64 = 2.0;
const DRAINING: f64 = 4.0;

fn replicas(table: &Table) -> impl Iterator<Item = &v1::TableReplica> {
    let deployments = table.applications.iter().flat_map(|a| &a.deployments);
    deployments.flat_map(|deployment| &deployment.replicas)
}

fn targets(
    source: &v1::TableDeployment,
    workers: &HashMap<String, Arc<Worker>>,
    deployment: &Deployment,
) -> Vec<Wanted<Arc<Target>>> {
    let canary = source.canary.as_ref();
    let target = |replica: &v1::TableReplica| {
        let worker = Arc::clone(workers.get(&replica.worker_id)?);
        let version = &replica.code_version;
        let is_canary = canary.is_some_and(|share| share.code_version == *version);
        let answers = canary.map(|_| deployment.answers_of(version));
        Some(Wanted {
            id: replica.replica_id.clone(),
            reachable: worker.is_reachable(),
            target: Arc::new(Target::new(
                &replica.replica_id,
                worker,
                &deployment.metrics,
                answers,
            )),
            side: if is_canary {
                Side::Canary
            } else {
                Side::Stable
            },
            ongoing_max: Some(replica.max_ongoing_requests).filter(|max| *max > 0),
        })
    };
    source.replicas.iter().filter_map(target).collect()
}

// === impl RouteEntry ===

impl RouteEntry {
    /// What a request with these headers asks of the queue.
    pub fn wish(&self, affinity: Option<Affinity>, headers: &HeaderMap) -> Wish {
        let ranking = self.ranking.as_ref();
        let rank = ranking.map(|ranking| ranking.rank(headers));
        Wish {
            affinity,
            rank: rank.unwrap_or_default(),
        }
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// What is behind a route.
    pub fn entry(&self, id: RouteId) -> Option<&Arc<RouteEntry>> {
        self.entries.get(id)
    }
}

// === impl Ongoing ===

impl Ongoing {
    fn new(gauge: Gauge) -> Ongoing {
        Ongoing {
            count: AtomicUsize::new(0),
            gauge,
        }
    }

    /// One more.
    pub fn begin(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub fn end(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    #[expect(clippy::cast_precision_loss, reason = "a count of requests")]
    fn publish(&self) {
        self.gauge.set(self.count.load(Ordering::Relaxed) as f64);
    }
}
