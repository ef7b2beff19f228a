//! A store in one file, for one machine: redb, whose commits are durable (fsync) before they
//! return and whose file is whole after a crash at any moment.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError};

use crate::{Expect, StateStore, StoreError, Transaction, Versioned, Write, holds};

/// key -> (revision, value)
const VALUES: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("values");

/// A single row: the newest revision.
const REVISION: TableDefinition<'_, (), u64> = TableDefinition::new("revision");

/// The whole state is a few configs; redb's default of 1 GiB would only hide a leak.
const CACHE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A store in one file. The file is locked: a second process cannot open it.
pub struct EmbeddedStore(Arc<Database>);

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
        Ok(EmbeddedStore(Arc::new(database)))
    }

    /// Runs a piece of file work where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&database)).await;
        done.unwrap_or_else(|error| Err(StoreError::Unknown(error.to_string())))
    }
}

#[async_trait]
impl StateStore for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        let key = key.to_owned();
        self.blocking(move |database| read_one(database, &key))
            .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError> {
        let prefix = prefix.to_owned();
        self.blocking(move |database| read_prefix(database, &prefix))
            .await
    }

    async fn commit(&self, transaction: Transaction) -> Result<u64, StoreError> {
        transaction.validate()?;
        self.blocking(move |database| execute(database, transaction))
            .await
    }
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
    let reading = database.begin_read().map_err(unavailable)?;
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
fn execute(database: &Database, transaction: Transaction) -> Result<u64, StoreError> {
    let writing = database.begin_write().map_err(unavailable)?;
    let revision = {
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
        for write in transaction.writes {
            apply(&mut values, write, revision)?;
        }
        revision
    };
    writing
        .commit()
        .map_err(|error| StoreError::Unknown(error.to_string()))?;
    Ok(revision)
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

fn apply(values: &mut ValuesTable<'_>, write: Write, revision: u64) -> Result<(), StoreError> {
    match write {
        Write::Put { key, value } => {
            values
                .insert(key.as_str(), (revision, value.as_slice()))
                .map_err(unavailable)?;
        }
        Write::Delete { key } => {
            values.remove(key.as_str()).map_err(unavailable)?;
        }
    }
    Ok(())
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
