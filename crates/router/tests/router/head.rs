//! A head that hands out the table that the test says, and keeps every report.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use mobula_process::net::{self, Addr};
use mobula_proto::v1;
use mobula_proto::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

pub struct Head {
    pub addr: Addr,
    tables: watch::Sender<v1::RouteTable>,
    reports: watch::Receiver<v1::RouterReport>,
    stop: CancellationToken,
}

impl Head {
    pub async fn start(dir: &std::path::Path, table: v1::RouteTable) -> Head {
        let addr = Addr::Unix(dir.join("head.sock"));
        let listener = net::listen(&addr).await.unwrap();
        let tables = watch::Sender::new(table);
        let (reported, reports) = watch::channel(v1::RouterReport::default());
        let service = Service {
            tables: tables.subscribe(),
            reported: Arc::new(reported),
            stop: CancellationToken::new(),
        };
        let stop = service.stop.clone();
        let server = tonic::transport::Server::builder()
            .add_service(ClusterServiceServer::new(service))
            .serve_with_incoming_shutdown(listener.into_incoming(), stop.clone().cancelled_owned());
        tokio::spawn(server);
        Head {
            addr,
            tables,
            reports,
            stop,
        }
    }

    /// Hands out another table, with the next version, and waits until it is in force.
    pub async fn set(&self, change: impl FnOnce(&mut v1::RouteTable)) {
        let mut version = 0;
        self.tables.send_modify(|table| {
            change(table);
            table.version += 1;
            version = table.version;
        });
        self.reported(|report| report.table_version == version)
            .await;
    }

    /// Waits for a report.
    pub async fn reported(
        &self,
        wanted: impl FnMut(&v1::RouterReport) -> bool,
    ) -> v1::RouterReport {
        let mut reports = self.reports.clone();
        reports.wait_for(wanted).await.unwrap().clone()
    }

    /// Breaks every session and listens no more.
    pub fn kill(&self) {
        self.stop.cancel();
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Service {
    tables: watch::Receiver<v1::RouteTable>,
    reported: Arc<watch::Sender<v1::RouterReport>>,
    stop: CancellationToken,
}

type Stop<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ClusterService for Service {
    type WorkerSessionStream = Stop<v1::WorkerAssignment>;
    type RouterSessionStream = Stop<v1::RouteTable>;

    async fn worker_session(
        &self,
        _: Request<Streaming<v1::WorkerReport>>,
    ) -> Result<Response<Self::WorkerSessionStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn router_session(
        &self,
        request: Request<Streaming<v1::RouterReport>>,
    ) -> Result<Response<Self::RouterSessionStream>, Status> {
        let mut reports = request.into_inner();
        let reported = Arc::clone(&self.reported);
        tokio::spawn(async move {
            while let Ok(Some(report)) = reports.message().await {
                reported.send_replace(report);
            }
        });
        let tables = WatchStream::new(self.tables.clone()).map(Ok);
        let stop = self.stop.clone().cancelled_owned();
        let until = futures_util::StreamExt::take_until(tables, stop);
        Ok(Response::new(Box::pin(until)))
    }
}
