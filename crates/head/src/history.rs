//! The accepted configs of the past, as the head keeps them. Pure: time is an argument.
//!
//! An index says of each revision when it came, why, and what became of it; the configs
//! themselves lie beside it under their revisions, so that changing the index is cheap. The
//! index is written in the same transaction as the config that it names as the current one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::world::World;
use crate::world::application_status::{AppState, status_of_what_counts};

/// Configs that can be gone back to. Enough for a bad day; each may have a megabyte.
pub const REVISIONS_KEPT_MAX: usize = 10;

/// Bytes of one application's error that the index keeps; the status document has it whole.
const ERROR_BYTES_MAX: usize = 500;

/// Applications whose errors the index keeps of one revision.
const ERRORS_MAX: usize = 10;

/// The index. The default is that of a store in which nothing was ever deployed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The revision whose config is deployed.
    pub current: Option<u64>,
    /// Oldest first.
    pub records: Vec<Record>,
}

/// One accepted change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub revision: u64,
    /// Unix time.
    pub time_s: f64,
    /// Why it came: what was asked for, or what it takes back.
    pub reason: String,
    pub outcome: Outcome,
    /// All its applications were RUNNING at one time.
    pub ran: bool,
    /// Of the config's bytes, so that the same index means the same configs.
    #[serde(default)]
    pub digest: String,
    /// What failed in which application.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, String>,
}

/// What became of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Current, on its way.
    Deploying,
    /// Current, and all its applications were RUNNING.
    Running,
    /// An application of it failed to deploy.
    Failed,
    /// A newer config came.
    Superseded,
    /// It was taken back.
    RolledBack,
    /// Everything was deleted: there is no config to go back to.
    Deleted,
}

/// Why the current revision stops being it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Superseded,
    RolledBack,
}

/// What a change of the history writes and removes beside the index.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    pub history: History,
    pub revision: u64,
    /// Revisions whose configs are not kept any more.
    pub pruned: Vec<u64>,
}

// === impl History ===

impl History {
    /// The newest revision, deployed or deleted; 0 before the first.
    pub fn version(&self) -> u64 {
        self.records.last().map_or(0, |record| record.revision)
    }

    /// What clients see, newest first.
    pub fn document(&self) -> Value {
        let records: Vec<Value> = self.records.iter().rev().map(Record::shown).collect();
        json!({
            "current": self.current,
            "kept_max": REVISIONS_KEPT_MAX,
            "revisions": records,
        })
    }

    /// The record of a revision.
    pub fn record(&self, revision: u64) -> Option<&Record> {
        self.records
            .iter()
            .find(|record| record.revision == revision)
    }

    /// The history with one more config, which is the current one from now on.
    pub fn accept(&self, time_s: f64, reason: &str, end: &End) -> Accepted {
        self.with(time_s, reason, end, Outcome::Deploying)
    }

    /// The history after the current config was deployed once more: a new try.
    pub fn accept_again(&self, revision: u64, time_s: f64) -> Accepted {
        let mut history = self.clone();
        if let Some(record) = history.current_mut() {
            record.time_s = time_s;
            if record.outcome == Outcome::Failed {
                record.outcome = Outcome::Deploying;
                record.errors.clear();
            }
        }
        Accepted {
            history,
            revision,
            pruned: Vec::new(),
        }
    }

    /// The history after everything was deleted.
    pub fn delete(&self, time_s: f64) -> Accepted {
        let end = End::Superseded;
        self.with(time_s, "everything was deleted", &end, Outcome::Deleted)
    }

    fn with(&self, time_s: f64, reason: &str, end: &End, outcome: Outcome) -> Accepted {
        let mut history = self.clone();
        let revision = self.version() + 1;
        if let Some(record) = history.current_mut() {
            record.outcome = match (end, record.outcome) {
                (End::RolledBack, _) => Outcome::RolledBack,
                (End::Superseded, Outcome::Failed) => Outcome::Failed,
                (End::Superseded, _) => Outcome::Superseded,
            };
        }
        history.records.push(Record {
            revision,
            time_s,
            reason: shortened(reason),
            outcome,
            ran: false,
            digest: String::new(),
            errors: BTreeMap::new(),
        });
        history.current = (outcome != Outcome::Deleted).then_some(revision);
        let pruned = history.prune();
        Accepted {
            history,
            revision,
            pruned,
        }
    }

    /// Keeps the newest ones, and the newest that ran even if it is older than those.
    fn prune(&mut self) -> Vec<u64> {
        let excess = self.records.len().saturating_sub(REVISIONS_KEPT_MAX);
        let last_good = self
            .records
            .iter()
            .rev()
            .find(|record| record.ran)
            .map(|record| record.revision);
        let mut pruned = Vec::new();
        for record in self.records.drain(..excess).collect::<Vec<_>>() {
            if Some(record.revision) == last_good {
                self.records.insert(0, record);
            } else {
                pruned.push(record.revision);
            }
        }
        pruned
    }

    /// Brings the current record up to date with how its applications are doing. A config
    /// that ran once has proven itself; what happens to its replicas later is not its fault.
    pub fn note(&mut self, world: &World) {
        let Some(record) = self.current_mut() else {
            return;
        };
        let declared = || world.applications.iter().filter(|(_, app)| !app.deleting);
        if record.ran || declared().next().is_none() {
            return;
        }
        if declared().all(|(_, app)| app.runs_as_declared()) {
            record.ran = true;
            record.outcome = Outcome::Running;
            record.errors.clear();
            return;
        }
        let failed = declared().filter_map(|(name, app)| {
            let (state, message) = status_of_what_counts(app);
            (state == AppState::DeployFailed).then(|| (name.clone(), shortened(&message)))
        });
        let errors: BTreeMap<String, String> = failed.take(ERRORS_MAX).collect();
        if !errors.is_empty() {
            record.outcome = Outcome::Failed;
            record.errors = errors;
        }
    }

    /// What failed in the current config, as it is taken back.
    pub fn blame(&mut self, application: &str, error: &str) {
        if let Some(record) = self.current_mut() {
            // It may have run, for a moment: nothing to go back to.
            record.ran = false;
            record
                .errors
                .insert(application.to_owned(), shortened(error));
        }
    }

    /// The history with the digest of the current config's bytes.
    #[must_use]
    pub fn with_digest(&self, bytes: &[u8]) -> History {
        let mut history = self.clone();
        if let Some(record) = history.current_mut() {
            let digest = Sha256::digest(bytes);
            record.digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        }
        history
    }

    /// Revisions to go back to when none is named, best first: those that ran, newest first,
    /// without the current one.
    pub fn good(&self) -> impl Iterator<Item = u64> {
        self.records
            .iter()
            .rev()
            .filter(|record| record.ran && Some(record.revision) != self.current)
            .map(|record| record.revision)
    }

    fn current_mut(&mut self) -> Option<&mut Record> {
        let current = self.current?;
        self.records
            .iter_mut()
            .find(|record| record.revision == current)
    }
}

// === impl Record ===

impl Record {
    /// What only proves which bytes are stored is left out: it would let a guess at a secret be
    /// checked.
    fn shown(&self) -> Value {
        let mut shown = json!(self);
        if let Some(fields) = shown.as_object_mut() {
            fields.remove("digest");
        }
        shown
    }
}

fn shortened(text: &str) -> String {
    if text.len() <= ERROR_BYTES_MAX {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(ERROR_BYTES_MAX)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(history: &History, end: End) -> Accepted {
        history.accept(1.0, "deployed", &end)
    }

    #[test]
    fn revisions_only_grow_and_the_oldest_are_forgotten() {
        let mut history = History::default();
        let mut kept = Vec::new();
        for expected in 1..=30 {
            let next = accepted(&history, End::Superseded);
            assert_eq!(next.revision, expected);
            kept.push(expected);
            kept.retain(|revision| !next.pruned.contains(revision));
            history = next.history;
            let listed: Vec<u64> = history.records.iter().map(|r| r.revision).collect();
            assert_eq!(listed, kept);
            assert!(kept.len() <= REVISIONS_KEPT_MAX);
        }
    }

    #[test]
    fn the_last_one_that_ran_outlives_any_number_of_failures() {
        let mut history = accepted(&History::default(), End::Superseded).history;
        history.records[0].ran = true;
        for _ in 0..30 {
            history = accepted(&history, End::RolledBack).history;
        }
        assert_eq!(history.good().collect::<Vec<_>>(), [1]);
        assert_eq!(history.records.len(), REVISIONS_KEPT_MAX + 1);
    }

    #[test]
    fn what_failed_stays_failed_when_a_newer_one_comes() {
        let mut history = accepted(&History::default(), End::Superseded).history;
        history.records[0].outcome = Outcome::Failed;
        let newer = accepted(&history, End::Superseded).history;
        assert_eq!(newer.records[0].outcome, Outcome::Failed);
        let newest = accepted(&newer, End::RolledBack).history;
        assert_eq!(newest.records[1].outcome, Outcome::RolledBack);
        let deleted = newest.delete(2.0);
        assert_eq!((deleted.revision, deleted.history.current), (4, None));
        assert_eq!(deleted.history.records[2].outcome, Outcome::Superseded);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = shortened(&"é".repeat(ERROR_BYTES_MAX));
        assert!(text.len() <= ERROR_BYTES_MAX + '…'.len_utf8());
        assert!(text.starts_with('é') && text.ends_with('…'));
    }
}
