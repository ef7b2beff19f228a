//! A store that forgets when the process ends, for tests and simulation.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use crate::{StateStore, StoreError, Transaction, Versioned, Write, holds};

/// Everything in one map.
#[derive(Default)]
pub struct MemoryStore(Mutex<State>);

#[derive(Default)]
struct State {
    revision: u64,
    values: BTreeMap<String, Versioned>,
}

impl State {
    fn commit(&mut self, transaction: Transaction) -> Result<u64, StoreError> {
        for check in &transaction.checks {
            let now = self
                .values
                .get(&check.key)
                .map(|versioned| versioned.revision);
            if !holds(&check.expect, now) {
                return Err(StoreError::Conflict {
                    key: check.key.clone(),
                });
            }
        }
        self.revision += 1;
        for write in transaction.writes {
            match write {
                Write::Put { key, value } => {
                    self.values.insert(
                        key,
                        Versioned {
                            value,
                            revision: self.revision,
                        },
                    );
                }
                Write::Delete { key } => {
                    self.values.remove(&key);
                }
            }
        }
        Ok(self.revision)
    }
}

#[async_trait]
impl StateStore for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(state.values.get(key).cloned())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from_prefix = state.values.range(prefix.to_owned()..);
        let matching = from_prefix.take_while(|(key, _)| key.starts_with(prefix));
        Ok(matching
            .map(|(key, versioned)| (key.clone(), versioned.clone()))
            .collect())
    }

    async fn commit(&self, transaction: Transaction) -> Result<u64, StoreError> {
        transaction.validate()?;
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .commit(transaction)
    }
}
