//! `Election`: one of several candidates leads; its writes are fenced.
//!
//! A leadership rests on a lease. The leader renews it; when it cannot, `lost` fires before the
//! store can have given the lead to anybody else. That alone protects nothing, for a process can
//! be paused between looking and writing: so each write of a leader carries its `Fence`, which
//! the store checks in the same transaction.
//!
//! Not here: how etcd elects (`etcd/election.rs`), how a process elects (`local.rs`).

mod keeper;
pub(crate) mod local;

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::Stream;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use keeper::{Lease, keep};
pub use keeper::{RENEWALS_PER_LEASE, UNUSED_FRACTION};

use crate::StoreError;

/// How long a leader that died keeps the others waiting. Shorter makes a slow disk of the store
/// an election, longer makes a takeover slow.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(5);

/// A candidate's name and address, each: a host name and a port, with room.
pub const CANDIDATE_BYTES_MAX: usize = 512;

/// Under which name the leadership is kept.
pub(crate) const LEADER_KEY: &str = "election/leader";

/// Elects.
#[async_trait]
pub trait Election: Send + Sync {
    /// Waits, for as long as it takes, until this candidate leads. Dropping the future withdraws.
    async fn campaign(&self, candidate: Candidate) -> Result<Leadership, StoreError>;

    /// Who leads now.
    async fn leader(&self) -> Result<Option<Leader>, StoreError>;

    /// Who leads, now and after each change. A quick succession may be told by its last state
    /// alone. An error is the last item.
    async fn watch_leader(&self) -> Result<LeaderStream, StoreError>;
}

/// Each item differs from the one before.
pub type LeaderStream = Pin<Box<dyn Stream<Item = Result<Option<Leader>, StoreError>> + Send>>;

/// Who wants to lead, as the others will see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Of the process, unique.
    pub name: String,
    /// Where the others reach it.
    pub address: String,
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Who.
    pub candidate: Candidate,
    /// Which leadership: a later one has a higher revision.
    pub revision: u64,
}

/// What a write of a leader is bound to. See `Transaction::fenced_by`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    pub(crate) revision: u64,
}

/// Held while leading. Dropping it resigns without waiting for the store's answer.
pub struct Leadership {
    fence: Fence,
    lost: CancellationToken,
    resign: oneshot::Sender<oneshot::Sender<Result<(), StoreError>>>,
    /// Whoever stops holding this leads no longer.
    _lost_on_drop: DropGuard,
}

// === impl Leadership ===

impl Leadership {
    /// To be put on every write.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Is cancelled when this process leads no longer, before anybody else can lead. Cancelling
    /// it changes nothing: it is a child of what decides.
    pub fn lost(&self) -> CancellationToken {
        self.lost.child_token()
    }

    /// Whether `lost` has fired.
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Hands over at once. After an error the others wait until the lease has run out.
    ///
    /// # Errors
    /// When the store did not confirm it.
    pub async fn resign(self) -> Result<(), StoreError> {
        self.lost.cancel();
        let (reply, replied) = oneshot::channel();
        if self.resign.send(reply).is_err() {
            return Ok(()); // lost before: there is nothing left to give back
        }
        replied.await.unwrap_or(Ok(()))
    }
}

// === impl Fence ===

impl Fence {
    /// That of a leadership which a simulated store gave out.
    #[doc(hidden)]
    pub fn of_revision(revision: u64) -> Fence {
        Fence { revision }
    }

    /// Which leadership it stands for.
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

// === impl Candidate ===

impl Candidate {
    pub(crate) fn validate(&self) -> Result<(), StoreError> {
        for (field, text) in [("name", &self.name), ("address", &self.address)] {
            if text.is_empty() || text.len() > CANDIDATE_BYTES_MAX {
                return Err(StoreError::Invalid(format!(
                    "a candidate's {field} has {} bytes, 1 to {CANDIDATE_BYTES_MAX} are allowed",
                    text.len()
                )));
            }
            if text.contains(char::is_control) {
                return Err(StoreError::Invalid(format!(
                    "a candidate's {field} has control characters, none are allowed"
                )));
            }
        }
        Ok(())
    }

    /// As it is stored: two lines.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        format!("{}\n{}", self.name, self.address).into_bytes()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Candidate, StoreError> {
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        let (name, address) = text
            .split_once('\n')
            .ok_or_else(|| StoreError::Corrupt("the leader's entry is not two lines".to_owned()))?;
        Ok(Candidate {
            name: name.to_owned(),
            address: address.to_owned(),
        })
    }
}
