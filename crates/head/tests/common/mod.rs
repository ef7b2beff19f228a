//! A head with its real listeners, and workers and routers that speak the real protocol.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

pub mod http;
pub mod router;
pub mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mobula_app::{Application, BuildContext, BuildError, Deployment, Registry};
use mobula_head::provision::{Joining, Notice, ProvisionError, Provisioner, WorkerSet};
use mobula_head::world::supply::Demand;
use mobula_head::{HeadConfig, HeadError, run};
use mobula_process::metrics::detached;
use mobula_process::net::{Addr, Listener, listen};
use mobula_store::StateStore;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything that should happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Head {
    pub admin: std::net::SocketAddr,
    pub cluster: Addr,
    pub dir: Arc<TempDir>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), HeadError>>,
    runtime: Runtime,
}

/// `test:one` has a deployment `D`; `test:two` has `A` and `B`; `test:unbuildable` fails.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.register("test:one", |_: &BuildContext| {
        Ok(Application::single(
            Deployment::without_code("D").option("max_ongoing_requests", 7),
        ))
    });
    registry.register("test:two", |_: &BuildContext| {
        let mut application = Application::single(Deployment::without_code("A"));
        application.deployments.push(Deployment::without_code("B"));
        Ok(application)
    });
    registry.register("test:unbuildable", |context: &BuildContext| {
        assert!(!context.args.contains_key("panic"), "the builder panics");
        Err(BuildError::Invalid("model: no such model".to_owned()))
    });
    registry
}

/// Workers that end with the head, started by the test.
struct Mortal;

#[async_trait]
impl Provisioner for Mortal {
    async fn ensure(&mut self, _wanted: WorkerSet) -> Result<(), ProvisionError> {
        Ok(())
    }

    fn attend(&mut self, _demand: watch::Receiver<Demand>) -> mpsc::Receiver<Notice> {
        mpsc::channel(1).1
    }

    async fn shutdown(&mut self) {}

    fn workers_outlive_head(&self) -> bool {
        false
    }
}

impl Head {
    /// A head whose workers end with it.
    pub async fn start(store: Arc<dyn StateStore>) -> Head {
        let dir = Arc::new(TempDir::new().unwrap());
        Head::start_with(store, dir, Box::new(Mortal)).await
    }

    /// A head at the same place, whose workers outlive it.
    pub async fn start_at(store: Arc<dyn StateStore>, dir: Arc<TempDir>) -> Head {
        Head::start_with(store, dir, Box::new(Joining)).await
    }

    pub async fn start_with(
        store: Arc<dyn StateStore>,
        dir: Arc<TempDir>,
        provisioner: Box<dyn Provisioner>,
    ) -> Head {
        let cluster = Addr::Unix(dir.path().join("head.sock"));
        let shutdown = CancellationToken::new();
        // A runtime of its own, so that a head can end with all its tasks at once.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (address, stop) = (cluster.clone(), shutdown.clone());
        let (bound, admin) = tokio::sync::oneshot::channel();
        let task = runtime.spawn(async move {
            let cluster_listener = bind(&address).await;
            let admin_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            bound.send(admin_listener.local_addr().unwrap()).unwrap();
            run(HeadConfig {
                registry: registry(),
                env: BTreeMap::new(),
                store,
                provisioner,
                workers: WorkerSet { workers: 1 },
                admin_listener,
                admin_https: None,
                cluster_listener,
                credentials: Default::default(),
                admin_token: None,
                node_id: "a".repeat(56),
                node_ip: "127.0.0.1".to_owned(),
                metrics: detached(&[]).unwrap(),
                ray_version: "2.60.0".to_owned(),
                router_here: false,
                shutdown: stop,
            })
            .await
        });
        let admin = admin.await.unwrap();
        Head {
            admin,
            cluster,
            dir,
            shutdown,
            task,
            runtime,
        }
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
        self.runtime.shutdown_background();
    }

    /// Ends the head without any of its goodbyes.
    pub async fn kill(self) {
        self.runtime.shutdown_background();
        let _ = self.task.await;
    }

    pub async fn get(&self, path: &str) -> http::Answer {
        http::request(self.admin, "GET", path, &[], "").await
    }

    pub async fn put(&self, config: &Value) -> http::Answer {
        self.put_text(&config.to_string()).await
    }

    pub async fn put_text(&self, body: &str) -> http::Answer {
        http::request(self.admin, "PUT", "/api/serve/applications/", &[], body).await
    }

    pub async fn document(&self) -> Value {
        let answer = self.get("/api/serve/applications/").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    /// The document, once it is as `wanted` says.
    pub async fn document_when(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let document = self.document().await;
            if wanted(&document) {
                return document;
            }
            assert!(tokio::time::Instant::now() < deadline, "still {document:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn when_running(&self, app: &str) -> Value {
        self.document_when(|document| document["applications"][app]["status"] == "RUNNING")
            .await
    }
}

/// Replica ids of a deployment, sorted.
pub fn replicas(document: &Value, app: &str, deployment: &str) -> Vec<String> {
    let replicas = &document["applications"][app]["deployments"][deployment]["replicas"];
    let mut ids: Vec<String> = replicas
        .as_array()
        .unwrap()
        .iter()
        .map(|replica| replica["replica_id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

/// A head that was killed a moment ago may not have closed its listener yet.
async fn bind(address: &Addr) -> Listener {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match listen(address).await {
            Ok(listener) => return listener,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
