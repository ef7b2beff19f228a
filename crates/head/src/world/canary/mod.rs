//! A canary: a new version of a deployment's code that answers a growing part of its requests,
//! and is promoted or given up by how it answers them (`mobula.traffic`).
//!
//! Here is what is known of one. `deployments` says when there is one, `answers` counts, `verdict`
//! says what follows from the counts, `plan` which replicas that takes. Not here: what becomes of
//! a version that was given up (`good`).

mod answers;
mod deployments;
pub(super) mod plan;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use mobula_spec::Traffic;

use super::intent::Replica;
use super::observed::Answers;
use super::spec::ReplicaSpec;
use super::starts::Starts;
use super::{Now, RouterId};

pub use verdict::{PROLONGED_MAX, Verdict};

/// A version that proves itself, or did.
#[derive(Clone, Debug)]
pub struct Canary {
    /// Of the code.
    pub version: String,
    /// What serves meanwhile; as many replicas of it as without a canary.
    pub stable: Arc<ReplicaSpec>,
    /// How starting the replicas of `stable` again went.
    pub stable_starts: Starts,
    /// How far it has come.
    pub stage: Stage,
    /// Of its answers, those since the step began.
    counted: Answers,
    /// What each router last said. The first word of a router counts for nothing: it may speak
    /// of earlier steps.
    said: BTreeMap<RouterId, Answers>,
}

/// How far a canary has come.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// It answers a part of the requests.
    Step {
        /// Counted from 0.
        step: usize,
        /// Unix time; None: replicas for the step are missing, the part is that of the step
        /// before.
        since_s: Option<f64>,
    },
    /// It replaces the old version as any other rollout does.
    Promoted,
    /// It failed, and why; it answers nothing any more.
    GivenUp(String),
}

/// What a plan does with a canary.
#[derive(Clone, Debug, PartialEq)]
pub enum CanaryStep {
    /// The replicas for the step answer: its part of the requests goes to them.
    Begin,
    /// The step was passed, there is another one.
    Next,
    /// The last step was passed.
    Promote,
    /// It failed, and why.
    GiveUp(String),
    /// A replica was not well, and all are again; the step stays.
    Recover,
}

// === impl Canary ===

impl Canary {
    /// A version that has just been declared, beside the one that serves.
    pub fn new(version: &str, stable: Arc<ReplicaSpec>) -> Canary {
        let mut stable_starts = Starts::for_version(&stable.code_version);
        // It served, so it is never given up.
        stable_starts.succeeded();
        Canary {
            version: version.to_owned(),
            stable,
            stable_starts,
            stage: Stage::first(),
            counted: Answers::default(),
            said: BTreeMap::new(),
        }
    }

    /// The same, further on.
    #[must_use]
    pub fn at(self, stage: Stage) -> Canary {
        Canary { stage, ..self }
    }

    /// Its answers since the step began.
    pub fn counted(&self) -> &Answers {
        &self.counted
    }

    /// Whether requests are shared by weight: not promoted yet.
    pub fn is_shared(&self) -> bool {
        self.stage != Stage::Promoted
    }

    /// Whether the replica is of the version that proves itself.
    pub fn is_of(&self, replica: &Replica) -> bool {
        replica.spec.code_version == self.version
    }

    /// The part of the requests that it answers now.
    pub fn percent(&self, traffic: &Traffic) -> u32 {
        let of = |step: usize| traffic.steps.get(step).or(traffic.steps.last());
        let part = match self.stage {
            Stage::Step {
                step,
                since_s: Some(_),
            } => of(step),
            Stage::Step {
                step,
                since_s: None,
            } => step.checked_sub(1).and_then(of),
            Stage::Promoted | Stage::GivenUp(_) => None,
        };
        part.copied().unwrap_or(0)
    }

    /// Replicas that its step needs: their part of the target, at least one.
    pub fn replicas(&self, traffic: &Traffic, target: u32) -> u32 {
        match self.stage {
            Stage::Step { step, .. } => {
                let percent = traffic.steps.get(step).or(traffic.steps.last());
                let part = u64::from(target) * u64::from(*percent.unwrap_or(&0));
                u32::try_from(part.div_ceil(100)).unwrap_or(target).max(1)
            }
            Stage::Promoted | Stage::GivenUp(_) => 0,
        }
    }

    /// A router says how it has been answered since it began to share the requests.
    pub fn count(&mut self, router: &RouterId, said: Answers) {
        if let Some(before) = self.said.get(router) {
            self.counted.add(&said.since(before));
        }
        self.said.insert(router.clone(), said);
    }

    /// Does what was decided.
    pub fn step(&mut self, step: &CanaryStep, now: Now) {
        self.stage = match (step, &self.stage) {
            (CanaryStep::Begin, Stage::Step { step, .. }) => Stage::begun(*step, now),
            (CanaryStep::Next, Stage::Step { step, .. }) => Stage::Step {
                step: step + 1,
                since_s: None,
            },
            (CanaryStep::Promote, Stage::Step { .. }) => Stage::Promoted,
            (CanaryStep::GiveUp(why), Stage::Step { .. }) => Stage::GivenUp(why.clone()),
            // It is over, or goes on where it is.
            (CanaryStep::Recover, _) | (_, Stage::Promoted | Stage::GivenUp(_)) => return,
        };
        self.counted = Answers::default();
    }
}

// === impl Stage ===

impl Stage {
    /// Nothing answers yet.
    pub fn first() -> Stage {
        Stage::Step {
            step: 0,
            since_s: None,
        }
    }

    fn begun(step: usize, now: Now) -> Stage {
        Stage::Step {
            step,
            since_s: Some(now.unix_s),
        }
    }
}

// === impl CanaryStep ===

impl fmt::Display for CanaryStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CanaryStep::Begin => "begin a canary step",
            CanaryStep::Next => "pass a canary step",
            CanaryStep::Promote => "promote the canary",
            CanaryStep::GiveUp(_) => "give up the canary",
            CanaryStep::Recover => "go on with the canary",
        })
    }
}
