//! A store whose writes are bound to one leadership.

use std::sync::Arc;

use async_trait::async_trait;
use mobula_store::{Fence, StateStore, StoreError, Transaction, Versioned};

/// Puts the fence on every transaction.
pub struct FencedStore {
    store: Arc<dyn StateStore>,
    fence: Fence,
}

impl FencedStore {
    /// The store, written to as long as the leadership holds.
    pub fn new(store: Arc<dyn StateStore>, fence: Fence) -> FencedStore {
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

#[cfg(test)]
mod tests {
    use mobula_store::{Candidate, Election, MemoryStore};

    use super::*;

    #[tokio::test]
    async fn a_head_that_lost_the_lead_cannot_write() {
        let store = Arc::new(MemoryStore::default());
        let candidate = Candidate {
            name: "head-1".to_owned(),
            address: "http://127.0.0.1:8265".to_owned(),
        };
        let leadership = store.campaign(candidate).await.unwrap();
        let fenced = FencedStore::new(store.clone(), leadership.fence().clone());
        let put = |value: &[u8]| Transaction::default().put("serve/config", value);
        fenced.commit(put(b"leading")).await.unwrap();
        leadership.resign().await.unwrap();
        let refused = fenced.commit(put(b"deposed")).await;
        assert!(matches!(refused, Err(StoreError::Fenced)), "{refused:?}");
        let stored = fenced.get("serve/config").await.unwrap().unwrap();
        assert_eq!(stored.value, b"leading");
    }
}
