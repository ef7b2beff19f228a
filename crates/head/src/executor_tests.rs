//! What the executor makes of a store that fails in each of its ways.

use std::sync::Arc;
use std::sync::Mutex;

use async_trait::async_trait;
use mobula_store::{MemoryStore, StateStore, StoreError, Transaction, Versioned};
use serde_json::json;

use crate::documents::{HISTORY_KEY, LEGACY_CONFIG_KEY, StoredConfig, config_key};
use crate::executor::Executor;
use crate::history::{End, REVISIONS_KEPT_MAX};

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

async fn stored(store: &Arc<Faulty>) -> Option<StoredConfig> {
    let executor = Executor::load(store.clone()).await.unwrap();
    executor.config(executor.history().current?).await.unwrap()
}

async fn save(executor: &mut Executor, name: &str) -> Result<(), StoreError> {
    let accepted = executor.history().accept(1.0, "test", &End::Superseded);
    executor.accept(&accepted, Some(&config(name))).await
}

#[tokio::test]
async fn the_config_of_a_release_without_a_history_is_its_first_revision() {
    let store = Arc::new(Faulty::default());
    let old = Transaction::default().put(LEGACY_CONFIG_KEY, config("old").to_bytes());
    store.commit(old).await.unwrap();
    let executor = Executor::load(store.clone()).await.unwrap();
    assert_eq!(executor.history().current, Some(1));
    assert_eq!(stored(&store).await, Some(config("old")));
    assert_eq!(store.get(LEGACY_CONFIG_KEY).await.unwrap(), None);
}

#[tokio::test]
async fn configs_that_are_not_listed_any_more_are_not_stored_any_more() {
    let store = Arc::new(Faulty::default());
    let mut executor = Executor::load(store.clone()).await.unwrap();
    for index in 0..2 * REVISIONS_KEPT_MAX {
        save(&mut executor, &format!("c{index}")).await.unwrap();
    }
    let listed = executor.history().records.iter();
    let mut keys: Vec<String> = listed.map(|record| config_key(record.revision)).collect();
    keys.push(HISTORY_KEY.to_owned());
    let found = store.list("serve/history/").await.unwrap();
    assert_eq!(
        found.into_iter().map(|(key, _)| key).collect::<Vec<_>>(),
        keys
    );
    assert_eq!(keys.len(), REVISIONS_KEPT_MAX + 1);
}

#[tokio::test]
async fn a_write_is_only_said_to_have_happened_when_it_is_stored() {
    let store = Arc::new(Faulty::default());
    let mut executor = Executor::load(store.clone()).await.unwrap();
    save(&mut executor, "one").await.unwrap();
    for (fault, happens) in [
        (Fault::Refused, false),
        (Fault::RequestLost, false),
        (Fault::AnswerLost, true),
    ] {
        *store.next.lock().unwrap() = Some(fault);
        let said = save(&mut executor, "two").await.is_ok();
        assert_eq!(said, happens);
        let expected = if happens {
            config("two")
        } else {
            config("one")
        };
        assert_eq!(stored(&store).await, Some(expected));
    }
    // After each of them the next write works.
    save(&mut executor, "three").await.unwrap();
    let deleted = executor.history().delete(2.0);
    executor.accept(&deleted, None).await.unwrap();
    assert_eq!(stored(&store).await, None);
}

#[tokio::test]
async fn a_write_of_somebody_else_is_not_overwritten_unseen() {
    let store = Arc::new(Faulty::default());
    let mut one = Executor::load(store.clone()).await.unwrap();
    let mut other = Executor::load(store.clone()).await.unwrap();
    save(&mut one, "one").await.unwrap();
    let error = save(&mut other, "other").await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    assert_eq!(stored(&store).await, Some(config("one")));
    // Having read it, the next try is a decision.
    save(&mut other, "other").await.unwrap();
    assert_eq!(stored(&store).await, Some(config("other")));
}
