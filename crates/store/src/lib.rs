//! `StateStore`: where the head keeps what must survive it.
//!
//! Keys are text, values are bytes, every value carries the revision of the transaction that
//! wrote it. A transaction checks revisions and writes all or nothing: that is enough for
//! optimistic updates and for fencing, and it is what etcd offers as well.
//!
//! Not here: what the keys and values mean.

mod embedded;
mod memory;

use async_trait::async_trait;
use thiserror::Error;

pub use embedded::EmbeddedStore;
pub use memory::MemoryStore;

/// A key's length.
pub const KEY_BYTES_MAX: usize = 1024;

/// A value's length: etcd's default limit for one request is 1.5 MiB, and what is accepted on
/// one machine must be accepted in a cluster.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;

/// Checks and writes of one transaction together: etcd's default limit.
pub const TRANSACTION_OPERATIONS_MAX: usize = 128;

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

/// What must hold for a transaction to be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key was last written by this revision.
    Revision(u64),
}

/// One precondition.
#[derive(Clone, Debug)]
pub struct Check {
    /// Of which key.
    pub key: String,
    /// What.
    pub expect: Expect,
}

/// One change.
#[derive(Clone, Debug)]
pub enum Write {
    /// Sets a key.
    Put {
        /// Which.
        key: String,
        /// To what.
        value: Vec<u8>,
    },
    /// Removes a key; no error if it is not there.
    Delete {
        /// Which.
        key: String,
    },
}

/// Checks and writes, executed as one.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// All must hold.
    pub checks: Vec<Check>,
    /// In order.
    pub writes: Vec<Write>,
}

/// Variants by what the caller can do.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A check did not hold; nothing was written. Read again and decide anew.
    #[error("somebody else changed '{key}' in between")]
    Conflict {
        /// The first key whose check failed.
        key: String,
    },
    /// Not executed; the same call may succeed later.
    #[error("the state store is not available: {0}")]
    Unavailable(String),
    /// Perhaps executed. Read again before deciding anything.
    #[error("the state store did not say whether the write happened: {0}")]
    Unknown(String),
    /// The call itself is wrong, and will be wrong again.
    #[error("{0}")]
    Invalid(String),
    /// What is stored cannot be read.
    #[error("the state store is damaged: {0}")]
    Corrupt(String),
}

// === impl Transaction ===

impl Transaction {
    /// Adds a check.
    pub fn check(mut self, key: impl Into<String>, expect: Expect) -> Transaction {
        self.checks.push(Check {
            key: key.into(),
            expect,
        });
        self
    }

    /// Adds a put.
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Transaction {
        self.writes.push(Write::Put {
            key: key.into(),
            value: value.into(),
        });
        self
    }

    /// Adds a delete.
    pub fn delete(mut self, key: impl Into<String>) -> Transaction {
        self.writes.push(Write::Delete { key: key.into() });
        self
    }

    /// Refuses what no store takes.
    fn validate(&self) -> Result<(), StoreError> {
        let operations = self.checks.len() + self.writes.len();
        if operations > TRANSACTION_OPERATIONS_MAX {
            return Err(StoreError::Invalid(format!(
                "a transaction has {operations} operations, at most {TRANSACTION_OPERATIONS_MAX} are allowed"
            )));
        }
        for write in &self.writes {
            write.validate()?;
        }
        Ok(())
    }
}

impl Write {
    fn validate(&self) -> Result<(), StoreError> {
        let (key, value_bytes) = match self {
            Write::Put { key, value } => (key, value.len()),
            Write::Delete { key } => (key, 0),
        };
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(StoreError::Invalid(format!(
                "a key has {} bytes, 1 to {KEY_BYTES_MAX} are allowed",
                key.len()
            )));
        }
        if value_bytes > VALUE_BYTES_MAX {
            return Err(StoreError::Invalid(format!(
                "the value of '{key}' has {value_bytes} bytes, at most {VALUE_BYTES_MAX} are allowed"
            )));
        }
        Ok(())
    }
}

/// Whether a check holds for what is there now.
fn holds(expect: &Expect, revision_now: Option<u64>) -> bool {
    match expect {
        Expect::Absent => revision_now.is_none(),
        Expect::Revision(revision) => revision_now == Some(*revision),
    }
}
