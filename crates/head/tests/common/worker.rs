//! A worker that runs nothing, and says that it does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mobula_process::net::{Addr, connect, listen};
use mobula_proto::v1;
use mobula_proto::v1::cluster_service_client::ClusterServiceClient;
use mobula_proto::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Says why a replica does not start; None: it does.
pub type Verdict = Arc<dyn Fn(&v1::AssignedReplica) -> Option<String> + Send + Sync>;

/// A worker that goes on while heads come and go.
pub struct FakeWorker {
    pub id: String,
    pub seen: watch::Receiver<v1::WorkerAssignment>,
    /// From now on the health checks of replicas fail whose environment has `SICKLY`.
    pub flu: Arc<AtomicBool>,
    task: JoinHandle<()>,
    server: JoinHandle<()>,
}

struct Inside {
    id: String,
    head: Addr,
    data_addr: Addr,
    cpus: f64,
    verdict: Verdict,
    flu: Arc<AtomicBool>,
    version: u64,
    replicas: BTreeMap<String, (v1::AssignedReplica, v1::ReplicaState, String)>,
    seen: watch::Sender<v1::WorkerAssignment>,
}

pub fn starts_all() -> Verdict {
    Arc::new(|_| None)
}

impl FakeWorker {
    pub async fn start(head: &super::Head, cpus: f64, verdict: Verdict) -> FakeWorker {
        let id = mobula_process::ids::hex56();
        let data_addr = Addr::Unix(head.dir.path().join(format!("{}.sock", &id[..8])));
        let listener = listen(&data_addr).await.unwrap();
        let server = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(WorkerServiceServer::new(OnlyMetrics))
                .serve_with_incoming(listener.into_incoming())
                .await
                .unwrap();
        });
        let seen = watch::Sender::new(v1::WorkerAssignment::default());
        let receiver = seen.subscribe();
        let flu = Arc::new(AtomicBool::new(false));
        let inside = Inside {
            flu: flu.clone(),
            id: id.clone(),
            head: head.cluster.clone(),
            data_addr,
            cpus,
            verdict,
            version: 0,
            replicas: BTreeMap::new(),
            seen,
        };
        let task = tokio::spawn(inside.run());
        FakeWorker {
            id,
            seen: receiver,
            flu,
            task,
            server,
        }
    }

    /// The process is gone.
    pub fn kill(self) {
        self.task.abort();
        self.server.abort();
    }
}

impl Inside {
    async fn run(mut self) {
        loop {
            if let Ok(channel) = connect(&self.head).await {
                let _ = self.session(ClusterServiceClient::new(channel)).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn session(
        &mut self,
        mut client: ClusterServiceClient<tonic::transport::Channel>,
    ) -> Result<(), Status> {
        let (reports, outgoing) = mpsc::channel(4);
        let _ = reports.send(self.report()).await;
        let mut assignments = client
            .worker_session(ReceiverStream::new(outgoing))
            .await?
            .into_inner();
        let mut heartbeat = tokio::time::interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                assignment = assignments.message() => match assignment? {
                    Some(assignment) => self.take(assignment),
                    None => return Ok(()),
                },
                _ = heartbeat.tick() => {}
            }
            let _ = reports.send(self.report()).await;
            self.replicas
                .retain(|_, (_, state, _)| *state != v1::ReplicaState::Stopped);
            if self.progress() {
                let _ = reports.send(self.report()).await;
            }
        }
    }

    fn take(&mut self, assignment: v1::WorkerAssignment) {
        assert!(assignment.version > self.version, "versions only grow");
        self.version = assignment.version;
        for (id, (_, state, _)) in &mut self.replicas {
            if !assignment
                .replicas
                .iter()
                .any(|replica| replica.replica_id == *id)
            {
                *state = v1::ReplicaState::Stopped;
            }
        }
        for replica in &assignment.replicas {
            let entry = self
                .replicas
                .entry(replica.replica_id.clone())
                .or_insert_with(|| (replica.clone(), v1::ReplicaState::Starting, String::new()));
            entry.0 = replica.clone();
        }
        self.seen.send_replace(assignment);
    }

    fn progress(&mut self) -> bool {
        let mut changed = false;
        for (replica, state, message) in self.replicas.values_mut() {
            if *state == v1::ReplicaState::Starting {
                changed = true;
                match (self.verdict)(replica) {
                    None => *state = v1::ReplicaState::Running,
                    Some(why) => {
                        *state = v1::ReplicaState::Failed;
                        *message = why;
                    }
                }
            }
            let falls_ill = self.flu.load(Ordering::Relaxed)
                && *state == v1::ReplicaState::Running
                && replica.env_vars.contains_key("SICKLY");
            if falls_ill {
                changed = true;
                *state = v1::ReplicaState::Unhealthy;
                *message = "the model answers nonsense".to_owned();
            }
        }
        changed
    }

    fn report(&self) -> v1::WorkerReport {
        v1::WorkerReport {
            worker_id: self.id.clone(),
            node_id: "a".repeat(56),
            node_ip: "127.0.0.1".to_owned(),
            pid: 4_000_000,
            data_addr: self.data_addr.to_string(),
            capacity: Some(v1::Resources {
                cpus: self.cpus,
                ..v1::Resources::default()
            }),
            labels: Default::default(),
            runtime_version: "test".to_owned(),
            assignment_version: self.version,
            draining: false,
            replicas: self
                .replicas
                .values()
                .map(|(replica, state, message)| v1::ReplicaReport {
                    replica_id: replica.replica_id.clone(),
                    application: replica.application.clone(),
                    deployment: replica.deployment.clone(),
                    code_version: replica.code_version.clone(),
                    config_version: replica.config_version.clone(),
                    state: (*state).into(),
                    message: message.clone(),
                    start_time_s: 1.5,
                    ongoing_requests: 0,
                })
                .collect(),
        }
    }
}

struct OnlyMetrics;

#[tonic::async_trait]
impl WorkerService for OnlyMetrics {
    type ExchangeStream = ReceiverStream<Result<v1::FrameBatch, Status>>;

    async fn exchange(
        &self,
        _request: Request<Streaming<v1::FrameBatch>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        Err(Status::unimplemented("a fake worker answers nothing"))
    }

    async fn metrics(
        &self,
        _request: Request<v1::MetricsRequest>,
    ) -> Result<Response<v1::MetricsReply>, Status> {
        let text = "# TYPE fake_worker_series counter\nfake_worker_series 3\n".to_owned();
        Ok(Response::new(v1::MetricsReply { text }))
    }
}
