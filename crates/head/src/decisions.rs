//! What was decided and what happened lately, for people who ask why: who, what, and the reason
//! that the decision carried. Pure: time is an argument. Nothing is decided from it, and it is
//! lost with the head.

use std::collections::VecDeque;
use std::fmt;

use serde::Serialize;

use crate::world::autoscale::Scaling;
use crate::world::notes::Note;
use crate::world::plan::{Action, Planned};

/// What is kept: some screens full, or minutes of a busy rollout.
pub const DECISIONS_KEPT_MAX: usize = 200;

/// Bytes of one reason; logs have it whole.
const WHY_BYTES_MAX: usize = 500;

/// The same again within this time is counted, not listed anew: a hundred replicas that start
/// are one thing to read.
const TOGETHER_S: f64 = 10.0;

/// So many of the newest ones are looked at for the same: what happens to several deployments
/// at once is mixed.
const TOGETHER_AMONG: usize = 24;

/// One thing that was decided or happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// Unix time; of the last, if there are several.
    pub time_s: f64,
    /// `application#deployment`, an application, a worker, a router or `config`.
    pub subject: String,
    /// What.
    pub what: &'static str,
    /// What else there is to say of the last one: which replica, which worker, which counts.
    pub detail: String,
    /// Why.
    pub why: String,
    /// How often.
    pub count: u32,
}

/// The newest ones.
#[derive(Clone, Debug, Default)]
pub struct Decisions(VecDeque<Decision>);

// === impl Decisions ===

impl Decisions {
    /// Newest first.
    pub fn newest_first(&self) -> Vec<Decision> {
        self.0.iter().rev().cloned().collect()
    }

    /// Something that is not of a plan.
    pub fn happened(&mut self, subject: &str, what: &'static str, why: &str, time_s: f64) {
        self.add(
            decision(subject.to_owned(), what, String::new(), why),
            time_s,
        );
    }

    /// An action of a plan, as it is put in force.
    pub fn planned(&mut self, planned: &Planned, time_s: f64) {
        let (subject, what, detail) = match &planned.action {
            Action::Start { key, placed, .. } => (
                key.deployment.to_string(),
                "start a replica",
                format!("{} on worker {}", key.replica, placed.worker),
            ),
            Action::Configure { key, .. } => (
                key.deployment.to_string(),
                "reconfigure a replica",
                key.replica.clone(),
            ),
            Action::Withdraw { key } => (
                key.deployment.to_string(),
                "take a replica out of the routers",
                key.replica.clone(),
            ),
            Action::Drop { key } => (
                key.deployment.to_string(),
                "stop a replica",
                key.replica.clone(),
            ),
            Action::Canary { deployment, step } => {
                (deployment.to_string(), "canary", step.to_string())
            }
            Action::Settle { deployment } => (deployment.to_string(), "healthy", String::new()),
            // The message says what the reason says.
            Action::Say { message, .. } if message.is_empty() => return,
            Action::Say { deployment, .. } => (deployment.to_string(), "wait", String::new()),
            Action::RemoveDeployment { deployment } => {
                (deployment.to_string(), "forget a deployment", String::new())
            }
            Action::RemoveApplication { application } => {
                (application.clone(), "forget an application", String::new())
            }
            Action::StopServing => ("config".to_owned(), "stop serving", String::new()),
        };
        let why = planned.reason.to_string();
        self.add(decision(subject, what, detail, &why), time_s);
    }

    /// What happened to replicas and workers.
    pub fn noted(&mut self, note: &Note, time_s: f64) {
        self.add(of_note(note), time_s);
    }

    fn add(&mut self, decision: Decision, time_s: f64) {
        let count = self
            .take_same(&decision, time_s)
            .map_or(0, |same| same.count);
        if self.0.len() == DECISIONS_KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Decision {
            time_s,
            count: count.saturating_add(1),
            ..decision
        });
    }

    /// Takes out the one that is the same and happened a moment ago.
    fn take_same(&mut self, decision: &Decision, time_s: f64) -> Option<Decision> {
        let is_same = |found: &Decision| {
            is_counted(decision.what)
                && found.what == decision.what
                && found.subject == decision.subject
                && (0.0..TOGETHER_S).contains(&(time_s - found.time_s))
        };
        let oldest = self.0.len().saturating_sub(TOGETHER_AMONG);
        let index = (oldest..self.0.len()).find(|index| self.0.get(*index).is_some_and(is_same))?;
        self.0.remove(index)
    }
}

fn of_note(note: &Note) -> Decision {
    let of = |subject: &dyn fmt::Display, what, detail: &str, why: &str| {
        decision(subject.to_string(), what, detail.to_owned(), why)
    };
    match note {
        Note::Started {
            deployment,
            replica,
            took_ms,
        } => {
            let took = match took_ms {
                0..1000 => format!("it took {took_ms} ms"),
                _ => format!("it took {:.1} s", *took_ms as f64 / 1000.0),
            };
            of(deployment, "a replica is ready", replica, &took)
        }
        Note::StartFailed {
            deployment,
            replica,
            error,
        } => of(deployment, "a replica did not start", replica, error),
        Note::HealthFailed {
            deployment,
            replica,
            error,
        } => of(deployment, "a replica is not well", replica, error),
        Note::WorkerLost {
            worker,
            how,
            replicas,
        } => {
            let why = format!("{how}; it had {replicas} replica(s)");
            of(worker, "a worker is gone", "", &why)
        }
        Note::Autoscaled(Scaling {
            deployment,
            from,
            to,
            cause,
        }) => {
            let counts = format!("from {from} to {to}");
            of(deployment, "autoscale", &counts, &cause.to_string())
        }
        Note::Moves { replica, from, to } => {
            let why = format!("worker {from} is emptied; it goes to worker {to}");
            of(
                &replica.deployment,
                "move a replica",
                &replica.replica,
                &why,
            )
        }
        Note::WorkerEmptied { worker } => of(
            worker,
            "a worker is emptied",
            "",
            "all that it had has moved",
        ),
        Note::CompactionCalledOff { worker, why } => {
            of(worker, "a worker is not emptied any further", "", why)
        }
    }
}

/// A count that changes, and a canary that goes on, are worth a line each time.
fn is_counted(what: &str) -> bool {
    !matches!(what, "autoscale" | "canary")
}

fn decision(subject: String, what: &'static str, detail: String, why: &str) -> Decision {
    let why = match why.len() {
        0..=WHY_BYTES_MAX => why.to_owned(),
        _ => format!("{}…", &why[..why.floor_char_boundary(WHY_BYTES_MAX)]),
    };
    Decision {
        time_s: 0.0,
        subject,
        what,
        detail,
        why,
        count: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(decisions: &Decisions) -> Vec<(String, u32)> {
        let newest = decisions.newest_first().into_iter();
        newest
            .map(|found| (format!("{} {}", found.subject, found.what), found.count))
            .collect()
    }

    #[test]
    fn what_happens_many_times_at_once_is_one_line_with_a_count() {
        let mut decisions = Decisions::default();
        for moment in 0..50 {
            let time_s = 100.0 + f64::from(moment) / 10.0;
            decisions.happened("a#D", "start a replica", "below the target", time_s);
            decisions.happened("b#D", "start a replica", "below the target", time_s);
        }
        let expected = [("b#D start a replica", 50), ("a#D start a replica", 50)];
        assert_eq!(
            whats(&decisions),
            expected.map(|(text, count)| (text.to_owned(), count))
        );
    }

    #[test]
    fn the_same_after_a_while_is_a_line_of_its_own_and_so_is_every_change_of_a_count() {
        let mut decisions = Decisions::default();
        decisions.happened("a#D", "start a replica", "", 100.0);
        decisions.happened("a#D", "start a replica", "", 100.0 + TOGETHER_S);
        decisions.happened("a#D", "autoscale", "", 200.0);
        decisions.happened("a#D", "autoscale", "", 200.1);
        assert!(whats(&decisions).iter().all(|(_, count)| *count == 1));
        assert_eq!(whats(&decisions).len(), 4);
    }

    #[test]
    fn only_the_newest_are_kept_and_long_reasons_are_cut() {
        let mut decisions = Decisions::default();
        for index in 0..2 * DECISIONS_KEPT_MAX {
            let why = "é".repeat(WHY_BYTES_MAX);
            decisions.happened(&format!("a{index}"), "stop a replica", &why, index as f64);
        }
        let kept = decisions.newest_first();
        assert_eq!(kept.len(), DECISIONS_KEPT_MAX);
        assert_eq!(kept[0].subject, format!("a{}", 2 * DECISIONS_KEPT_MAX - 1));
        assert!(kept[0].why.len() <= WHY_BYTES_MAX + '…'.len_utf8());
    }
}
