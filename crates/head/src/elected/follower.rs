//! What a head does while another one leads: answers for its own health, sends everything else
//! to the leader.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use http::{Request, Uri};
use hyper::body::Incoming;
use mobula_process::metrics::MetricsHandle;
use mobula_proto::encoded::EncodedTable;
use mobula_proto::head::cluster_service_server::{ClusterService, ClusterServiceServer};
use mobula_proto::v1;
use mobula_store::{Election, Leader, StoreError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::Empty;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, Streaming};
use tracing::warn;

use super::contact::{Contact, watch_store};
use super::forward::Forward;
use super::{ElectedConfig, clone_of};
use crate::admin::reply::{Reply, text_reply};
use crate::admin::{self, Answer, dashboard, unavailable};
use crate::error::HeadError;

/// The pause before the store is asked again who leads.
const WATCH_RETRY: Duration = Duration::from_millis(500);

/// A head that has just started learns in a moment who leads, and a lead that is handed over is
/// taken in a moment: requests wait so long for it. Less than `STOP_SECONDS_MAX`, so that they
/// are answered if it is this head that takes it.
const LEADER_WAIT_MAX: Duration = Duration::from_millis(750);

/// Connections end within this time when this head starts to lead.
const STOP_SECONDS_MAX: Duration = Duration::from_secs(1);

/// The tasks of a head that follows.
pub(super) struct Follower {
    ending: CancellationToken,
    watching: JoinHandle<()>,
    asking: JoinHandle<StoreError>,
    contact: watch::Receiver<Contact>,
    serving: Vec<JoinHandle<()>>,
}

// === impl Follower ===

impl Follower {
    /// `reached` says that the store has answered this process before.
    pub(super) fn start(config: &ElectedConfig, reached: bool) -> Result<Follower, HeadError> {
        let ending = CancellationToken::new();
        let (asked, contact) = watch::channel(Contact::Unknown);
        let asking = tokio::spawn(watch_store(Arc::clone(&config.election), reached, asked));
        let (known, leader) = watch::channel(None);
        let watching = tokio::spawn(watch_leader(Arc::clone(&config.election), known));
        let admin = FollowerAdmin {
            name: config.candidate.name.clone(),
            leader: leader.clone(),
            contact: contact.clone(),
            forward: Forward::new(config.admin_trust.clone()),
            metrics: config.metrics.clone(),
        };
        let port = admin::Port {
            listener: clone_of(&config.admin_listener)?,
            https: config.admin_https.clone(),
        };
        let admin = tokio::spawn(admin::serve(admin, port, ending.clone()));
        let cluster = send_away(config, leader, ending.clone())?;
        Ok(Follower {
            ending,
            watching,
            asking,
            contact,
            serving: vec![admin, cluster],
        })
    }

    /// What is known of the store.
    pub(super) fn contact(&self) -> watch::Receiver<Contact> {
        self.contact.clone()
    }

    /// Waits until the store refuses this process for good; usually for ever.
    pub(super) async fn refused(&mut self) -> HeadError {
        match (&mut self.asking).await {
            Ok(error) => HeadError::Store(error),
            Err(error) => HeadError::Cluster(format!("a task failed: {error}")),
        }
    }

    /// Closes what is open; the listening sockets live on in their originals.
    pub(super) async fn stop(self) {
        self.ending.cancel();
        self.watching.abort();
        self.asking.abort();
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
    let credentials = &config.credentials;
    let service = ClusterServiceServer::new(NotLeading { leader });
    let serving = tonic::transport::Server::builder()
        .add_service(credentials.guard(service))
        .serve_with_incoming_shutdown(credentials.incoming(listener), ending.cancelled_owned());
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
    type RouterSessionStream = Empty<Result<EncodedTable, Status>>;

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
    /// This head's, among the candidates.
    name: String,
    contact: watch::Receiver<Contact>,
    leader: watch::Receiver<Option<Leader>>,
    forward: Forward,
    metrics: MetricsHandle,
}

impl FollowerAdmin {
    /// Who leads, if anybody is known to.
    fn other_leader(&self) -> Option<Leader> {
        let leader = self.leader.borrow().clone();
        leader.filter(|leader| self.is_other(leader))
    }

    /// The same, after a while if need be.
    async fn awaited_leader(&self) -> Option<Leader> {
        let mut leaders = self.leader.clone();
        let known = leaders.wait_for(|leader| leader.as_ref().is_some_and(|l| self.is_other(l)));
        match tokio::time::timeout(LEADER_WAIT_MAX, known).await {
            Ok(Ok(leader)) => leader.clone(),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// What was this head's own is over, whatever the store said of it last.
    fn is_other(&self, leader: &Leader) -> bool {
        leader.candidate.name != self.name
    }
}

impl Answer for FollowerAdmin {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let path = request.uri().path();
        if let Some(page) = dashboard::of_follower(request.method(), path, request.headers()) {
            return page;
        }
        let leader = match request.uri().path() {
            "/livez" => return text_reply(200, "ok"),
            "/metrics" => return text_reply(200, self.metrics.render()),
            "/readyz" => self.other_leader(),
            _ => self.awaited_leader().await,
        };
        let contact = self.contact.borrow().clone();
        match (request.uri().path(), leader, &contact) {
            ("/readyz", Some(_), Contact::Good) => text_reply(200, "ok"),
            ("/readyz", Some(_), Contact::Away(why)) => text_reply(503, why.clone()),
            (path, None, contact) | (path @ "/readyz", _, contact) => {
                unavailable(path, &contact.nobody_leads())
            }
            (_, Some(leader), _) => match leader.candidate.address.parse::<Uri>() {
                Ok(base) => self.forward.send(&base, request).await,
                Err(_) => unavailable(request.uri().path(), "the leader's address cannot be used"),
            },
        }
    }
}
