//! The election on etcd: whoever creates the leader key leads, until the key's lease ends.
//!
//! The key's `create_revision` names the leadership; a write that compares it cannot be executed
//! for a deposed leader, however late it arrives.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{EventType, GetOptions, PutOptions, Txn, TxnOp};
use futures_util::stream;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::client::Client;
use super::keys::Keys;
use super::transaction::created_at;
use super::watch::{Events, Step};
use super::{EtcdStore, pb, revision_of, signed, unsigned};
use crate::StoreError;
use crate::election::{Candidate, Election, Fence, Leader, LeaderStream, Leadership, Lease, keep};

#[async_trait]
impl Election for EtcdStore {
    async fn campaign(&self, candidate: Candidate) -> Result<Leadership, StoreError> {
        candidate.validate()?;
        loop {
            let (leader, revision) = leader_key(&self.client, &self.keys).await?;
            if leader.is_some() {
                self.wait_until_vacant(revision).await?;
            } else if let Some(leadership) = self.take_the_lead(&candidate).await? {
                return Ok(leadership);
            }
        }
    }

    async fn leader(&self) -> Result<Option<Leader>, StoreError> {
        let (key, _) = leader_key(&self.client, &self.keys).await?;
        key.map(leader_of).transpose()
    }

    async fn watch_leader(&self) -> Result<LeaderStream, StoreError> {
        let follower = Follower {
            events: leader_events(&self.client, &self.keys, 0),
            client: Arc::clone(&self.client),
            keys: self.keys.clone(),
            told: None,
        };
        Ok(Box::pin(stream::unfold(Some(follower), |follower| async {
            let mut follower = follower?;
            match follower.next().await {
                Ok(leader) => Some((Ok(leader), Some(follower))),
                Err(error) => Some((Err(error), None)),
            }
        })))
    }
}

impl EtcdStore {
    /// `None` if somebody else was faster. Whatever goes wrong on the way, the lease is given
    /// back: a put that is still under way fails without it, or goes with it.
    async fn take_the_lead(&self, candidate: &Candidate) -> Result<Option<Leadership>, StoreError> {
        let asked_at = Instant::now();
        let granted = self.client.grant(self.lease).await?;
        let lease = UnusedLease {
            client: Some(Arc::clone(&self.client)),
            id: granted.id,
        };
        let on_lease = PutOptions::new().with_lease(granted.id);
        let put = TxnOp::put(self.keys.leader(), candidate.to_bytes(), Some(on_lease));
        let put = Txn::new()
            .when([created_at(self.keys.leader(), 0)])
            .and_then([put]);
        let answer = match self.client.transact(put).await {
            Err(StoreError::Unknown(why)) => return Err(StoreError::Unavailable(why)),
            answer => answer?,
        };
        if !answer.succeeded {
            return Ok(None);
        }
        let fence = Fence {
            revision: revision_of(answer.header.as_ref())?,
        };
        let leader_lease = LeaderLease {
            client: Arc::clone(&self.client),
            keys: self.keys.clone(),
            id: lease.used(),
            revision: fence.revision,
            time_to_live: granted.time_to_live,
        };
        Ok(Some(keep(
            fence,
            leader_lease,
            asked_at,
            granted.time_to_live,
        )))
    }

    /// Until the key that was there at this revision is gone, or may be.
    async fn wait_until_vacant(&self, revision: i64) -> Result<(), StoreError> {
        let mut events = leader_events(&self.client, &self.keys, revision + 1);
        loop {
            match events.next().await? {
                Step::Changed { events, .. } => {
                    if events
                        .iter()
                        .any(|event| event.r#type() == EventType::Delete)
                    {
                        return Ok(());
                    }
                }
                Step::Compacted => return Ok(()),
            }
        }
    }
}

/// Tells who leads.
struct Follower {
    client: Arc<Client>,
    keys: Keys,
    events: Events,
    told: Option<Option<Leader>>,
}

// === impl Follower ===

impl Follower {
    async fn next(&mut self) -> Result<Option<Leader>, StoreError> {
        loop {
            let leader = match self.events.next().await? {
                Step::Changed { events, .. } => match events.into_iter().next_back() {
                    Some(event) if event.r#type() == EventType::Put => {
                        event.kv.map(leader_of).transpose()?
                    }
                    Some(_) | None => None,
                },
                Step::Compacted => self.read().await?,
            };
            if self.told.as_ref() != Some(&leader) {
                self.told = Some(leader.clone());
                return Ok(leader);
            }
        }
    }

    /// Tries until it succeeds or is refused.
    async fn read(&mut self) -> Result<Option<Leader>, StoreError> {
        loop {
            match leader_key(&self.client, &self.keys).await {
                Ok((key, revision)) => {
                    self.events.continue_after(revision);
                    return key.map(leader_of).transpose();
                }
                // Each attempt has asked all members for seconds.
                Err(StoreError::Unavailable(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// What a leadership on etcd rests on.
struct LeaderLease {
    client: Arc<Client>,
    keys: Keys,
    id: i64,
    revision: u64,
    /// As etcd granted it: every renewal is for the same time.
    time_to_live: Duration,
}

// === impl LeaderLease ===

#[async_trait]
impl Lease for LeaderLease {
    async fn renew(&self) -> Result<Option<Duration>, StoreError> {
        if !self.client.keep_alive(self.id).await? {
            return Ok(None);
        }
        // The key can be gone while its lease lives: somebody deleted it by hand.
        let (key, _) = leader_key(&self.client, &self.keys).await?;
        let ours = key.is_some_and(|key| key.create_revision == signed(self.revision));
        Ok(ours.then_some(self.time_to_live))
    }

    async fn revoke(&self) -> Result<(), StoreError> {
        self.client.revoke(self.id).await
    }
}

/// Gives a lease back when it is dropped without a leadership on it.
struct UnusedLease {
    client: Option<Arc<Client>>,
    id: i64,
}

// === impl UnusedLease ===

impl UnusedLease {
    fn used(mut self) -> i64 {
        self.client = None;
        self.id
    }
}

impl Drop for UnusedLease {
    fn drop(&mut self) {
        if let (Some(client), Ok(runtime)) = (self.client.take(), Handle::try_current()) {
            let id = self.id;
            runtime.spawn(async move {
                let _runs_out_by_itself = client.revoke(id).await;
            });
        }
    }
}

/// The leader's key, if there is one, and the revision as of which that is so.
async fn leader_key(
    client: &Client,
    keys: &Keys,
) -> Result<(Option<pb::KeyValue>, i64), StoreError> {
    let answer = client.range(keys.leader(), GetOptions::new()).await?;
    let revision = signed(revision_of(answer.header.as_ref())?);
    Ok((answer.kvs.into_iter().next(), revision))
}

fn leader_events(client: &Arc<Client>, keys: &Keys, from_revision: i64) -> Events {
    Events::new(Arc::clone(client), keys.leader(), Vec::new(), from_revision)
}

fn leader_of(key: pb::KeyValue) -> Result<Leader, StoreError> {
    Ok(Leader {
        candidate: Candidate::from_bytes(&key.value)?,
        revision: unsigned(key.create_revision)?,
    })
}
