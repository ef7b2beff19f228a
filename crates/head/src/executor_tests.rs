//! What the executor makes of a store that fails in each of its ways.

use std::sync::Arc;
use std::sync::Mutex;

use async_trait::async_trait;
use mobula_store::{MemoryStore, StateStore, StoreError, Transaction, Versioned};
use serde_json::json;

use crate::documents::{CONFIG_KEY, StoredConfig};
use crate::executor::Executor;

/// What happens to the next commit.
#[derive(Clone, Copy)]
enum Fault {
    /// It does not happen.
    Refused,
    /// It happens, and the answer is lost.
    AnswerLost,
    /// It does not happen, and neither does an answer.
    RequestLost,
}

#[derive(Default)]
struct Faulty {
    inside: MemoryStore,
    next: Mutex<Option<Fault>>,
}

#[async_trait]
impl StateStore for Faulty {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        self.inside.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError> {
        self.inside.list(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<u64, StoreError> {
        let fault = self.next.lock().unwrap().take();
        match fault {
            None => self.inside.commit(transaction).await,
            Some(Fault::Refused) => Err(StoreError::Unavailable("disk".to_owned())),
            Some(Fault::RequestLost) => Err(StoreError::Unknown("time-out".to_owned())),
            Some(Fault::AnswerLost) => {
                self.inside.commit(transaction).await?;
                Err(StoreError::Unknown("time-out".to_owned()))
            }
        }
    }
}

fn config(name: &str) -> StoredConfig {
    StoredConfig::new(
        json!({"applications": [{"name": name, "import_path": "a:b"}]}),
        1.0,
    )
}

async fn stored(store: &Faulty) -> Option<StoredConfig> {
    let found = store.get(CONFIG_KEY).await.unwrap();
    found.map(|found| StoredConfig::from_bytes(&found.value).unwrap())
}

#[tokio::test]
async fn a_write_is_only_said_to_have_happened_when_it_is_stored() {
    let store = Arc::new(Faulty::default());
    let mut executor = Executor::load(store.clone()).await.unwrap();
    executor.save_config(&config("one")).await.unwrap();
    for (fault, happens) in [
        (Fault::Refused, false),
        (Fault::RequestLost, false),
        (Fault::AnswerLost, true),
    ] {
        *store.next.lock().unwrap() = Some(fault);
        let said = executor.save_config(&config("two")).await.is_ok();
        assert_eq!(said, happens);
        let expected = if happens {
            config("two")
        } else {
            config("one")
        };
        assert_eq!(stored(&store).await, Some(expected));
    }
    // After each of them the next write works.
    executor.save_config(&config("three")).await.unwrap();
    executor.delete_config().await.unwrap();
    assert_eq!(stored(&store).await, None);
}

#[tokio::test]
async fn a_write_of_somebody_else_is_not_overwritten_unseen() {
    let store = Arc::new(Faulty::default());
    let mut one = Executor::load(store.clone()).await.unwrap();
    let mut other = Executor::load(store.clone()).await.unwrap();
    one.save_config(&config("one")).await.unwrap();
    let error = other.save_config(&config("other")).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    assert_eq!(stored(&store).await, Some(config("one")));
    // Having read it, the next try is a decision.
    other.save_config(&config("other")).await.unwrap();
    assert_eq!(stored(&store).await, Some(config("other")));
}
