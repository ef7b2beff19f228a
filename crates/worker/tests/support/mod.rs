//! What the tests of a whole worker need: a head and a router that speak the real protocol, and an
//! application whose replicas do what the path says.

#![allow(dead_code, unused_imports, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that cannot go on fails its test"
)]

mod app;
mod head;
mod router;

pub use app::{App, Probe};
pub use head::Head;
pub use router::{Answer, Exchange, Router, WINDOW, call};

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use mobula_process::ids;
use mobula_process::metrics::MetricsHandle;
use mobula_process::net::Addr;
use mobula_proto::v1::{AssignedReplica, ReplicaReport, ReplicaState, Resources, WorkerAssignment};
use mobula_worker::{WorkerConfig, WorkerError};
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Nothing in these tests takes this long; a wait that does has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One recorder for the process, and so for all workers of a test file.
static METRICS: LazyLock<MetricsHandle> =
    LazyLock::new(|| mobula_process::metrics::install(&[]).unwrap());

/// Waits for something that has to happen.
pub async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, happens)
        .await
        .unwrap_or_else(|_| panic!("never happened: {what}"))
}

/// A runtime of one thread, and of one more for `spawn_blocking`. It is never shut down: a test
/// that fails has blocked it.
pub fn one_thread() -> Handle {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    Box::leak(Box::new(runtime)).handle().clone()
}

/// A worker with its head, in one process.
pub struct House {
    pub head: Head,
    pub probe: std::sync::Arc<Probe>,
    pub shutdown: CancellationToken,
    pub data_addr: Addr,
    pub worker: JoinHandle<Result<(), WorkerError>>,
    version: u64,
    _dir: tempfile::TempDir,
}

impl House {
    pub async fn start() -> House {
        House::start_on(Handle::current()).await
    }

    /// With replicas on a runtime of their own.
    pub async fn start_on(replicas_on: Handle) -> House {
        let dir = tempfile::tempdir().unwrap();
        let head = Head::start(&Addr::Unix(dir.path().join("head.sock"))).await;
        let data_addr = Addr::Unix(dir.path().join("worker.sock"));
        let app = App::default();
        let probe = app.probe.clone();
        let shutdown = CancellationToken::new();
        let config = WorkerConfig {
            head: vec![head.addr.clone()],
            data_addr: data_addr.clone(),
            advertise_addr: None,
            credentials: Default::default(),
            readiness: Default::default(),
            worker_id: ids::hex56(),
            node_id: ids::node_id(),
            node_ip: "127.0.0.1".to_owned(),
            capacity: Resources {
                cpus: 2.0,
                gpus: 2.0,
                ..Resources::default()
            },
            labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
            registry: app.registry(),
            env: BTreeMap::from([("GREETING".to_owned(), "process".to_owned())]),
            metrics: METRICS.clone(),
            replicas_on,
            shutdown: shutdown.clone(),
        };
        let worker = tokio::spawn(mobula_worker::run(config));
        House {
            head,
            probe,
            shutdown,
            data_addr,
            worker,
            version: 0,
            _dir: dir,
        }
    }

    /// A house with one running replica "r1" of the deployment "Echo".
    pub async fn with_echo(max_ongoing_requests: u32) -> House {
        let mut house = House::start().await;
        house
            .assign(vec![AssignedReplica {
                max_ongoing_requests,
                ..replica("r1", "Echo")
            }])
            .await;
        house.reaches("r1", ReplicaState::Running).await;
        house
    }

    pub async fn assign(&mut self, replicas: Vec<AssignedReplica>) -> u64 {
        self.version += 1;
        self.head.assign(WorkerAssignment {
            version: self.version,
            replicas,
            retire: false,
        });
        self.version
    }

    pub async fn retire(&mut self) {
        self.version += 1;
        self.head.assign(WorkerAssignment {
            version: self.version,
            replicas: Vec::new(),
            retire: true,
        });
    }

    /// Waits until the worker reports that state of the replica.
    pub async fn reaches(&self, id: &str, state: ReplicaState) -> ReplicaReport {
        let what = format!("{id} reports {state:?}");
        let found = self.head.report_where(|report| {
            report
                .replicas
                .iter()
                .find(|replica| replica.replica_id == id && replica.state() == state)
                .cloned()
        });
        soon(&what, found).await
    }

    pub async fn router(&self) -> Router {
        Router::connect(&self.data_addr).await
    }

    pub async fn ends(self) -> Result<(), WorkerError> {
        soon("the worker ends", self.worker).await.unwrap()
    }
}

/// An assignment with limits that keep tests short.
pub fn replica(id: &str, deployment: &str) -> AssignedReplica {
    AssignedReplica {
        replica_id: id.to_owned(),
        application: "app".to_owned(),
        deployment: deployment.to_owned(),
        import_path: "test:app".to_owned(),
        args_json: r#"{"size": 3}"#.to_owned(),
        env_vars: [("GREETING".to_owned(), "config".to_owned())].into(),
        code_version: "v1".to_owned(),
        user_config_json: None,
        config_version: "c1".to_owned(),
        max_ongoing_requests: 100,
        num_cpus: 1.0,
        graceful_shutdown_timeout_s: 10.0,
        health_check_period_s: 10.0,
        health_check_timeout_s: 5.0,
        route_prefix: "/".to_owned(),
        num_gpus: 0.0,
    }
}
