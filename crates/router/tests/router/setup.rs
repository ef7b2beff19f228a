//! A router between a fake head and fake workers, and a client.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mobula_process::ids;
use mobula_proto::v1;
use mobula_router::{RouterConfig, RouterLimits};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::head::Head;
use crate::worker::{Call, Worker};

/// Nothing in these tests takes this long; a test that hangs fails instead.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct House {
    pub dir: tempfile::TempDir,
    pub head: Head,
    pub http: String,
    pub grpc: String,
    pub shutdown: CancellationToken,
    pub router: JoinHandle<Result<(), mobula_router::RouterError>>,
    pub client: Client<HttpConnector, Full<Bytes>>,
}

/// An application at "/" with one deployment "D", on these replicas.
pub fn table(replicas: Vec<v1::TableReplica>) -> v1::RouteTable {
    let deployment = v1::TableDeployment {
        name: "D".to_owned(),
        max_ongoing_requests: 100,
        max_queued_requests: -1,
        backpressure_status_code: 503,
        backpressure_retry_after_s: None,
        failed: false,
        replicas,
        canary: None,
        queueing: None,
    };
    let application = v1::TableApplication {
        name: "app1".to_owned(),
        route_prefix: Some("/".to_owned()),
        ingress_deployment: "D".to_owned(),
        routes: Vec::new(),
        grpc_routes: vec![v1::GrpcRoute {
            service: "test.S".to_owned(),
            streaming: false,
            method: "Echo".to_owned(),
            deployment: "D".to_owned(),
        }],
        running: true,
        deployments: vec![deployment],
    };
    v1::RouteTable {
        routers: Vec::new(),
        version: 1,
        ingress: Some(ingress()),
        applications: vec![application],
    }
}

pub fn ingress() -> v1::Ingress {
    v1::Ingress {
        http_host: "127.0.0.1".to_owned(),
        http_port: 0,
        root_path: String::new(),
        http_request_timeout_s: None,
        keep_alive_timeout_s: 90.0,
        grpc_port: 0,
        grpc_request_timeout_s: None,
        grpc_reflection: true,
        http_tls: None,
    }
}

/// The only deployment of a table made by [`table`].
pub fn deployment(table: &mut v1::RouteTable) -> &mut v1::TableDeployment {
    &mut table.applications[0].deployments[0]
}

impl House {
    /// A house with one worker "w1", replica "r1", that does to each call what the test says.
    pub async fn with_worker<F, R>(handler: F) -> (House, Worker)
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let dir = tempfile::tempdir().unwrap();
        let worker = Worker::start(dir.path(), "w1", handler).await;
        let house = House::start(dir, table(vec![worker.replica("r1")])).await;
        (house, worker)
    }

    pub async fn start(dir: tempfile::TempDir, table: v1::RouteTable) -> House {
        House::limited(dir, table, RouterLimits::default()).await
    }

    pub async fn limited(
        dir: tempfile::TempDir,
        table: v1::RouteTable,
        limits: RouterLimits,
    ) -> House {
        let head = Head::start(dir.path(), table).await;
        let shutdown = CancellationToken::new();
        let router = tokio::spawn(mobula_router::run(RouterConfig {
            head: vec![head.addr.clone()],
            credentials: Default::default(),
            http_addr: None,
            grpc_addr: None,
            readiness: Default::default(),
            router_id: ids::hex56(),
            node_id: ids::node_id(),
            node_ip: "127.0.0.1".to_owned(),
            descriptor_sets: Vec::new(),
            shutdown: shutdown.clone(),
            limits,
        }));
        let listening = |r: &v1::RouterReport| !r.http_addr.is_empty() && !r.grpc_addr.is_empty();
        let report = within(head.reported(listening)).await;
        House {
            dir,
            head,
            http: format!("http://{}", report.http_addr),
            grpc: format!("http://{}", report.grpc_addr),
            shutdown,
            router,
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    pub fn addr(&self) -> &str {
        self.http.trim_start_matches("http://")
    }

    pub async fn get(&self, path: &str) -> (Response<()>, Bytes) {
        self.send(Request::get(self.url(path)), Bytes::new()).await
    }

    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> (Response<()>, Bytes) {
        self.send(Request::post(self.url(path)), body.into()).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.http)
    }

    pub async fn send(
        &self,
        request: http::request::Builder,
        body: Bytes,
    ) -> (Response<()>, Bytes) {
        let request = request.body(Full::new(body)).unwrap();
        let response = within(self.client.request(request)).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = within(body.collect()).await.unwrap().to_bytes();
        (Response::from_parts(parts, ()), body)
    }

    /// A request that the test waits for later.
    pub fn later(&self, request: Request<Full<Bytes>>) -> JoinHandle<(u16, String, Bytes)> {
        let client = self.client.clone();
        tokio::spawn(async move {
            let response = client.request(request).await.unwrap();
            let status = response.status().as_u16();
            let replica = response.headers().get("x-replica");
            let replica = replica.map_or("", |v| v.to_str().unwrap()).to_owned();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, replica, body)
        })
    }

    pub fn get_later(&self, path: &str) -> JoinHandle<(u16, String, Bytes)> {
        let request = Request::get(self.url(path)).body(Full::default());
        self.later(request.unwrap())
    }

    /// Waits until so many requests wait and run, as reported to the head.
    pub async fn load(&self, queued: u32, ongoing: u32) {
        within(self.head.reported(|report| {
            let load = report.loads.first();
            load.is_some_and(|l| l.queued_requests == queued && l.ongoing_requests == ongoing)
        }))
        .await;
    }
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("this should not take so long")
}
