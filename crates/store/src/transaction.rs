//! Transactions: checks and writes, executed as one, with the limits every store keeps.

use crate::StoreError;
use crate::election::Fence;

/// A key's length.
pub const KEY_BYTES_MAX: usize = 1024;

/// A value's length: etcd's default limit for one request is 1.5 MiB, and what is accepted on
/// one machine must be accepted in a cluster.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;

/// All keys and values of one transaction: etcd's 1.5 MiB less room for its own framing.
pub const TRANSACTION_BYTES_MAX: usize = 1_310_720;

/// Checks and writes of one transaction together: etcd's default limit.
pub const TRANSACTION_OPERATIONS_MAX: usize = 128;

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
    /// In order; the last write of a key counts.
    pub writes: Vec<Write>,
    /// The leadership that must still hold.
    pub fence: Option<Fence>,
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

    /// Executes it only while this leadership holds; `StoreError::Fenced` otherwise.
    pub fn fenced_by(mut self, fence: &Fence) -> Transaction {
        self.fence = Some(fence.clone());
        self
    }

    /// Refuses what no store takes.
    pub(crate) fn validate(&self) -> Result<(), StoreError> {
        let operations = self.checks.len() + self.writes.len() + self.fences();
        if operations > TRANSACTION_OPERATIONS_MAX {
            return Err(StoreError::Invalid(format!(
                "a transaction has {operations} operations, at most {TRANSACTION_OPERATIONS_MAX} are allowed"
            )));
        }
        let mut bytes = 0;
        for write in &self.writes {
            bytes += write.validate()?;
        }
        if bytes > TRANSACTION_BYTES_MAX {
            return Err(StoreError::Invalid(format!(
                "the keys and values of a transaction have {bytes} bytes, at most {TRANSACTION_BYTES_MAX} are allowed"
            )));
        }
        Ok(())
    }

    fn fences(&self) -> usize {
        usize::from(self.fence.is_some())
    }
}

impl Write {
    /// Which key it changes.
    pub(crate) fn key(&self) -> &str {
        match self {
            Write::Put { key, .. } | Write::Delete { key } => key,
        }
    }

    /// Its size, if it is within the limits.
    fn validate(&self) -> Result<usize, StoreError> {
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
        Ok(key.len() + value_bytes)
    }
}

/// Whether a check holds for what is there now.
pub fn holds(expect: &Expect, revision_now: Option<u64>) -> bool {
    match expect {
        Expect::Absent => revision_now.is_none(),
        Expect::Revision(revision) => revision_now == Some(*revision),
    }
}

/// One write per key, the last: etcd refuses a key twice in one transaction, and a watch of any
/// store tells each key of a revision once.
pub(crate) fn last_writes(writes: Vec<Write>) -> Vec<Write> {
    let mut kept: Vec<Write> = Vec::with_capacity(writes.len());
    for write in writes {
        match kept.iter().position(|earlier| earlier.key() == write.key()) {
            Some(at) => kept[at] = write,
            None => kept.push(write),
        }
    }
    kept
}
