//! A store in one file, for one machine: redb, whose commits are durable (fsync) before they
//! return and whose file is whole after a crash at any moment.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError,
};

use crate::election::{
    Candidate, Election, Leader, LeaderStream, Leadership, local::LocalElection,
};
use crate::history::{self, History, Remembers};
use crate::transaction::{holds, last_writes};
use crate::{ChangeStream, Expect, StateStore, StoreError, Transaction, Versioned, Watch, Write};

/// key -> (revision, value)
const VALUES: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("values");

/// A single row: the newest revision.
const REVISION: TableDefinition<'_, (), u64> = TableDefinition::new("revision");

/// The whole state is a few configs; redb's default of 1 GiB would only hide a leak.
const CACHE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The file's lock makes this process the only one that can lead, and it goes with the process:
/// there is nothing to expire.
const LEASE: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);

/// A store in one file. The file is locked: a second process cannot open it, and this one can
/// open it again only when every watch of it has been dropped too.
pub struct EmbeddedStore(Arc<Shared>);

struct Shared {
    database: Database,
    history: History,
    /// Held from before a transaction until it is in the history: in the order of revisions.
    writing: Mutex<()>,
    election: Arc<LocalElection>,
}

type ValuesTable<'txn> = Table<'txn, &'static str, (u64, &'static [u8])>;

impl EmbeddedStore {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// When another process has it open, it is no database of ours, or it cannot be written.
    pub fn open(path: &Path) -> Result<EmbeddedStore, StoreError> {
        let opened = Database::builder()
            .set_cache_size(CACHE_BYTES_MAX)
            .create(path);
        let database = opened.map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => StoreError::Unavailable(format!(
                "{} is in use by another process; give each its own --state-dir",
                path.display()
            )),
            other => StoreError::Corrupt(format!("{}: {other}", path.display())),
        })?;
        let revision = newest_revision(&database)?;
        Ok(EmbeddedStore(Arc::new(Shared {
            database,
            history: History::after(revision),
            writing: Mutex::default(),
            election: Arc::new(LocalElection::new(LEASE)),
        })))
    }
}

#[async_trait]
impl StateStore for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        let key = key.to_owned();
        blocking(&self.0, move |shared| read_one(&shared.database, &key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError> {
        let prefix = prefix.to_owned();
        blocking(&self.0, move |shared| {
            read_prefix(&shared.database, &prefix)
        })
        .await
    }

    async fn commit(&self, transaction: Transaction) -> Result<u64, StoreError> {
        transaction.validate()?;
        blocking(&self.0, move |shared| shared.commit(transaction)).await
    }
}

#[async_trait]
impl Watch for EmbeddedStore {
    async fn watch(&self, prefix: &str, from_revision: u64) -> Result<ChangeStream, StoreError> {
        Ok(history::watch(Arc::clone(&self.0), prefix, from_revision))
    }
}

#[async_trait]
impl Election for EmbeddedStore {
    async fn campaign(&self, candidate: Candidate) -> Result<Leadership, StoreError> {
        let reachable = Arc::new(|| Ok(()));
        self.0.election.campaign(candidate, reachable).await
    }

    async fn leader(&self) -> Result<Option<Leader>, StoreError> {
        Ok(self.0.election.leader())
    }

    async fn watch_leader(&self) -> Result<LeaderStream, StoreError> {
        Ok(self.0.election.watch_leader())
    }
}

// === impl Shared ===

impl Shared {
    /// A transaction whose outcome is unknown is not in the history: redb refuses everything
    /// after it until the file is opened anew, and then every watch begins anew.
    fn commit(&self, transaction: Transaction) -> Result<u64, StoreError> {
        let _leading = self.election.hold(transaction.fence.as_ref())?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (revision, done) = execute(&self.database, transaction)?;
        self.history.record(revision, done);
        Ok(revision)
    }
}

#[async_trait]
impl Remembers for Shared {
    fn history(&self) -> &History {
        &self.history
    }

    async fn snapshot(
        self: Arc<Self>,
        prefix: &str,
    ) -> Result<(u64, Vec<(String, Versioned)>), StoreError> {
        let prefix = prefix.to_owned();
        blocking(&self, move |shared| {
            let reading = shared.database.begin_read().map_err(unavailable)?;
            Ok((revision_in(&reading)?, prefix_in(&reading, &prefix)?))
        })
        .await
    }
}

/// Runs a piece of file work where it may block.
async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let shared = Arc::clone(shared);
    let done = tokio::task::spawn_blocking(move || work(&shared)).await;
    done.unwrap_or_else(|error| Err(StoreError::Unknown(error.to_string())))
}

fn newest_revision(database: &Database) -> Result<u64, StoreError> {
    revision_in(&database.begin_read().map_err(unavailable)?)
}

fn revision_in(reading: &ReadTransaction) -> Result<u64, StoreError> {
    let table = match reading.open_table(REVISION) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(0),
        Err(error) => return Err(unavailable(error)),
    };
    let row = table.get(()).map_err(unavailable)?;
    Ok(row.map_or(0, |row| row.value()))
}

fn read_one(database: &Database, key: &str) -> Result<Option<Versioned>, StoreError> {
    let reading = database.begin_read().map_err(unavailable)?;
    let table = match reading.open_table(VALUES) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(unavailable(error)),
    };
    let found = table.get(key).map_err(unavailable)?;
    Ok(found.map(|row| versioned(row.value())))
}

fn read_prefix(database: &Database, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError> {
    prefix_in(&database.begin_read().map_err(unavailable)?, prefix)
}

fn prefix_in(
    reading: &ReadTransaction,
    prefix: &str,
) -> Result<Vec<(String, Versioned)>, StoreError> {
    let table = match reading.open_table(VALUES) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(unavailable(error)),
    };
    let mut rows = Vec::new();
    for row in table.range(prefix..).map_err(unavailable)? {
        let (key, value) = row.map_err(unavailable)?;
        if !key.value().starts_with(prefix) {
            break;
        }
        rows.push((key.value().to_owned(), versioned(value.value())));
    }
    Ok(rows)
}

/// Until `commit` is called nothing was executed; if `commit` itself fails, it may have been.
/// Answers with the revision and what was changed.
fn execute(database: &Database, transaction: Transaction) -> Result<(u64, Vec<Write>), StoreError> {
    let writing = database.begin_write().map_err(unavailable)?;
    let changed = {
        let mut values = writing.open_table(VALUES).map_err(unavailable)?;
        for check in &transaction.checks {
            check_holds(&values, &check.key, &check.expect)?;
        }
        let mut revisions = writing.open_table(REVISION).map_err(unavailable)?;
        let newest = revisions
            .get(())
            .map_err(unavailable)?
            .map_or(0, |row| row.value());
        let revision = newest + 1;
        revisions.insert((), revision).map_err(unavailable)?;
        let mut done = Vec::new();
        for write in last_writes(transaction.writes) {
            if apply(&mut values, &write, revision)? {
                done.push(write);
            }
        }
        (revision, done)
    };
    writing
        .commit()
        .map_err(|error| StoreError::Unknown(error.to_string()))?;
    Ok(changed)
}

fn check_holds(values: &ValuesTable<'_>, key: &str, expect: &Expect) -> Result<(), StoreError> {
    let now = values
        .get(key)
        .map_err(unavailable)?
        .map(|row| row.value().0);
    if holds(expect, now) {
        Ok(())
    } else {
        Err(StoreError::Conflict {
            key: key.to_owned(),
        })
    }
}

/// Whether it changed anything.
fn apply(values: &mut ValuesTable<'_>, write: &Write, revision: u64) -> Result<bool, StoreError> {
    match write {
        Write::Put { key, value } => {
            values
                .insert(key.as_str(), (revision, value.as_slice()))
                .map_err(unavailable)?;
            Ok(true)
        }
        Write::Delete { key } => {
            let removed = values.remove(key.as_str()).map_err(unavailable)?;
            Ok(removed.is_some())
        }
    }
}

fn versioned((revision, value): (u64, &[u8])) -> Versioned {
    Versioned {
        value: value.to_vec(),
        revision,
    }
}

fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(error.to_string())
}
