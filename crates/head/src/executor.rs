//! Writes what must survive into the store, and says honestly how that went.
//!
//! A write whose outcome is unknown is settled by reading again: it happened if what is
//! stored is what should be. Nothing here decides what to write.

use std::sync::Arc;

use mobula_store::{Expect, StateStore, StoreError, Transaction, VALUE_BYTES_MAX};
use tracing::warn;

use crate::documents::{CONFIG_KEY, INTENT_KEY, StoredConfig, StoredIntent};
use crate::error::HeadError;

/// How often a write with an unknown outcome is looked up before the caller is told so.
const LOOKUPS_MAX: usize = 3;

/// The store's content as this head knows it.
pub struct Executor {
    store: Arc<dyn StateStore>,
    config: Slot,
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
            config: Slot::new(CONFIG_KEY),
            intent: Slot::new(INTENT_KEY),
        };
        executor.config.reload(&*executor.store).await?;
        executor.intent.reload(&*executor.store).await?;
        Ok(executor)
    }

    /// The config that was accepted last, if it was not deleted.
    pub fn config(&self) -> Result<Option<StoredConfig>, HeadError> {
        let bytes = self.config.bytes.as_deref();
        bytes
            .map(StoredConfig::from_bytes)
            .transpose()
            .map_err(HeadError::Stored)
    }

    /// What was decided last.
    pub fn intent(&self) -> Result<StoredIntent, HeadError> {
        match self.intent.bytes.as_deref() {
            None => Ok(StoredIntent::default()),
            Some(bytes) => StoredIntent::from_bytes(bytes).map_err(HeadError::Stored),
        }
    }

    /// Makes a config durable.
    pub async fn save_config(&mut self, config: &StoredConfig) -> Result<(), StoreError> {
        self.config
            .write(&*self.store, Some(config.to_bytes()))
            .await
    }

    /// Makes it durable that nothing is deployed.
    pub async fn delete_config(&mut self) -> Result<(), StoreError> {
        self.config.write(&*self.store, None).await
    }

    /// Makes the intent durable; costs nothing when it is the same.
    pub async fn save_intent(&mut self, intent: &StoredIntent) -> Result<(), StoreError> {
        self.intent
            .write(&*self.store, Some(intent.to_bytes()))
            .await
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

    async fn write(
        &mut self,
        store: &dyn StateStore,
        bytes: Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        if self.bytes == bytes {
            return Ok(());
        }
        let length = bytes.as_ref().map_or(0, Vec::len);
        if length > VALUE_BYTES_MAX {
            return Err(StoreError::Invalid(format!(
                "{} would have {length} bytes, allowed are {VALUE_BYTES_MAX}",
                self.key
            )));
        }
        let expect = self.revision.map_or(Expect::Absent, Expect::Revision);
        let transaction = Transaction::default().check(self.key, expect);
        let transaction = match &bytes {
            Some(bytes) => transaction.put(self.key, bytes.clone()),
            None => transaction.delete(self.key),
        };
        match store.commit(transaction).await {
            Ok(revision) => {
                self.revision = bytes.as_ref().map(|_| revision);
                self.bytes = bytes;
                Ok(())
            }
            Err(error @ (StoreError::Unknown(_) | StoreError::Conflict { .. })) => {
                self.look_up(store, bytes, error).await
            }
            Err(
                error @ (StoreError::Unavailable(_)
                | StoreError::Invalid(_)
                | StoreError::Corrupt(_)),
            ) => Err(error),
        }
    }

    /// Reads again; the write happened if the key holds what was to be written.
    async fn look_up(
        &mut self,
        store: &dyn StateStore,
        wanted: Option<Vec<u8>>,
        error: StoreError,
    ) -> Result<(), StoreError> {
        warn!(key = self.key, %error, "reading again what is stored");
        for _ in 0..LOOKUPS_MAX {
            if self.reload(store).await.is_ok() {
                return if self.bytes == wanted {
                    Ok(())
                } else {
                    Err(error)
                };
            }
        }
        Err(error)
    }
}
