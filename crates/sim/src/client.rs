//! Clients and users: requests as the load asks for, and changes of what is deployed.

use std::collections::BTreeMap;

use mobula_head::simulation::{DeployError, ScaleError};
use mobula_store::StoreError;
use serde_json::{Value, json};

use crate::app::{APPS, DEPLOYMENT, Kind, changed, document, entry, settled};
use crate::canary::Trial;
use crate::check::{Answer, Careful};
use crate::cluster::{Cluster, Event, HEADS, ROUTERS};
use crate::compaction::Mode;
use crate::sabotage::Sabotage;

/// How long a request may take.
pub const DEADLINE_MS: u64 = 60_000;

/// After the last change, the load stays the same for so long; longer where workers shall be
/// emptied: a minute of rest comes before each.
const STEADY_AFTER_MS: u64 = 5_000;
const STEADY_MS: u64 = 110_000;
const STEADY_LONG_MS: u64 = 220_000;

/// Between two requests of an application, and how long each takes then: three in progress.
const STEADY_PAUSE_MS: u64 = 100;
pub const STEADY_CALL_MS: u64 = 300;

/// What the user believes to be deployed, and what the clients do.
pub struct Outside {
    pub entries: BTreeMap<String, Value>,
    /// `target_capacity`.
    capacity: Option<u64>,
    number: u64,
    /// Every document that was written.
    sent: Vec<String>,
    next_request: u64,
    /// Milliseconds between two requests of each application.
    pub pause_ms: [u64; APPS.len()],
    /// From here on the load is the same all the time.
    pub steady_from: u64,
    pub load_ends_at: u64,
    pub changes_end_at: u64,
    /// From here on nothing is wrong, and all is as it shall be.
    pub calm_from: Option<u64>,
    pub compaction: Mode,
    /// What is tried from there on.
    pub trials: Vec<Trial>,
}

/// A change that arrives at a head.
#[derive(Clone, Debug)]
pub enum Change {
    Deploy { document: Value, marker: String },
    DeleteAll,
    Scale { application: String, target: u32 },
    Rollback,
}

impl Outside {
    pub fn new(changes_end_at: u64, compaction: Mode) -> Outside {
        let steady_from = changes_end_at + STEADY_AFTER_MS;
        let steady_ms = if compaction.is_long {
            STEADY_LONG_MS
        } else {
            STEADY_MS
        };
        Outside {
            entries: BTreeMap::new(),
            capacity: None,
            number: 0,
            sent: Vec::new(),
            next_request: 0,
            pause_ms: [300; APPS.len()],
            steady_from,
            load_ends_at: steady_from + steady_ms,
            changes_end_at,
            calm_from: None,
            compaction,
            trials: Vec::new(),
        }
    }

    pub fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Good and bad ones that were tried.
    pub fn canaries(&self) -> (u64, u64) {
        let good = self.trials.iter().filter(|trial| trial.kind == Kind::Good);
        let good = good.count();
        (good as u64, (self.trials.len() - good) as u64)
    }

    /// What may become of a request that is sent now.
    fn careful(&self, app: &str) -> Option<Careful> {
        self.calm_from?;
        let trial = self.trials.iter().find(|trial| trial.application == app);
        let bad = trial.is_some_and(|trial| trial.kind != Kind::Good);
        Some(if bad {
            Careful::MayFail
        } else {
            Careful::AnswerOk
        })
    }
}

impl Cluster {
    // ---- requests ----

    pub fn send_request(&mut self, app: usize) {
        if self.queue.now() >= self.outside.load_ends_at {
            return;
        }
        let mean = self.outside.pause_ms[app];
        let pause = if self.is_steady() {
            STEADY_PAUSE_MS
        } else {
            self.rng.range(mean / 2, mean * 3 / 2 + 1)
        };
        self.queue.after(pause, Event::Request(app));
        self.outside.next_request += 1;
        let id = self.outside.next_request;
        let repeatable = self.rng.percent(50);
        let careful = self.outside.careful(APPS[app]);
        self.check.sent(id, repeatable, careful);
        // As a load balancer: one that lives.
        let living: Vec<usize> = (0..ROUTERS).filter(|r| self.routers[*r].up).collect();
        let Some(r) = living.get(self.rng.index(living.len())).copied() else {
            self.check.answered(id, Answer::Cut);
            return;
        };
        let life = self.routers[r].life;
        let pause = self.rng.range(0, 3);
        self.queue
            .after(pause, Event::RequestCame(r, life, id, app, repeatable));
    }

    pub fn is_steady(&self) -> bool {
        self.queue.now() >= self.outside.steady_from
    }

    pub fn change_load(&mut self) {
        let app = self.rng.index(APPS.len());
        self.outside.pause_ms[app] = [40, 100, 300, 1000][self.rng.index(4)];
        let pause = self.rng.range(5000, 20_000);
        self.queue.after(pause, Event::Load);
    }

    // ---- changes ----

    pub fn user_acts(&mut self) {
        if self.queue.now() >= self.outside.changes_end_at {
            return;
        }
        let pause = self.rng.range(3000, 15_000);
        self.queue.after(pause, Event::User);
        let change = self.next_change();
        self.send_change(change);
    }

    /// What shall be there at the end, so that there is something to come to rest.
    pub fn last_change(&mut self) {
        self.outside.capacity = [None, Some(100)][self.rng.index(2)];
        for app in APPS {
            let number = self.outside.next_number();
            let mut entry = settled(app, number, &mut self.rng);
            self.spoil(&mut entry);
            self.outside.entries.insert(app.to_owned(), entry);
        }
        self.deploy_entries();
    }

    /// Autoscaling that flaps.
    fn spoil(&self, entry: &mut Value) {
        if let Some(autoscaling) = entry["deployments"][0].get_mut("autoscaling_config")
            && self.breaks(Sabotage::Flap)
        {
            autoscaling["look_back_period_s"] = json!(0.5);
            autoscaling["upscale_delay_s"] = json!(0);
            autoscaling["downscale_delay_s"] = json!(0);
            // No other policy, and no minimum that holds the count.
            entry["deployments"][0]["mobula"] = json!({});
        }
    }

    pub fn deploy_entries(&mut self) {
        let change = self.deploy();
        self.send_change(change);
    }

    fn deploy(&mut self) -> Change {
        let marker = format!("n{}.", self.outside.number);
        let mut document = document(&self.outside.entries, self.outside.capacity);
        self.outside.compaction.put_into(&mut document);
        self.outside.sent.push(document.to_string());
        Change::Deploy { document, marker }
    }

    fn next_change(&mut self) -> Change {
        let app = APPS[self.rng.index(APPS.len())].to_owned();
        let number = self.outside.next_number();
        if self.outside.entries.is_empty() {
            for app in APPS {
                let entry = entry(app, Kind::Good, number, &mut self.rng);
                self.outside.entries.insert(app.to_owned(), entry);
            }
            return self.deploy();
        }
        match self.rng.range(0, 22) {
            0 => {
                self.outside.entries.clear();
                Change::DeleteAll
            }
            1 => {
                self.outside.entries.remove(&app);
                self.deploy()
            }
            20 | 21 => {
                let percents = [None, Some(0), Some(30), Some(60), Some(100)];
                self.outside.capacity = percents[self.rng.index(percents.len())];
                self.deploy()
            }
            2 | 3 => Change::Rollback,
            4..7 => Change::Scale {
                application: "scaled".to_owned(),
                target: self.rng.range(0, 5) as u32,
            },
            7..12 if self.outside.entries.contains_key(&app) => {
                let entry = changed(&self.outside.entries[&app], number, &mut self.rng);
                self.outside.entries.insert(app, entry);
                self.deploy()
            }
            _ => {
                let kind = Kind::any(&mut self.rng);
                let entry = entry(&app, kind, number, &mut self.rng);
                self.outside.entries.insert(app, entry);
                self.deploy()
            }
        }
    }

    /// To a head that leads, or believes it.
    fn send_change(&mut self, change: Change) {
        let leading: Vec<usize> = (0..HEADS).filter(|h| self.heads[*h].leads()).collect();
        let Some(h) = leading.get(self.rng.index(leading.len())).copied() else {
            self.log("nobody leads, the user tries again");
            self.queue.after(1000, Event::Change(change));
            return;
        };
        let life = self.heads[h].life;
        self.queue.after(2, Event::ChangeCame(h, life, change));
    }

    pub fn retry_change(&mut self, change: Change) {
        self.send_change(change);
    }

    /// Whether the last word has been said, and this is not it.
    fn is_too_late(&self, change: &Change) -> bool {
        let newest = self.outside.sent.last();
        let is_newest = match change {
            Change::Deploy { document, .. } => newest == Some(&document.to_string()),
            Change::DeleteAll | Change::Scale { .. } | Change::Rollback => false,
        };
        self.queue.now() >= self.outside.changes_end_at && !is_newest
    }

    pub fn change_came(&mut self, h: usize, change: Change) {
        if self.is_too_late(&change) {
            return self.log("a change comes too late, its user has given up");
        }
        match change {
            Change::Deploy { document, marker } => {
                let outcome = self.head_deploy(h, &document);
                let is_last = self.queue.now() >= self.outside.changes_end_at;
                if is_last && !matches!(outcome, Some(Ok(_))) {
                    let (document, marker) = (document.clone(), marker.clone());
                    let again = Event::Change(Change::Deploy { document, marker });
                    self.queue.after(1000, again);
                }
                self.log(&format!("head{h} is told to deploy {marker} {outcome:?}"));
                match outcome {
                    None => {}
                    Some(Ok(revision)) => {
                        let stored = self.store.lock().index();
                        self.check.accepted(revision, stored);
                    }
                    Some(Err(DeployError::Store(StoreError::Unknown(_)))) => {}
                    Some(Err(_)) => self.refused(&marker),
                }
            }
            Change::DeleteAll => {
                let outcome = self.head_delete(h);
                self.log(&format!("head{h} is told to delete all: {outcome:?}"));
            }
            Change::Scale {
                application,
                target,
            } => {
                let outcome: Option<Result<(), ScaleError>> =
                    self.head_scale(h, &application, DEPLOYMENT, target);
                self.log(&format!(
                    "head{h} is told to scale to {target}: {outcome:?}"
                ));
            }
            Change::Rollback => {
                let outcome = self.head_rollback(h);
                self.log(&format!("head{h} is told to roll back: {outcome:?}"));
            }
        }
        self.head_follow_up(h);
    }

    /// Only what no other document says as well can be looked for.
    fn refused(&mut self, marker: &str) {
        let documents = self.outside.sent.iter();
        let saying = documents.filter(|text| text.contains(marker)).count();
        if saying == 1 && self.store.lock().mentions(marker) {
            let text = format!("{marker} was refused and is stored");
            self.check
                .violated("a_refused_config_changes_nothing", &text);
        }
    }
}
