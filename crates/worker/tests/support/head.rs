//! A head that says what the test tells it to, and remembers what workers report.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use mobula_process::net::{self, Addr};
use mobula_proto::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use mobula_proto::v1::{RouteTable, RouterReport, WorkerAssignment, WorkerReport};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

pub struct Head {
    pub addr: Addr,
    assignment: watch::Sender<Option<WorkerAssignment>>,
    reports: watch::Receiver<Vec<WorkerReport>>,
    keep: Arc<watch::Sender<Vec<WorkerReport>>>,
    server: JoinHandle<()>,
}

struct Service {
    assignment: watch::Receiver<Option<WorkerAssignment>>,
    reports: Arc<watch::Sender<Vec<WorkerReport>>>,
    dead: CancellationToken,
}

impl Head {
    pub async fn start(addr: &Addr) -> Head {
        let assignment = watch::Sender::new(None);
        let (keep, reports) = watch::channel(Vec::new());
        let keep = Arc::new(keep);
        let server = serve(addr, &assignment, &keep).await;
        Head {
            addr: addr.clone(),
            assignment,
            reports,
            keep,
            server,
        }
    }

    /// The head dies: its connections break and its address is free.
    pub async fn kill(&mut self) {
        self.server.abort();
        let _ = (&mut self.server).await;
    }

    /// Another head comes up at the same address; it knows nothing of before.
    pub async fn restart(&mut self) {
        self.assignment = watch::Sender::new(None);
        self.keep.send_replace(Vec::new());
        self.server = serve(&self.addr, &self.assignment, &self.keep).await;
    }

    pub fn assign(&self, assignment: WorkerAssignment) {
        self.assignment.send_replace(Some(assignment));
    }

    /// Every report so far, the newest last.
    pub fn reports(&self) -> Vec<WorkerReport> {
        self.reports.borrow().clone()
    }

    /// The first report, old or new, in which `find` finds something.
    pub async fn report_where<T>(&self, find: impl Fn(&WorkerReport) -> Option<T>) -> T {
        let mut reports = self.reports.clone();
        loop {
            let found = reports.borrow_and_update().iter().rev().find_map(&find);
            if let Some(found) = found {
                return found;
            }
            reports.changed().await.unwrap();
        }
    }

    /// Waits until the newest report satisfies `holds`.
    pub async fn newest_is(&self, holds: impl Fn(&WorkerReport) -> bool) {
        let mut reports = self.reports.clone();
        let newest = reports.wait_for(|reports| reports.last().is_some_and(&holds));
        newest.await.unwrap();
    }
}

async fn serve(
    addr: &Addr,
    assignment: &watch::Sender<Option<WorkerAssignment>>,
    reports: &Arc<watch::Sender<Vec<WorkerReport>>>,
) -> JoinHandle<()> {
    let listener = net::listen(addr).await.unwrap();
    let alive = CancellationToken::new();
    let service = Service {
        assignment: assignment.subscribe(),
        reports: reports.clone(),
        dead: alive.clone(),
    };
    // Connections are tasks of their own: they have to be told when the server is aborted.
    let dies = alive.drop_guard();
    let incoming = Box::pin(listener.into_incoming());
    tokio::spawn(async move {
        let _dies = dies;
        let _ = tonic::transport::Server::builder()
            .add_service(ClusterServiceServer::new(service))
            .serve_with_incoming(incoming)
            .await;
    })
}

type Incoming<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ClusterService for Service {
    type WorkerSessionStream = Incoming<WorkerAssignment>;
    type RouterSessionStream = Incoming<RouteTable>;

    async fn worker_session(
        &self,
        request: Request<Streaming<WorkerReport>>,
    ) -> Result<Response<Incoming<WorkerAssignment>>, Status> {
        let mut incoming = request.into_inner();
        let (reports, dead) = (self.reports.clone(), self.dead.clone());
        tokio::spawn(dead.run_until_cancelled_owned(async move {
            while let Ok(Some(report)) = incoming.message().await {
                reports.send_modify(|reports| reports.push(report));
            }
        }));
        let assignments = WatchStream::new(self.assignment.clone())
            .filter_map(|assignment| async move { assignment.map(Ok) })
            .take_until(self.dead.clone().cancelled_owned());
        Ok(Response::new(Box::pin(assignments)))
    }

    async fn router_session(
        &self,
        _request: Request<Streaming<RouterReport>>,
    ) -> Result<Response<Incoming<RouteTable>>, Status> {
        Err(Status::unimplemented("no routers in these tests"))
    }
}
