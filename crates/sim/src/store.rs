//! The store of the whole cluster: the real election's rules, fences, and outcomes that nobody
//! knows. Answers come at once; how long they would have taken is added up for the asker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mobula_store::{
    Ballot, Candidate, Expect, LEASE_DEFAULT, StateStore, StoreError, Transaction, Versioned, Write,
};
use serde_json::Value;

use crate::rng::Rng;
use crate::sabotage::Sabotage;

/// Where the head keeps its index; a property reads it.
const INDEX: &str = "serve/history/index";

/// Where it keeps its decisions.
const INTENT: &str = "serve/intent";

#[derive(Clone)]
pub struct Store(Arc<Mutex<State>>);

pub struct State {
    pub now: u64,
    revision: u64,
    values: BTreeMap<String, Versioned>,
    ballot: Ballot,
    rng: Rng,
    /// Heads that do not reach it.
    pub cut: [bool; 3],
    pub outage: bool,
    /// Milliseconds that a call may take beyond the usual.
    pub slow_ms: u64,
    spent_ms: u64,
    /// The newest that was ever elected.
    last_term: u64,
    newest_max: u64,
    sabotage: Option<Sabotage>,
    /// As they were some writes ago, for one that forgets.
    earlier: BTreeMap<String, Versioned>,
    pub commits: u64,
    pub unknown: u64,
    pub violations: Vec<String>,
}

/// The store as one head reaches it.
pub struct Handle {
    store: Store,
    head: usize,
}

impl Store {
    pub fn new(rng: Rng, sabotage: Option<Sabotage>) -> Store {
        Store(Arc::new(Mutex::new(State {
            now: 0,
            revision: 0,
            values: BTreeMap::new(),
            ballot: Ballot::default(),
            rng,
            cut: [false; 3],
            outage: false,
            slow_ms: 0,
            spent_ms: 0,
            last_term: 0,
            newest_max: 0,
            sabotage,
            earlier: BTreeMap::new(),
            commits: 0,
            unknown: 0,
            violations: Vec::new(),
        })))
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn handle(&self, head: usize) -> Handle {
        Handle {
            store: self.clone(),
            head,
        }
    }
}

impl State {
    pub fn reaches(&self, head: usize) -> bool {
        !self.outage && !self.cut[head]
    }

    /// The term, if nobody else leads.
    pub fn campaign(&mut self, head: usize) -> Option<u64> {
        if !self.reaches(head) {
            return None;
        }
        let candidate = Candidate {
            name: format!("head-{head}"),
            address: format!("head-{head}"),
        };
        let now = Duration::from_millis(self.now);
        let won = self.ballot.campaign(&candidate, now, LEASE_DEFAULT);
        let term = won.ok()?.revision;
        self.last_term = self.last_term.max(term);
        Some(term)
    }

    /// None: the store does not answer.
    pub fn renew(&mut self, head: usize, term: u64) -> Option<bool> {
        let now = Duration::from_millis(self.now);
        self.reaches(head)
            .then(|| self.ballot.renew(term, now, LEASE_DEFAULT))
    }

    pub fn resign(&mut self, head: usize, term: u64) {
        if self.reaches(head) {
            self.ballot.resign(term);
        }
    }

    /// How long what was asked since the last time took.
    pub fn take_spent_ms(&mut self) -> u64 {
        std::mem::take(&mut self.spent_ms)
    }

    /// The newest revision and the current one.
    pub fn index(&self) -> (u64, Option<u64>) {
        let index = self.values.get(INDEX).map(|found| index(&found.value));
        index.unwrap_or_default()
    }

    /// The config of the current revision.
    pub fn current_config(&self) -> Option<Value> {
        let (_, current) = self.index();
        let key = format!("serve/history/{:020}", current?);
        let found = self.values.get(&key)?;
        let stored: Value = serde_json::from_slice(&found.value).ok()?;
        Some(stored["config"].clone())
    }

    /// Whether a text is in any value.
    pub fn mentions(&self, text: &str) -> bool {
        self.values
            .values()
            .any(|value| String::from_utf8_lossy(&value.value).contains(text))
    }

    fn spend(&mut self) {
        self.spent_ms += self.rng.range(1, 4);
        if self.slow_ms > 0 {
            self.spent_ms += self.rng.range(0, self.slow_ms);
        }
    }

    fn apply(&mut self, mut transaction: Transaction) -> Result<u64, StoreError> {
        let term = transaction.fence.as_ref().map(|fence| fence.revision());
        let now = Duration::from_millis(self.now);
        let Some(term) = term else {
            self.violated("only_the_leader_writes", "a write without a fence");
            return Err(StoreError::Fenced);
        };
        let fenced = !self.breaks(Sabotage::IgnoreFences);
        if fenced && !self.ballot.holds(term, now) {
            return Err(StoreError::Fenced);
        }
        for check in transaction.checks.iter().filter(|_| fenced) {
            let there = self.values.get(&check.key).map(|found| found.revision);
            let holds = match check.expect {
                Expect::Absent => there.is_none(),
                Expect::Revision(revision) => there == Some(revision),
            };
            if !holds {
                let key = check.key.clone();
                return Err(StoreError::Conflict { key });
            }
        }
        if term < self.last_term {
            let text = format!("term {term} wrote after term {}", self.last_term);
            self.violated("only_the_leader_writes", &text);
        }
        self.commits += 1;
        self.revision += 1;
        if self.spoil(&mut transaction) {
            return Ok(self.revision);
        }
        for write in transaction.writes {
            match write {
                Write::Put { key, value } => {
                    let revision = self.revision;
                    self.values.insert(key, Versioned { value, revision });
                }
                Write::Delete { key } => drop(self.values.remove(&key)),
            }
        }
        self.check_history();
        Ok(self.revision)
    }

    fn check_history(&mut self) {
        let (newest, current) = self.index();
        if newest < self.newest_max {
            let text = format!("from {} to {newest}", self.newest_max);
            self.violated("the_history_goes_forward", &text);
        }
        self.newest_max = self.newest_max.max(newest);
        if current.is_some() && self.current_config().is_none() {
            let text = format!("{current:?} has none");
            self.violated("the_current_revision_has_its_config", &text);
        }
    }

    fn violated(&mut self, property: &str, what: &str) {
        self.violations.push(format!("{property}: {what}"));
    }

    // ---- what is broken on purpose ----

    fn breaks(&self, sabotage: Sabotage) -> bool {
        self.sabotage == Some(sabotage)
    }

    /// Changes what is about to be written; true: nothing is.
    fn spoil(&mut self, transaction: &mut Transaction) -> bool {
        let Some(sabotage) = self.sabotage else {
            return false;
        };
        let is_index = |write: &Write| matches!(write, Write::Put { key, .. } if key == INDEX);
        let accepts = transaction.writes.len() > 1 && transaction.writes.iter().any(is_index);
        match sabotage {
            Sabotage::LoseWrites if accepts => return self.rng.percent(20),
            Sabotage::ForgetWrites => match self.commits % 10 {
                5 => self.earlier.clone_from(&self.values),
                0 => {
                    self.values.clone_from(&self.earlier);
                    return true;
                }
                _ => {}
            },
            Sabotage::SplitTransactions if accepts && self.rng.percent(20) => {
                transaction.writes.retain(is_index);
            }
            Sabotage::TearValues => {
                for write in &mut transaction.writes {
                    if let Write::Put { key, value } = write
                        && key == INTENT
                    {
                        value.truncate(value.len() / 2);
                    }
                }
            }
            Sabotage::CutHistory if self.commits > 50 => {
                for write in &mut transaction.writes {
                    if let Write::Put { key, value } = write
                        && key == INDEX
                    {
                        let mut index: Value = serde_json::from_slice(value).unwrap_or_default();
                        if let Some(records) = index["records"].as_array_mut() {
                            records.truncate(1);
                        }
                        *value = index.to_string().into_bytes();
                    }
                }
            }
            _ => {}
        }
        false
    }
}

fn index(bytes: &[u8]) -> (u64, Option<u64>) {
    let index: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let newest = index["records"]
        .as_array()
        .and_then(|records| records.last())
        .and_then(|record| record["revision"].as_u64());
    (newest.unwrap_or(0), index["current"].as_u64())
}

#[async_trait]
impl StateStore for Handle {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        let mut state = self.store.lock();
        state.spend();
        if !state.reaches(self.head) {
            return Err(StoreError::Unavailable("not reached".to_owned()));
        }
        Ok(state.values.get(key).cloned())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError> {
        let mut state = self.store.lock();
        state.spend();
        if !state.reaches(self.head) {
            return Err(StoreError::Unavailable("not reached".to_owned()));
        }
        let found = state
            .values
            .iter()
            .filter(|(key, _)| key.starts_with(prefix));
        Ok(found
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    async fn commit(&self, transaction: Transaction) -> Result<u64, StoreError> {
        let mut state = self.store.lock();
        state.spend();
        let unknown = || StoreError::Unknown("the answer was lost".to_owned());
        if state.reaches(self.head) {
            let lost = state.slow_ms > 0 && state.rng.percent(10);
            let outcome = state.apply(transaction);
            if lost {
                state.unknown += 1;
                return Err(unknown());
            }
            return outcome;
        }
        if state.rng.percent(70) {
            return Err(StoreError::Unavailable("not reached".to_owned()));
        }
        // The last thing that passed, or the first that did not.
        state.unknown += 1;
        if state.rng.percent(50) {
            drop(state.apply(transaction));
        }
        Err(unknown())
    }
}
