//! A watch that outlives connections and compactions.
//!
//! `Events` is the watch of a range as etcd tells it, continued after a break from the revision
//! after the last one that was told whole. `watch` gives the keys our names, and reads everything
//! anew when etcd does not remember far enough back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{EventType, GetOptions, WatchOptions, WatchStream};
use futures_util::stream;
use tokio::time::sleep;

use super::client::Client;
use super::keys::Keys;
use super::{list, pb, signed, unsigned};
use crate::{Change, ChangeStream, StoreError, WatchEvent};

/// Between two attempts to open a stream; each attempt itself asks all members.
const REOPEN_DELAY: Duration = Duration::from_millis(200);

/// A watch of the range of keys from `key` to before `range_end`; of one key if that is empty.
pub(super) struct Events {
    client: Arc<Client>,
    key: Vec<u8>,
    range_end: Vec<u8>,
    /// The first revision that has not been told.
    next_revision: i64,
    stream: Option<WatchStream>,
    /// Of one revision that may not be complete yet: large ones come in fragments.
    incomplete: Vec<pb::Event>,
    steps: VecDeque<Step>,
    /// Whether the last stream broke before it said anything.
    failing: bool,
}

/// What a watch of etcd tells.
pub(super) enum Step {
    /// One revision's changes, complete.
    Changed {
        revision: i64,
        events: Vec<pb::Event>,
    },
    /// What is to be told next is not kept any more: `continue_after` is needed.
    Compacted,
}

/// The watch of a prefix of ours.
pub(super) fn watch(
    client: Arc<Client>,
    keys: Keys,
    prefix: &str,
    from_revision: u64,
) -> ChangeStream {
    let watcher = Watcher {
        events: Events::new(
            Arc::clone(&client),
            keys.state(prefix),
            keys.state_end(prefix),
            signed(from_revision),
        ),
        client,
        keys,
        prefix: prefix.to_owned(),
    };
    Box::pin(stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        match watcher.next().await {
            Ok(event) => Some((Ok(event), Some(watcher))),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

struct Watcher {
    client: Arc<Client>,
    keys: Keys,
    prefix: String,
    events: Events,
}

// === impl Watcher ===

impl Watcher {
    async fn next(&mut self) -> Result<WatchEvent, StoreError> {
        match self.events.next().await? {
            Step::Changed { revision, events } => Ok(WatchEvent::Changed {
                revision: unsigned(revision)?,
                changes: self.changes(events)?,
            }),
            Step::Compacted => self.relist().await,
        }
    }

    /// Tries until it succeeds or is refused: a watch outlives an etcd that is away.
    async fn relist(&mut self) -> Result<WatchEvent, StoreError> {
        loop {
            match list(&self.client, &self.keys, &self.prefix).await {
                Ok((revision, values)) => {
                    self.events.continue_after(signed(revision));
                    return Ok(WatchEvent::Relisted { revision, values });
                }
                Err(StoreError::Unavailable(_)) => sleep(REOPEN_DELAY).await,
                Err(error) => return Err(error),
            }
        }
    }

    fn changes(&self, events: Vec<pb::Event>) -> Result<Vec<Change>, StoreError> {
        let changes = events.into_iter().map(|event| {
            let kind = event.r#type();
            let kv = event.kv.unwrap_or_default();
            let key = self.keys.state_name(&kv.key)?;
            Ok(match kind {
                EventType::Put => Change::Put {
                    key,
                    value: kv.value,
                },
                EventType::Delete => Change::Delete { key },
            })
        });
        changes.collect()
    }
}

// === impl Events ===

impl Events {
    /// From revision 0 the first step is `Compacted`.
    pub(super) fn new(
        client: Arc<Client>,
        key: Vec<u8>,
        range_end: Vec<u8>,
        from_revision: i64,
    ) -> Events {
        let mut steps = VecDeque::new();
        if from_revision == 0 {
            steps.push_back(Step::Compacted); // to etcd 0 would mean "from now on"
        }
        Events {
            client,
            key,
            range_end,
            next_revision: from_revision,
            stream: None,
            incomplete: Vec::new(),
            steps,
            failing: false,
        }
    }

    /// Everything up to this revision is known.
    pub(super) fn continue_after(&mut self, revision: i64) {
        self.close();
        self.steps.clear();
        self.next_revision = revision + 1;
    }

    /// # Errors
    /// Only what will not get better by itself.
    pub(super) async fn next(&mut self) -> Result<Step, StoreError> {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return Ok(step);
            }
            let Some(stream) = &mut self.stream else {
                self.open().await?;
                continue;
            };
            match stream.message().await {
                Ok(Some(response)) => self.take(response.0).await?,
                Ok(None) | Err(_) => self.close(),
            }
        }
    }

    async fn open(&mut self) -> Result<(), StoreError> {
        if self.failing {
            sleep(REOPEN_DELAY).await;
        }
        self.failing = true;
        let options = WatchOptions::new()
            .with_range(self.range_end.clone())
            .with_start_revision(self.next_revision)
            .with_progress_notify()
            .with_fragment();
        match self.client.open_watch(self.key.clone(), options).await {
            Ok(stream) => self.stream = Some(stream),
            Err(StoreError::Unavailable(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What was not told whole will be told again.
    fn close(&mut self) {
        self.stream = None;
        self.incomplete.clear();
    }

    async fn take(&mut self, response: pb::WatchResponse) -> Result<(), StoreError> {
        if response.compact_revision != 0 {
            self.close();
            self.steps.push_back(Step::Compacted);
            return Ok(());
        }
        if response.canceled {
            self.close();
            return self.ask_why_cancelled().await;
        }
        self.failing = false;
        let header = response.header.map_or(0, |header| header.revision);
        if response.events.is_empty() && !response.created {
            // Progress: all up to here has been told. It keeps a quiet watch clear of compactions.
            self.next_revision = self.next_revision.max(header + 1);
            return Ok(());
        }
        for event in response.events {
            self.take_event(event);
        }
        if !response.fragment {
            self.complete();
        }
        Ok(())
    }

    fn take_event(&mut self, event: pb::Event) {
        let revision = revision_of(&event);
        if revision < self.next_revision {
            return;
        }
        if self
            .incomplete
            .last()
            .is_some_and(|last| revision_of(last) != revision)
        {
            self.complete();
        }
        self.incomplete.push(event);
    }

    fn complete(&mut self) {
        let Some(revision) = self.incomplete.last().map(revision_of) else {
            return;
        };
        let events = std::mem::take(&mut self.incomplete);
        self.next_revision = revision + 1;
        self.steps.push_back(Step::Changed { revision, events });
    }

    /// A watch is cancelled for a token that has expired and for missing rights, with words that
    /// differ by version: a read gets a new token or says clearly that there is no right.
    async fn ask_why_cancelled(&mut self) -> Result<(), StoreError> {
        let first = GetOptions::new()
            .with_range(self.range_end.clone())
            .with_limit(1)
            .with_keys_only();
        match self.client.range(self.key.clone(), first).await {
            Ok(_) | Err(StoreError::Unavailable(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn revision_of(event: &pb::Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}
