//! What a head does while another one leads: answers for its own health, sends everything else
//! to the leader.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use http::{Request, Uri};
use hyper::body::Incoming;
use mobula_process::metrics::MetricsHandle;
use mobula_proto::v1;
use mobula_proto::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use mobula_store::{Election, Leader};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::Empty;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, Streaming};
use tracing::warn;

use super::forward::Forward;
use super::{ElectedConfig, clone_of};
use crate::admin::reply::{Reply, text_reply};
use crate::admin::{self, Answer};
use crate::error::HeadError;

/// The pause before the store is asked again who leads.
const WATCH_RETRY: Duration = Duration::from_millis(500);

/// Connections end within this time when this head starts to lead.
const STOP_SECONDS_MAX: Duration = Duration::from_secs(1);

/// The tasks of a head that follows.
pub(super) struct Follower {
    ending: CancellationToken,
    watching: JoinHandle<()>,
    serving: Vec<JoinHandle<()>>,
}

// === impl Follower ===

impl Follower {
    pub(super) fn start(config: &ElectedConfig) -> Result<Follower, HeadError> {
        let ending = CancellationToken::new();
        let (known, leader) = watch::channel(None);
        let watching = tokio::spawn(watch_leader(Arc::clone(&config.election), known));
        let admin = FollowerAdmin {
            leader: leader.clone(),
            forward: Forward::new(),
            metrics: config.metrics.clone(),
        };
        let admin_listener = clone_of(&config.admin_listener)?;
        let admin = tokio::spawn(admin::serve(admin, admin_listener, ending.clone()));
        let cluster = send_away(config, leader, ending.clone())?;
        Ok(Follower {
            ending,
            watching,
            serving: vec![admin, cluster],
        })
    }

    /// Closes what is open; the listening sockets live on in their originals.
    pub(super) async fn stop(self) {
        self.ending.cancel();
        self.watching.abort();
        for mut task in self.serving {
            if tokio::time::timeout(STOP_SECONDS_MAX, &mut task)
                .await
                .is_err()
            {
                task.abort();
            }
        }
    }
}

/// Publishes who leads. A store that cannot be asked leaves the last answer standing.
async fn watch_leader(election: Arc<dyn Election>, known: watch::Sender<Option<Leader>>) {
    loop {
        match election.watch_leader().await {
            Ok(mut leaders) => {
                while let Some(Ok(leader)) = leaders.next().await {
                    known.send_replace(leader);
                }
            }
            Err(error) => warn!(%error, "the store does not say who leads"),
        }
        tokio::time::sleep(WATCH_RETRY).await;
    }
}

/// A cluster service that only says where the leader is.
fn send_away(
    config: &ElectedConfig,
    leader: watch::Receiver<Option<Leader>>,
    ending: CancellationToken,
) -> Result<JoinHandle<()>, HeadError> {
    let listener = config.cluster_listener.try_clone()?;
    let mut server = config
        .credentials
        .secure(tonic::transport::Server::builder(), &listener)
        .map_err(|error| HeadError::Cluster(error.to_string()))?;
    let service = ClusterServiceServer::new(NotLeading { leader });
    let serving = server
        .add_service(config.credentials.guard(service))
        .serve_with_incoming_shutdown(listener.into_incoming(), ending.cancelled_owned());
    Ok(tokio::spawn(async move {
        if let Err(error) = serving.await {
            warn!(%error, "the cluster service of a following head failed");
        }
    }))
}

// === impl NotLeading ===

struct NotLeading {
    leader: watch::Receiver<Option<Leader>>,
}

impl NotLeading {
    fn refusal(&self) -> Status {
        match self.leader.borrow().as_ref() {
            Some(leader) => {
                let name = &leader.candidate.name;
                Status::unavailable(format!("this head does not lead, {name} does"))
            }
            None => Status::unavailable("this head does not lead, nobody does yet"),
        }
    }
}

#[tonic::async_trait]
impl ClusterService for NotLeading {
    type WorkerSessionStream = Empty<Result<v1::WorkerAssignment, Status>>;
    type RouterSessionStream = Empty<Result<v1::RouteTable, Status>>;

    async fn worker_session(
        &self,
        _reports: tonic::Request<Streaming<v1::WorkerReport>>,
    ) -> Result<Response<Self::WorkerSessionStream>, Status> {
        Err(self.refusal())
    }

    async fn router_session(
        &self,
        _reports: tonic::Request<Streaming<v1::RouterReport>>,
    ) -> Result<Response<Self::RouterSessionStream>, Status> {
        Err(self.refusal())
    }
}

// === impl FollowerAdmin ===

/// The admin API of a head that follows.
#[derive(Clone)]
struct FollowerAdmin {
    leader: watch::Receiver<Option<Leader>>,
    forward: Forward,
    metrics: MetricsHandle,
}

impl Answer for FollowerAdmin {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let leader = self.leader.borrow().clone();
        match (request.uri().path(), leader) {
            ("/livez", _) => text_reply(200, "ok"),
            ("/metrics", _) => text_reply(200, self.metrics.render()),
            ("/readyz", Some(_)) => text_reply(200, "ok"),
            (_, None) => text_reply(503, "no head leads at the moment; try again"),
            (_, Some(leader)) => match leader.candidate.address.parse::<Uri>() {
                Ok(base) => self.forward.send(&base, request).await,
                Err(_) => text_reply(503, "the leader's address cannot be used"),
            },
        }
    }
}
