//! What a hop through the router costs: a router, a head that hands out one table, and a worker
//! that answers every call with 20 bytes, to be asked with a load generator.
//!
//! ```text
//! noop worker unix:/tmp/noop/w.sock
//! noop router unix:/tmp/noop/w.sock 18000
//! wrk -t1 -c32 -d10s http://127.0.0.1:18000/
//! ```
#![allow(clippy::unwrap_used, reason = "a tool for the command line")]

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use mobula_process::net::{self, Addr};
use mobula_process::{ids, metrics};
use mobula_proto::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use mobula_proto::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use mobula_proto::v1::{self, frame::Kind};
use mobula_router::{RouterConfig, RouterLimits};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let (role, addr) = (args.next().unwrap(), args.next().unwrap());
    match role.as_str() {
        "worker" => worker(addr.parse().unwrap()).await,
        "router" => router(addr, args.next().unwrap().parse().unwrap()).await,
        other => panic!("no role '{other}'"),
    }
}

async fn worker(addr: Addr) {
    let listener = net::listen(&addr).await.unwrap();
    Server::builder()
        .initial_stream_window_size(net::HTTP2_WINDOW_BYTES)
        .initial_connection_window_size(net::HTTP2_WINDOW_BYTES)
        .add_service(WorkerServiceServer::new(Noop))
        .serve_with_incoming(listener.into_incoming())
        .await
        .unwrap();
}

async fn router(worker: String, port: u32) {
    let _metrics = metrics::install(&[]).unwrap();
    let head: Addr = format!("{worker}.head").parse().unwrap();
    let listener = net::listen(&head).await.unwrap();
    let server = Server::builder()
        .add_service(ClusterServiceServer::new(OneTable(table(worker, port))))
        .serve_with_incoming(listener.into_incoming());
    tokio::spawn(server);
    mobula_router::run(RouterConfig {
        head: vec![head],
        credentials: Default::default(),
        http_addr: None,
        grpc_addr: None,
        readiness: Default::default(),
        router_id: ids::hex56(),
        node_id: ids::node_id(),
        node_ip: "127.0.0.1".to_owned(),
        descriptor_sets: Vec::new(),
        shutdown: CancellationToken::new(),
        limits: RouterLimits::default(),
    })
    .await
    .unwrap();
}

fn table(data_addr: String, http_port: u32) -> v1::RouteTable {
    let replica = v1::TableReplica {
        replica_id: "r1".to_owned(),
        worker_id: "w1".to_owned(),
        node_id: String::new(),
        data_addr,
        ..Default::default()
    };
    let deployment = v1::TableDeployment {
        name: "Noop".to_owned(),
        max_ongoing_requests: 1000,
        max_queued_requests: -1,
        backpressure_status_code: 503,
        replicas: vec![replica],
        ..Default::default()
    };
    v1::RouteTable {
        routers: Vec::new(),
        version: 1,
        ingress: Some(v1::Ingress {
            http_host: "127.0.0.1".to_owned(),
            http_port,
            ..Default::default()
        }),
        applications: vec![v1::TableApplication {
            name: "noop".to_owned(),
            route_prefix: Some("/".to_owned()),
            ingress_deployment: "Noop".to_owned(),
            running: true,
            deployments: vec![deployment],
            ..Default::default()
        }],
    }
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Noop;

#[tonic::async_trait]
impl WorkerService for Noop {
    type ExchangeStream = Boxed<v1::FrameBatch>;

    async fn exchange(
        &self,
        request: Request<Streaming<v1::FrameBatch>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let answers = request.into_inner().map(|batch| {
            batch.map(|batch| v1::FrameBatch {
                frames: batch.frames.into_iter().flat_map(answer).collect(),
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn metrics(
        &self,
        _: Request<v1::MetricsRequest>,
    ) -> Result<Response<v1::MetricsReply>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

fn answer(frame: v1::Frame) -> impl Iterator<Item = v1::Frame> {
    let is_call = matches!(frame.kind, Some(Kind::Call(_)));
    let accepted = Kind::Accepted(v1::Accepted {});
    let reply = Kind::Reply(v1::Reply {
        status: 200,
        headers: vec![v1::Header {
            name: "content-type".to_owned(),
            value: Bytes::from_static(b"text/plain"),
        }],
        body: Bytes::from_static(b"twenty bytes of body"),
        end: true,
        grpc_status: None,
    });
    [accepted, reply]
        .into_iter()
        .filter(move |_| is_call)
        .map(move |kind| v1::Frame {
            request: frame.request,
            kind: Some(kind),
        })
}

struct OneTable(v1::RouteTable);

#[tonic::async_trait]
impl ClusterService for OneTable {
    type WorkerSessionStream = Boxed<v1::WorkerAssignment>;
    type RouterSessionStream = Boxed<v1::RouteTable>;

    async fn worker_session(
        &self,
        _: Request<Streaming<v1::WorkerReport>>,
    ) -> Result<Response<Self::WorkerSessionStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn router_session(
        &self,
        _: Request<Streaming<v1::RouterReport>>,
    ) -> Result<Response<Self::RouterSessionStream>, Status> {
        let table = Ok(self.0.clone());
        let once = futures_util::stream::once(async { table });
        Ok(Response::new(Box::pin(
            once.chain(futures_util::stream::pending()),
        )))
    }
}
