//! `Watch`: what changed, without loss and without silent repetition.
//!
//! Not here: how etcd is asked (`etcd/watch.rs`), what the other stores remember (`history.rs`).

use std::pin::Pin;

use async_trait::async_trait;
use futures_util::Stream;

use crate::{StoreError, Versioned};

/// Tells changes as they happen.
#[async_trait]
pub trait Watch: Send + Sync {
    /// Every change of a key that starts with `prefix`, from revision `from_revision` on, that
    /// one included. Where the store does not remember that far back, and always from revision
    /// 0, the first event is `Relisted`.
    ///
    /// The stream outlives broken connections. An error is its last item: the store refuses it
    /// for good.
    async fn watch(&self, prefix: &str, from_revision: u64) -> Result<ChangeStream, StoreError>;
}

/// Events in order of their revisions.
pub type ChangeStream = Pin<Box<dyn Stream<Item = Result<WatchEvent, StoreError>> + Send>>;

/// One step of a watch. To watch again after it, start from `revision + 1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// One transaction's changes below the prefix.
    Changed {
        /// Of the transaction.
        revision: u64,
        /// Each key once.
        changes: Vec<Change>,
    },
    /// Changes were forgotten before they could be told: this is all there is below the prefix
    /// now. A key that is not in it is gone.
    Relisted {
        /// As of which the values are.
        revision: u64,
        /// Sorted by key.
        values: Vec<(String, Versioned)>,
    },
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was set.
    Put {
        /// Which.
        key: String,
        /// To what.
        value: Vec<u8>,
    },
    /// It was removed.
    Delete {
        /// Which.
        key: String,
    },
}

// === impl WatchEvent ===

impl WatchEvent {
    /// As of which revision it is.
    pub fn revision(&self) -> u64 {
        match self {
            WatchEvent::Changed { revision, .. } | WatchEvent::Relisted { revision, .. } => {
                *revision
            }
        }
    }
}

// === impl Change ===

impl Change {
    /// Of which key.
    pub fn key(&self) -> &str {
        match self {
            Change::Put { key, .. } | Change::Delete { key } => key,
        }
    }
}
