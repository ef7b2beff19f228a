//! Changes whose outcome the store does not tell.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use mobula_store::{MemoryStore, StateStore, StoreError, Transaction, Versioned};
use serde_json::json;

use super::ControlLoop;
use crate::documents::StoredConfig;
use crate::executor::Executor;
use crate::history::End;
use crate::message::{DeployError, Proposal};
use crate::world::World;
use crate::world::fixtures::{V1, at, config, told_apart};

/// A store that goes away with a write: it happened, and nobody can be asked.
#[derive(Default)]
struct Leaving {
    inside: MemoryStore,
    away: AtomicBool,
    leaves_with_next_write: AtomicBool,
}

impl Leaving {
    fn check(&self) -> Result<(), StoreError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("away".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl StateStore for Leaving {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        self.check()?;
        self.inside.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError> {
        self.check()?;
        self.inside.list(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<u64, StoreError> {
        self.check()?;
        let revision = self.inside.commit(transaction).await?;
        if self.leaves_with_next_write.swap(false, Ordering::Relaxed) {
            self.away.store(true, Ordering::Relaxed);
            return Err(StoreError::Unknown("the connection broke".to_owned()));
        }
        Ok(revision)
    }
}

fn proposal() -> Proposal {
    let spec = config(vec![told_apart("app", V1)]);
    let document = json!({"applications": [{"name": "app", "import_path": "test:app"}]});
    Proposal {
        config: StoredConfig::new(document, 1.0),
        spec,
        reason: "test".to_owned(),
        end: End::Superseded,
        expected: None,
    }
}

async fn step(control: &mut ControlLoop, ms: u64) {
    let mut new_id = || "r0000001".to_owned();
    control.step(|| at(ms), &mut new_id, |_| {}).await;
}

#[tokio::test]
async fn a_config_that_is_stored_counts_also_when_the_store_left_before_it_said_so() {
    let store = Arc::new(Leaving::default());
    let executor = Executor::load(store.clone()).await.unwrap();
    let mut control = ControlLoop::new(World::new("head", 0), executor);
    store.leaves_with_next_write.store(true, Ordering::Relaxed);
    let answer = control.deploy(proposal(), at(0)).await;
    let unknown = matches!(answer, Err(DeployError::Store(StoreError::Unknown(_))));
    assert!(unknown, "{answer:?}");
    step(&mut control, 100).await;
    assert!(control.world.applications.is_empty(), "nobody knows yet");

    store.away.store(false, Ordering::Relaxed);
    step(&mut control, 200).await;
    assert_eq!(control.world.revision, 1);
    assert!(control.world.applications.contains_key("app"));
    assert_eq!(control.executor.history().current, Some(1));
}

#[tokio::test]
async fn the_outcome_of_a_change_is_found_out_before_the_next_one_is_taken() {
    let store = Arc::new(Leaving::default());
    let executor = Executor::load(store.clone()).await.unwrap();
    let mut control = ControlLoop::new(World::new("head", 0), executor);
    control.deploy(proposal(), at(0)).await.unwrap();
    store.leaves_with_next_write.store(true, Ordering::Relaxed);
    control.delete_all(at(100)).await.unwrap_err();
    let refused = control.deploy(proposal(), at(200)).await;
    let away = matches!(refused, Err(DeployError::Store(StoreError::Unavailable(_))));
    assert!(away, "{refused:?}");

    store.away.store(false, Ordering::Relaxed);
    let deployed = control.deploy(proposal(), at(300)).await.unwrap();
    assert_eq!(deployed.revision, 3, "after the deletion, which is stored");
    assert_eq!(control.world.revision, 3);
    assert!(!control.world.applications["app"].deleting);
}
