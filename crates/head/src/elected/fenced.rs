//! A store whose writes are bound to one leadership.

use std::sync::Arc;

use async_trait::async_trait;
use mobula_store::{Fence, StateStore, StoreError, Transaction, Versioned};

/// Puts the fence on every transaction.
pub(super) struct FencedStore {
    store: Arc<dyn StateStore>,
    fence: Fence,
}

impl FencedStore {
    pub(super) fn new(store: Arc<dyn StateStore>, fence: Fence) -> FencedStore {
        FencedStore { store, fence }
    }
}

#[async_trait]
impl StateStore for FencedStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        self.store.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError> {
        self.store.list(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<u64, StoreError> {
        self.store.commit(transaction.fenced_by(&self.fence)).await
    }
}
