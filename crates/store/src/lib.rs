//! `StateStore`: where the head keeps what must survive it.
//!
//! Keys are text, values are bytes, every value carries the revision of the transaction that
//! wrote it. A transaction checks revisions and writes all or nothing: that is enough for
//! optimistic updates and for fencing, and it is what etcd offers as well. `Watch` tells what
//! changed, without loss; `Election` makes one of several heads the leader,
//! whose writes are fenced.
//!
//! Not here: what the keys and values mean.

mod ballot;
mod election;
mod embedded;
mod error;
mod etcd;
mod history;
mod memory;
mod transaction;
mod watch;

use async_trait::async_trait;

#[doc(hidden)]
pub use ballot::Ballot;

pub use election::{
    CANDIDATE_BYTES_MAX, Candidate, Election, Fence, LEASE_DEFAULT, Leader, LeaderStream,
    Leadership,
};
#[doc(hidden)]
pub use election::{RENEWALS_PER_LEASE, UNUSED_FRACTION};
pub use embedded::EmbeddedStore;
pub use error::StoreError;
pub use etcd::{CLUSTER_BYTES_MAX, ENDPOINTS_MAX, EtcdConfig, EtcdStore, EtcdTls, EtcdUser};
pub use history::{HISTORY_BYTES_MAX, HISTORY_REVISIONS_MAX};
pub use memory::MemoryStore;
pub use transaction::{
    Check, Expect, KEY_BYTES_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_OPERATIONS_MAX, Transaction,
    VALUE_BYTES_MAX, Write,
};
pub use watch::{Change, ChangeStream, Watch, WatchEvent};

/// Durable state with revisions.
#[async_trait]
pub trait StateStore: Send + Sync {
    /// The value of a key.
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError>;

    /// All keys that start with `prefix`, sorted.
    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError>;

    /// Executes the writes if all checks hold, and answers with the new revision once they are
    /// durable.
    async fn commit(&self, transaction: Transaction) -> Result<u64, StoreError>;
}

/// A value and the revision of the transaction that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The bytes.
    pub value: Vec<u8>,
    /// Grows with every transaction.
    pub revision: u64,
}
