//! Writes what must survive into the store, and says honestly how that went.
//!
//! A write whose outcome is unknown is settled by reading again: it happened if what is
//! stored is what should be. Nothing here decides what to write.

use std::sync::Arc;

use mobula_store::{Expect, StateStore, StoreError, Transaction, VALUE_BYTES_MAX};
use tracing::{info, warn};

use crate::documents::{
    HISTORY_KEY, INTENT_KEY, LEGACY_CONFIG_KEY, StoredConfig, StoredIntent, config_key,
    history_from_bytes, history_to_bytes,
};
use crate::error::HeadError;
use crate::history::{Accepted, End, History};

/// How often a write with an unknown outcome is looked up before the caller is told so.
const LOOKUPS_MAX: usize = 3;

/// The store's content as this head knows it.
pub struct Executor {
    store: Arc<dyn StateStore>,
    index: Slot,
    /// What `index` holds.
    history: History,
    intent: Slot,
}

/// One key: what it holds.
struct Slot {
    key: &'static str,
    bytes: Option<Vec<u8>>,
    revision: Option<u64>,
}

// === impl Executor ===

impl Executor {
    /// Reads what an earlier head stored.
    pub async fn load(store: Arc<dyn StateStore>) -> Result<Executor, HeadError> {
        let mut executor = Executor {
            store,
            index: Slot::new(HISTORY_KEY),
            history: History::default(),
            intent: Slot::new(INTENT_KEY),
        };
        executor.index.reload(&*executor.store).await?;
        executor.intent.reload(&*executor.store).await?;
        executor.read_index().map_err(HeadError::Stored)?;
        if executor.index.bytes.is_none() {
            executor.migrate().await?;
        }
        Ok(executor)
    }

    /// What was accepted, and what became of it.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The config of a revision; None: it is not kept, or has none.
    pub async fn config(&self, revision: u64) -> Result<Option<StoredConfig>, StoreError> {
        let key = config_key(revision);
        let found = self.store.get(&key).await?;
        found
            .map(|found| StoredConfig::from_bytes(&key, &found.value))
            .transpose()
            .map_err(StoreError::Corrupt)
    }

    /// What was decided last.
    pub fn intent(&self) -> Result<StoredIntent, HeadError> {
        match self.intent.bytes.as_deref() {
            None => Ok(StoredIntent::default()),
            Some(bytes) => StoredIntent::from_bytes(bytes).map_err(HeadError::Stored),
        }
    }

    /// Makes a config durable, and with it the history that names it as the current one.
    pub async fn accept(
        &mut self,
        accepted: &Accepted,
        config: Option<&StoredConfig>,
    ) -> Result<(), StoreError> {
        let mut extra = Transaction::default();
        if let Some(config) = config {
            extra = extra.put(config_key(accepted.revision), config.to_bytes());
        }
        for revision in &accepted.pruned {
            extra = extra.delete(config_key(*revision));
        }
        let history = self.with_digest(accepted, config);
        self.write_index(&history, extra).await
    }

    /// The history as it is stored with the config.
    pub fn with_digest(&self, accepted: &Accepted, config: Option<&StoredConfig>) -> History {
        match config {
            Some(config) => accepted.history.with_digest(&config.to_bytes()),
            None => accepted.history.clone(),
        }
    }

    /// Reads the history again after a write of it whose outcome is not known, and sees to it
    /// that the write cannot happen any more.
    pub async fn settle(&mut self) -> Result<(), StoreError> {
        self.index.reload(&*self.store).await?;
        self.read_index().map_err(StoreError::Corrupt)?;
        self.index.touch(&*self.store).await
    }

    /// Makes durable what became of the current config; costs nothing when it is the same.
    pub async fn save_history(&mut self, history: &History) -> Result<(), StoreError> {
        if *history == self.history {
            return Ok(());
        }
        self.write_index(history, Transaction::default()).await
    }

    /// Makes the intent durable; costs nothing when it is the same.
    pub async fn save_intent(&mut self, intent: &StoredIntent) -> Result<(), StoreError> {
        let bytes = intent.to_bytes();
        self.intent
            .write(&*self.store, bytes, Transaction::default())
            .await
    }

    async fn write_index(
        &mut self,
        history: &History,
        extra: Transaction,
    ) -> Result<(), StoreError> {
        let bytes = history_to_bytes(history);
        let written = self.index.write(&*self.store, bytes, extra).await;
        // Also after a failure: somebody else may have written.
        let read = self.read_index().map_err(StoreError::Corrupt);
        written.and(read)
    }

    fn read_index(&mut self) -> Result<(), String> {
        self.history = match self.index.bytes.as_deref() {
            None => History::default(),
            Some(bytes) => history_from_bytes(bytes)?,
        };
        Ok(())
    }

    /// Takes over the config of a release that kept no history.
    async fn migrate(&mut self) -> Result<(), HeadError> {
        let Some(found) = self.store.get(LEGACY_CONFIG_KEY).await? else {
            return Ok(());
        };
        let config =
            StoredConfig::from_bytes(LEGACY_CONFIG_KEY, &found.value).map_err(HeadError::Stored)?;
        let accepted = History::default().accept(
            config.deployed_time_s,
            "deployed by an earlier release",
            &End::Superseded,
        );
        let extra = Transaction::default()
            .put(config_key(accepted.revision), config.to_bytes())
            .delete(LEGACY_CONFIG_KEY);
        self.write_index(&accepted.history, extra).await?;
        info!("the config of an earlier release became the first of the history");
        Ok(())
    }
}

// === impl Slot ===

impl Slot {
    fn new(key: &'static str) -> Slot {
        Slot {
            key,
            bytes: None,
            revision: None,
        }
    }

    async fn reload(&mut self, store: &dyn StateStore) -> Result<(), StoreError> {
        let found = store.get(self.key).await?;
        self.revision = found.as_ref().map(|found| found.revision);
        self.bytes = found.map(|found| found.value);
        Ok(())
    }

    /// Writes what is there once more: whatever was to replace it, and is still on its way, fails.
    async fn touch(&mut self, store: &dyn StateStore) -> Result<(), StoreError> {
        let (Some(bytes), Some(revision)) = (&self.bytes, self.revision) else {
            return Ok(());
        };
        let transaction = Transaction::default()
            .check(self.key, Expect::Revision(revision))
            .put(self.key, bytes.clone());
        self.revision = Some(store.commit(transaction).await?);
        Ok(())
    }

    /// Writes the key, and in the same transaction what else `transaction` holds.
    async fn write(
        &mut self,
        store: &dyn StateStore,
        bytes: Vec<u8>,
        transaction: Transaction,
    ) -> Result<(), StoreError> {
        if self.bytes.as_ref() == Some(&bytes) {
            return Ok(());
        }
        if bytes.len() > VALUE_BYTES_MAX {
            return Err(StoreError::Invalid(format!(
                "{} would have {} bytes, allowed are {VALUE_BYTES_MAX}",
                self.key,
                bytes.len()
            )));
        }
        let expect = self.revision.map_or(Expect::Absent, Expect::Revision);
        let transaction = transaction
            .check(self.key, expect)
            .put(self.key, bytes.clone());
        match store.commit(transaction).await {
            Ok(revision) => {
                self.revision = Some(revision);
                self.bytes = Some(bytes);
                Ok(())
            }
            Err(error @ (StoreError::Unknown(_) | StoreError::Conflict { .. })) => {
                self.look_up(store, &bytes, error).await
            }
            Err(
                error @ (StoreError::Fenced
                | StoreError::Unavailable(_)
                | StoreError::Invalid(_)
                | StoreError::Corrupt(_)),
            ) => Err(error),
        }
    }

    /// Reads again; the write happened if the key holds what was to be written.
    async fn look_up(
        &mut self,
        store: &dyn StateStore,
        wanted: &[u8],
        error: StoreError,
    ) -> Result<(), StoreError> {
        warn!(key = self.key, %error, "reading again what is stored");
        for _ in 0..LOOKUPS_MAX {
            if self.reload(store).await.is_ok() {
                return if self.bytes.as_deref() == Some(wanted) {
                    Ok(())
                } else {
                    Err(error)
                };
            }
        }
        Err(error)
    }
}
