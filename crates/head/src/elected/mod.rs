//! One of several heads: follows until it is elected, leads until it is not.
//!
//! While another head leads, this one sends admin requests on to it and sends workers and
//! routers away, which then dial the next address. Once elected it is a head like any other
//! ([`crate::run`]), whose writes carry the fence of its leadership: one that was paused and
//! wakes up after the lead was lost cannot write.
//!
//! The sockets stay open across a change of role, so nobody is refused in between.

mod contact;
mod fenced;
mod follower;
mod forward;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mobula_app::Registry;
use mobula_process::access::Credentials;
use mobula_process::client_tls::Trust;
use mobula_process::follow::Current;
use mobula_process::https::Https;
use mobula_process::metrics::MetricsHandle;
use mobula_process::net::Listener;
use mobula_process::token::Token;
use mobula_store::{Candidate, Election, Leadership, StateStore, StoreError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::error::HeadError;
use crate::provision::{Provisioner, WorkerSet};
use crate::{HeadConfig, run};
use contact::Contact;
pub use fenced::FencedStore;
use follower::Follower;

/// The pause before the next try when the store could not be asked who leads.
const CAMPAIGN_RETRY: Duration = Duration::from_millis(500);

/// What a head that stops on purpose may spend on handing over; after it the lease runs out.
const RESIGN_SECONDS_MAX: Duration = Duration::from_secs(2);

/// Makes the provisioner of one leadership.
pub type NewProvisioner = Arc<dyn Fn() -> Box<dyn Provisioner> + Send + Sync>;

/// Everything one of several heads needs from its process.
pub struct ElectedConfig {
    /// Decides who leads.
    pub election: Arc<dyn Election>,
    /// Who this head is; the address is the base URL of its admin API, for the others.
    pub candidate: Candidate,
    /// Where workers come from while this head leads.
    pub provisioner: NewProvisioner,
    /// The applications that are compiled in.
    pub registry: Registry,
    /// The process's environment.
    pub env: BTreeMap<String, String>,
    /// Durable state, shared by all heads.
    pub store: Arc<dyn StateStore>,
    /// The admin API, already bound.
    pub admin_listener: TcpListener,
    /// What it is opened with, where that is TLS.
    pub admin_https: Option<Current<Https>>,
    /// How to believe the head that leads, where its admin API speaks TLS.
    pub admin_trust: Option<Trust>,
    /// Where workers and routers connect, already bound.
    pub cluster_listener: Listener,
    /// What workers and routers have to show.
    pub credentials: Credentials,
    /// What clients of the admin API have to show.
    pub admin_token: Option<Current<Token>>,
    /// 56 hex digits, one per machine.
    pub node_id: String,
    /// The machine's address.
    pub node_ip: String,
    /// This process's recorder.
    pub metrics: MetricsHandle,
    /// The Ray version to be compatible with, "2.60.0".
    pub ray_version: String,
    /// Ends the head when cancelled.
    pub shutdown: CancellationToken,
}

/// Runs one of several heads until `shutdown`. A store that is away is waited for.
///
/// # Errors
/// When the store refuses this process from the start, what is stored cannot be read, or a part
/// of the head fails by itself.
pub async fn run_elected(config: ElectedConfig) -> Result<(), HeadError> {
    let mut reached = false;
    loop {
        let Some(leadership) = follow(&config, reached).await? else {
            info!("the head ended without the lead");
            return Ok(());
        };
        reached = true;
        info!(
            revision = leadership.fence().revision(),
            "this head leads now"
        );
        lead(&config, leadership).await?;
        if config.shutdown.is_cancelled() {
            return Ok(());
        }
        warn!("the lead was lost, following");
    }
}

/// Follows until elected; None: told to end.
async fn follow(config: &ElectedConfig, reached: bool) -> Result<Option<Leadership>, HeadError> {
    let mut follower = Follower::start(config, reached)?;
    let contact = follower.contact();
    let outcome = tokio::select! {
        leadership = campaign(config, contact) => Ok(Some(leadership)),
        error = follower.refused() => Err(error),
        () = config.shutdown.cancelled() => Ok(None),
    };
    follower.stop().await;
    outcome
}

/// Asks for the lead until it is given, once the store answers at all.
async fn campaign(config: &ElectedConfig, mut contact: watch::Receiver<Contact>) -> Leadership {
    // The sender lives as long as the follower, which outlives this.
    let _ = contact.wait_for(|contact| *contact == Contact::Good).await;
    loop {
        match config.election.campaign(config.candidate.clone()).await {
            Ok(leadership) => return leadership,
            Err(error) => {
                warn!(%error, "the election cannot be held");
                tokio::time::sleep(CAMPAIGN_RETRY).await;
            }
        }
    }
}

/// Leads until the lead is lost or the process shall end, in which case it is handed over
/// before anything else: the next head can take over while this one still closes its sockets.
async fn lead(config: &ElectedConfig, leadership: Leadership) -> Result<(), HeadError> {
    let ending = leadership.lost();
    let head = run(HeadConfig {
        registry: config.registry.clone(),
        env: config.env.clone(),
        store: Arc::new(FencedStore::new(
            Arc::clone(&config.store),
            leadership.fence().clone(),
        )),
        provisioner: (config.provisioner)(),
        workers: WorkerSet { workers: 0 },
        admin_listener: clone_of(&config.admin_listener)?,
        admin_https: config.admin_https.clone(),
        cluster_listener: config.cluster_listener.try_clone()?,
        credentials: config.credentials.clone(),
        admin_token: config.admin_token.clone(),
        node_id: config.node_id.clone(),
        node_ip: config.node_ip.clone(),
        metrics: config.metrics.clone(),
        ray_version: config.ray_version.clone(),
        router_here: false,
        shutdown: ending.clone(),
    });
    tokio::pin!(head);
    tokio::select! {
        ended = &mut head => return unless_lost(ended, &ending),
        () = config.shutdown.cancelled() => {}
    }
    let resigned = tokio::time::timeout(RESIGN_SECONDS_MAX, leadership.resign()).await;
    if !matches!(resigned, Ok(Ok(()))) {
        warn!("the lead could not be handed over, the others wait until it runs out");
    }
    head.await
}

/// A head that fails because it may no longer write, or because the store went away while it
/// took the lead, has not failed: it follows, and waits.
fn unless_lost(ended: Result<(), HeadError>, lost: &CancellationToken) -> Result<(), HeadError> {
    match ended {
        Err(HeadError::Store(StoreError::Fenced)) => Ok(()),
        Err(HeadError::Store(error @ (StoreError::Unavailable(_) | StoreError::Unknown(_)))) => {
            warn!(%error, "the state store went away");
            Ok(())
        }
        Err(error) if lost.is_cancelled() => {
            warn!(%error, "the head ended with its lead");
            Ok(())
        }
        other => other,
    }
}

fn clone_of(listener: &TcpListener) -> Result<TcpListener, HeadError> {
    use std::os::fd::AsFd;
    let failed = |error: std::io::Error| HeadError::Cluster(format!("a socket is lost: {error}"));
    let descriptor = listener.as_fd().try_clone_to_owned().map_err(failed)?;
    TcpListener::from_std(std::net::TcpListener::from(descriptor)).map_err(failed)
}
