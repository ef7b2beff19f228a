//! A store that forgets when the process ends, for tests and simulation.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::election::{
    Candidate, Election, LEASE_DEFAULT, Leader, LeaderStream, Leadership, local::LocalElection,
};
use crate::history::{self, History, Remembers};
use crate::transaction::{holds, last_writes};
use crate::{ChangeStream, StateStore, StoreError, Transaction, Versioned, Watch, Write};

/// Everything in one map. A handle of it: `handle` makes another one, as of another process.
pub struct MemoryStore {
    shared: Arc<Shared>,
    cut_off: Arc<AtomicBool>,
}

struct Shared {
    state: Mutex<State>,
    history: History,
    election: Arc<LocalElection>,
}

#[derive(Default)]
struct State {
    revision: u64,
    values: BTreeMap<String, Versioned>,
}

// === impl MemoryStore ===

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::of(Shared {
            state: Mutex::default(),
            history: History::after(0),
            election: Arc::new(LocalElection::new(LEASE_DEFAULT)),
        })
    }
}

impl MemoryStore {
    /// A store whose leaders' leases live this long, by tokio's clock.
    pub fn with_lease(lease: std::time::Duration) -> MemoryStore {
        MemoryStore::of(Shared {
            state: Mutex::default(),
            history: History::after(0),
            election: Arc::new(LocalElection::new(lease)),
        })
    }

    fn of(shared: Shared) -> MemoryStore {
        MemoryStore {
            shared: Arc::new(shared),
            cut_off: Arc::default(),
        }
    }

    /// Another handle of the same store, which is reachable whether this one is or not.
    pub fn handle(&self) -> MemoryStore {
        MemoryStore {
            shared: Arc::clone(&self.shared),
            cut_off: Arc::default(),
        }
    }

    /// Cuts this handle off, or connects it again: every call fails and no lease that was got
    /// through it is renewed.
    pub fn cut_off(&self, cut_off: bool) {
        self.cut_off.store(cut_off, Ordering::Relaxed);
    }

    fn reach(&self) -> Result<&Shared, StoreError> {
        reachable(&self.cut_off)?;
        Ok(&self.shared)
    }
}

fn reachable(cut_off: &AtomicBool) -> Result<(), StoreError> {
    if cut_off.load(Ordering::Relaxed) {
        return Err(StoreError::Unavailable("cut off".to_owned()));
    }
    Ok(())
}

#[async_trait]
impl StateStore for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        Ok(self.reach()?.lock().values.get(key).cloned())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError> {
        Ok(self.reach()?.lock().list(prefix))
    }

    async fn commit(&self, transaction: Transaction) -> Result<u64, StoreError> {
        transaction.validate()?;
        let shared = self.reach()?;
        let _leading = shared.election.hold(transaction.fence.as_ref())?;
        let mut state = shared.lock();
        let (revision, done) = state.commit(transaction)?;
        // Still under the lock: told in the order of revisions.
        shared.history.record(revision, done);
        Ok(revision)
    }
}

#[async_trait]
impl Watch for MemoryStore {
    async fn watch(&self, prefix: &str, from_revision: u64) -> Result<ChangeStream, StoreError> {
        self.reach()?;
        Ok(history::watch(
            Arc::clone(&self.shared),
            prefix,
            from_revision,
        ))
    }
}

#[async_trait]
impl Election for MemoryStore {
    async fn campaign(&self, candidate: Candidate) -> Result<Leadership, StoreError> {
        let cut_off = Arc::clone(&self.cut_off);
        let reachable = Arc::new(move || reachable(&cut_off));
        self.shared.election.campaign(candidate, reachable).await
    }

    async fn leader(&self) -> Result<Option<Leader>, StoreError> {
        Ok(self.reach()?.election.leader())
    }

    async fn watch_leader(&self) -> Result<LeaderStream, StoreError> {
        Ok(self.reach()?.election.watch_leader())
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        let state = self.lock();
        Ok((state.revision, state.list(prefix)))
    }
}

// === impl State ===

impl State {
    fn list(&self, prefix: &str) -> Vec<(String, Versioned)> {
        let from_prefix = self.values.range(prefix.to_owned()..);
        let matching = from_prefix.take_while(|(key, _)| key.starts_with(prefix));
        matching
            .map(|(key, versioned)| (key.clone(), versioned.clone()))
            .collect()
    }

    /// The new revision and what was changed.
    fn commit(&mut self, transaction: Transaction) -> Result<(u64, Vec<Write>), StoreError> {
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
        let mut done = last_writes(transaction.writes);
        done.retain(|write| self.apply(write));
        Ok((self.revision, done))
    }

    /// Whether it changed anything.
    fn apply(&mut self, write: &Write) -> bool {
        match write {
            Write::Put { key, value } => {
                let versioned = Versioned {
                    value: value.clone(),
                    revision: self.revision,
                };
                self.values.insert(key.clone(), versioned);
                true
            }
            Write::Delete { key } => self.values.remove(key).is_some(),
        }
    }
}
