//! What a store inside this process remembers of its newest changes, so that watchers can be
//! told without holding up the writer: a watcher that falls further behind than this is given
//! everything anew.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::stream;
use tokio::sync::watch;

use crate::{Change, ChangeStream, StoreError, Versioned, WatchEvent, Write};

/// Remembered revisions: far more than a watcher that lives falls behind.
pub const HISTORY_REVISIONS_MAX: usize = 1024;

/// Remembered keys and values: a few of the largest transactions.
pub const HISTORY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The newest changes, complete from some revision on.
pub(crate) struct History {
    remembered: Mutex<Remembered>,
    newest: watch::Sender<u64>,
}

struct Remembered {
    /// The first revision that is remembered, if it exists yet.
    first: u64,
    changes: VecDeque<(u64, Vec<Change>)>,
    bytes: usize,
}

/// What there is from a revision on.
enum Since {
    Forgotten,
    Changes {
        events: Vec<WatchEvent>,
        newest: u64,
    },
}

/// A store that keeps a history.
#[async_trait]
pub(crate) trait Remembers: Send + Sync + 'static {
    fn history(&self) -> &History;

    /// All keys below a prefix, and the revision as of which they are.
    async fn snapshot(
        self: Arc<Self>,
        prefix: &str,
    ) -> Result<(u64, Vec<(String, Versioned)>), StoreError>;
}

/// A watch of a store inside this process.
pub(crate) fn watch(store: Arc<impl Remembers>, prefix: &str, from_revision: u64) -> ChangeStream {
    let watcher = Watcher {
        newest: store.history().newest.subscribe(),
        store,
        prefix: prefix.to_owned(),
        next_revision: from_revision,
        events: VecDeque::new(),
    };
    Box::pin(stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        match watcher.next().await {
            Ok(event) => Some((Ok(event), Some(watcher))),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

struct Watcher<S> {
    store: Arc<S>,
    prefix: String,
    next_revision: u64,
    events: VecDeque<WatchEvent>,
    newest: watch::Receiver<u64>,
}

// === impl History ===

impl History {
    /// Remembers nothing up to this revision.
    pub(crate) fn after(revision: u64) -> History {
        History {
            remembered: Mutex::new(Remembered {
                first: revision + 1,
                changes: VecDeque::new(),
                bytes: 0,
            }),
            newest: watch::Sender::new(revision),
        }
    }

    /// Adds a transaction. Called in order of revisions.
    pub(crate) fn record(&self, revision: u64, writes: Vec<Write>) {
        let changes: Vec<Change> = writes.into_iter().map(Change::from).collect();
        {
            let mut remembered = self.lock();
            remembered.bytes += bytes_of(&changes);
            remembered.changes.push_back((revision, changes));
            remembered.forget_the_oldest();
        }
        self.newest.send_replace(revision);
    }

    fn since(&self, from_revision: u64, prefix: &str) -> Since {
        let remembered = self.lock();
        if from_revision < remembered.first {
            return Since::Forgotten;
        }
        let newest = remembered
            .changes
            .back()
            .map_or(remembered.first - 1, |(revision, _)| *revision);
        let later = remembered
            .changes
            .iter()
            .filter(|(revision, _)| *revision >= from_revision);
        let events = later
            .map(|(revision, changes)| (*revision, below(prefix, changes)))
            .filter(|(_, changes)| !changes.is_empty())
            .map(|(revision, changes)| WatchEvent::Changed { revision, changes })
            .collect();
        Since::Changes { events, newest }
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    fn forget_the_oldest(&mut self) {
        while self.changes.len() > HISTORY_REVISIONS_MAX || self.bytes > HISTORY_BYTES_MAX {
            let Some((revision, changes)) = self.changes.pop_front() else {
                return;
            };
            self.first = revision + 1;
            self.bytes -= bytes_of(&changes);
        }
    }
}

// === impl Watcher ===

impl<S: Remembers> Watcher<S> {
    async fn next(&mut self) -> Result<WatchEvent, StoreError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            // Marked as seen before it is read: what comes in between wakes us again.
            self.newest.mark_unchanged();
            match self.store.history().since(self.next_revision, &self.prefix) {
                Since::Forgotten => {
                    let (revision, values) = Arc::clone(&self.store).snapshot(&self.prefix).await?;
                    self.next_revision = revision + 1;
                    return Ok(WatchEvent::Relisted { revision, values });
                }
                Since::Changes { events, newest } => {
                    self.next_revision = self.next_revision.max(newest + 1);
                    self.events.extend(events);
                }
            }
            if self.events.is_empty() && self.newest.changed().await.is_err() {
                // The sender lives in the store, which this watcher holds.
                return Err(StoreError::Unavailable("the store was closed".to_owned()));
            }
        }
    }
}

// === impl Change ===

impl From<Write> for Change {
    fn from(write: Write) -> Change {
        match write {
            Write::Put { key, value } => Change::Put { key, value },
            Write::Delete { key } => Change::Delete { key },
        }
    }
}

fn below(prefix: &str, changes: &[Change]) -> Vec<Change> {
    let below = changes
        .iter()
        .filter(|change| change.key().starts_with(prefix));
    below.cloned().collect()
}

fn bytes_of(changes: &[Change]) -> usize {
    let bytes = changes.iter().map(|change| match change {
        Change::Put { key, value } => key.len() + value.len(),
        Change::Delete { key } => key.len(),
    });
    bytes.sum()
}
