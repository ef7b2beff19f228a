//! The election of a store inside this process: the ballot behind a lock, tokio's clock (which
//! tests and simulations pause and advance) as its time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::StoreError;
use crate::ballot::Ballot;
use crate::election::{Candidate, Fence, Leader, LeaderStream, Leadership, Lease, keep};

/// The election that all handles of one store share.
pub(crate) struct LocalElection {
    ballot: Mutex<Ballot>,
    changed: watch::Sender<()>,
    lease: Duration,
    started: Instant,
}

/// Whether a handle of the store reaches it: a handle can be cut off in tests.
pub(crate) type Reachable = Arc<dyn Fn() -> Result<(), StoreError> + Send + Sync>;

struct LocalLease {
    election: Arc<LocalElection>,
    reachable: Reachable,
    revision: u64,
}

// === impl LocalElection ===

impl LocalElection {
    pub(crate) fn new(lease: Duration) -> LocalElection {
        LocalElection {
            ballot: Mutex::default(),
            changed: watch::Sender::new(()),
            lease,
            started: Instant::now(),
        }
    }

    /// Keeps the leadership as it is for as long as the answer is held. Fails if a fence is
    /// given that does not hold.
    pub(crate) fn hold(
        &self,
        fence: Option<&Fence>,
    ) -> Result<Option<MutexGuard<'_, Ballot>>, StoreError> {
        let Some(fence) = fence else {
            return Ok(None);
        };
        let ballot = self.lock();
        if ballot.holds(fence.revision, self.now()) {
            Ok(Some(ballot))
        } else {
            Err(StoreError::Fenced)
        }
    }

    pub(crate) async fn campaign(
        self: &Arc<Self>,
        candidate: Candidate,
        reachable: Reachable,
    ) -> Result<Leadership, StoreError> {
        candidate.validate()?;
        let mut changed = self.changed.subscribe();
        loop {
            reachable()?;
            let asked_at = Instant::now();
            let outcome = self.lock().campaign(&candidate, self.now(), self.lease);
            match outcome {
                Ok(leader) => {
                    self.changed.send_replace(());
                    let fence = Fence {
                        revision: leader.revision,
                    };
                    let lease = LocalLease {
                        election: Arc::clone(self),
                        reachable,
                        revision: leader.revision,
                    };
                    return Ok(keep(fence, lease, asked_at, self.lease));
                }
                Err(expires_at) => self.wait(&mut changed, Some(expires_at)).await,
            }
        }
    }

    pub(crate) fn leader(&self) -> Option<Leader> {
        let ballot = self.lock();
        ballot.leader(self.now()).map(|(leader, _)| leader.clone())
    }

    pub(crate) fn watch_leader(self: &Arc<Self>) -> LeaderStream {
        let election = Arc::clone(self);
        let changed = self.changed.subscribe();
        let start = (election, changed, None::<Option<Leader>>);
        Box::pin(stream::unfold(
            start,
            |(election, mut changed, told)| async move {
                loop {
                    let (leader, expires_at) = election.leader_and_expiry();
                    if told.as_ref() != Some(&leader) {
                        return Some((Ok(leader.clone()), (election, changed, Some(leader))));
                    }
                    election.wait(&mut changed, expires_at).await;
                }
            },
        ))
    }

    fn leader_and_expiry(&self) -> (Option<Leader>, Option<Duration>) {
        let ballot = self.lock();
        match ballot.leader(self.now()) {
            Some((leader, expires_at)) => (Some(leader.clone()), Some(expires_at)),
            None => (None, None),
        }
    }

    /// Until somebody leads or resigns, or the lease that was seen has run out.
    async fn wait(&self, changed: &mut watch::Receiver<()>, expires_at: Option<Duration>) {
        let expired = async {
            match expires_at {
                Some(expires_at) => sleep_until(self.started + expires_at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = changed.changed() => {}
            () = expired => {}
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Ballot> {
        self.ballot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl LocalLease ===

#[async_trait]
impl Lease for LocalLease {
    async fn renew(&self) -> Result<Option<Duration>, StoreError> {
        (self.reachable)()?;
        let now = self.election.now();
        let alive = self
            .election
            .lock()
            .renew(self.revision, now, self.election.lease);
        Ok(alive.then_some(self.election.lease))
    }

    async fn revoke(&self) -> Result<(), StoreError> {
        (self.reachable)()?;
        self.election.lock().resign(self.revision);
        self.election.changed.send_replace(());
        Ok(())
    }
}
