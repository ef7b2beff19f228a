//! A canary: a new version of a deployment's code that answers a growing part of its requests,
//! and is promoted or given up by how it answers them (`mobula.traffic`).
//!
//! Here is what is known of one and what follows from it. Which replicas it needs is
//! `canary_plan`; what becomes of a version that was given up is `good`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use mobula_proto::latency;
use mobula_spec::Traffic;

use super::deployment_status::StatusEvent;
use super::intent::{Deployment, Good, Replica};
use super::observed::{Answers, Router};
use super::spec::ReplicaSpec;
use super::starts::Starts;
use super::{Now, RouterId, World};

/// A step without enough answers takes this many times its time at most; then it is judged by
/// those that there are. What nobody uses harms nobody, and must not hold a rollout for ever.
pub const PROLONGED_MAX: f64 = 10.0;

/// How far above a limit a step is given up before its time. The rate of few answers goes up
/// and down; twice the limit is more than chance.
const EARLY_FACTOR: f64 = 2.0;

/// The part of the answers that may be slower than `p99_ms_max`.
const SLOW_PART_MAX: f64 = 0.01;

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
}

/// What was seen of a canary when something was decided about it.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Enough replicas for the step.
    Ready { replicas: u32, percent: u32 },
    /// It answers well enough.
    Good {
        answers: u64,
        errors: u64,
        percent: u32,
    },
    /// No replicas shall run, so nothing can be judged.
    NothingToShare,
    /// Too many of its answers are errors.
    Failing {
        answers: u64,
        errors: u64,
        percent: u32,
        rate_max: f64,
    },
    /// Too many of its answers are slow.
    Slow {
        answers: u64,
        p99_ms: f64,
        percent: u32,
        p99_ms_max: f64,
    },
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

    /// What follows now, and from what; `ready` replicas of it answer.
    pub fn next(
        &self,
        traffic: &Traffic,
        now: Now,
        ready: u32,
        target: u32,
    ) -> Option<(CanaryStep, Verdict)> {
        let Stage::Step { step, since_s } = self.stage else {
            return None;
        };
        if target == 0 {
            return Some((CanaryStep::Promote, Verdict::NothingToShare));
        }
        let percent = self.percent(traffic);
        if let Some(bad) = self.bad(traffic, percent, EARLY_FACTOR, traffic.requests_min) {
            return Some((CanaryStep::GiveUp(bad.to_string()), bad));
        }
        let Some(since_s) = since_s else {
            let needed = self.replicas(traffic, target);
            let percent = self.clone().at(Stage::begun(step, now)).percent(traffic);
            let replicas = ready;
            let ready = Verdict::Ready { replicas, percent };
            return (replicas >= needed).then_some((CanaryStep::Begin, ready));
        };
        let elapsed_s = now.unix_s - since_s;
        let enough = self.counted.answers >= traffic.requests_min.into();
        let limit = if enough { 1.0 } else { PROLONGED_MAX };
        if elapsed_s < traffic.step_s * limit {
            return None;
        }
        if let Some(bad) = self.bad(traffic, percent, 1.0, 0) {
            return Some((CanaryStep::GiveUp(bad.to_string()), bad));
        }
        let good = Verdict::Good {
            answers: self.counted.answers,
            errors: self.counted.errors,
            percent,
        };
        let is_last = step + 1 >= traffic.steps.len();
        let next = if is_last {
            CanaryStep::Promote
        } else {
            CanaryStep::Next
        };
        Some((next, good))
    }

    /// Whether more is wrong than `factor` times what is allowed, of at least so many answers:
    /// with fewer, of so many, since all that are missing might be good ones.
    fn bad(&self, traffic: &Traffic, percent: u32, factor: f64, least: u32) -> Option<Verdict> {
        let Answers {
            answers,
            errors,
            latencies,
        } = &self.counted;
        let of = (*answers).max(least.into()) as f64;
        if *errors as f64 > traffic.error_rate_max * factor * of {
            return Some(Verdict::Failing {
                answers: *answers,
                errors: *errors,
                percent,
                rate_max: traffic.error_rate_max,
            });
        }
        let p99_ms_max = traffic.p99_ms_max?;
        let slow = latency::above(latencies, p99_ms_max);
        (slow > SLOW_PART_MAX * factor * of).then(|| Verdict::Slow {
            answers: *answers,
            p99_ms: self.p99_ms(),
            percent,
            p99_ms_max,
        })
    }

    fn p99_ms(&self) -> f64 {
        latency::quantile_ms(&self.counted.latencies, 1.0 - SLOW_PART_MAX).unwrap_or(0.0)
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
            // It is over.
            (_, Stage::Promoted | Stage::GivenUp(_)) => return,
        };
        self.counted = Answers::default();
    }

    fn message(&self, traffic: &Traffic, now: Now, ready: u32, target: u32) -> String {
        let Stage::Step { step, since_s } = self.stage else {
            return match self.stage {
                Stage::Promoted => "canary: promoted, the old replicas are being replaced".into(),
                Stage::Step { .. } | Stage::GivenUp(_) => String::new(),
            };
        };
        let Answers {
            answers, errors, ..
        } = self.counted;
        let (of, percent) = (traffic.steps.len(), self.percent(traffic));
        let begin = format!(
            "canary: step {} of {of}, {percent} % of the requests; {answers} answers, {errors} \
             failed, p99 {:.0} ms; ",
            (step + 1).min(of),
            self.p99_ms()
        );
        let Some(since_s) = since_s else {
            let needed = self.replicas(traffic, target);
            return format!("{begin}{ready} of {needed} new replicas answer");
        };
        let left = |limit: f64| {
            (since_s + traffic.step_s * limit - now.unix_s)
                .max(0.0)
                .ceil()
        };
        if left(1.0) > 0.0 {
            return format!("{begin}judged in {} s", left(1.0));
        }
        format!(
            "{begin}prolonged until there are {} answers, by {} s at most",
            traffic.requests_min,
            left(PROLONGED_MAX)
        )
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

// === impl Answers ===

impl Answers {
    fn add(&mut self, more: &Answers) {
        self.answers += more.answers;
        self.errors += more.errors;
        if self.latencies.len() < more.latencies.len() {
            self.latencies.resize(more.latencies.len(), 0);
        }
        for (sum, more) in self.latencies.iter_mut().zip(&more.latencies) {
            *sum += more;
        }
    }

    /// What came after `before`. Smaller numbers mean that the router began anew: then all.
    fn since(&self, before: &Answers) -> Answers {
        let began_anew = self.answers < before.answers || self.errors < before.errors;
        if began_anew {
            return self.clone();
        }
        let older = before.latencies.iter().chain(std::iter::repeat(&0));
        let newer = self.latencies.iter().zip(older);
        Answers {
            answers: self.answers - before.answers,
            errors: self.errors - before.errors,
            latencies: newer
                .map(|(now, before)| now.saturating_sub(*before))
                .collect(),
        }
    }
}

// === impl World ===

impl World {
    /// Counts what a router says of versions that share the requests.
    pub(super) fn count_answers(&mut self, router: &Router) {
        for (application, value) in &mut self.applications {
            for (name, deployment) in &mut value.deployments {
                let Some(canary) = deployment.canary.as_mut().filter(|c| c.is_shared()) else {
                    continue;
                };
                let key = (application.clone(), name.clone(), canary.version.clone());
                let said = router.answers.get(&key).cloned().unwrap_or_default();
                canary.count(&router.id, said);
            }
        }
    }

    /// Forgets what routers said that are not there any more.
    pub(super) fn forget_routers(&mut self) {
        let here: BTreeSet<&RouterId> = self.routers.keys().collect();
        let applications = self.applications.values_mut();
        let deployments = applications.flat_map(|app| app.deployments.values_mut());
        for canary in deployments.filter_map(|deployment| deployment.canary.as_mut()) {
            canary.said.retain(|router, _| here.contains(router));
        }
    }

    /// Goes on where an earlier head stopped. A version of which nothing is stored, although
    /// another one is known to run, was declared in the moment in which that head ended.
    pub fn resume_canary(&mut self, application: &str, name: &str, stored: Option<(&str, Stage)>) {
        let Some(application) = self.applications.get_mut(application) else {
            return;
        };
        let proven = application.proven;
        let good = application.good.clone();
        let Some(deployment) = application.deployments.get_mut(name) else {
            return;
        };
        let version = deployment.spec.replica.code_version.clone();
        let good = good.and_then(|good| good.replica(name));
        let stable = good.filter(|spec| spec.code_version != version);
        let stage = match stored {
            Some((stored, stage)) if stored == version => stage,
            Some(_) | None if proven => return,
            Some(_) | None => Stage::first(),
        };
        if deployment.spec.traffic.is_none() || deployment.deleting {
            return;
        }
        let Some(stable) = stable else { return };
        if let Stage::GivenUp(why) = &stage {
            deployment.give_up_canary(why);
        }
        deployment.canary = Some(Canary::new(&version, stable).at(stage));
    }
}

// === impl Good ===

impl Good {
    /// What a deployment's replicas were made of.
    pub fn replica(&self, deployment: &str) -> Option<Arc<ReplicaSpec>> {
        let built = self.spec.built.as_ref().ok()?;
        let mut deployments = built.deployments.iter();
        let spec = deployments.find(|spec| spec.name == deployment)?;
        Some(Arc::clone(&spec.replica))
    }
}

// === impl Deployment ===

impl Deployment {
    /// The deployment was declared anew: what becomes of its canary, and whether its version is
    /// one. `before` is what its replicas were made of until now, `good` what is known to run;
    /// `at_once` says that the new one is known to run too.
    pub(super) fn review_canary(
        &mut self,
        before: Arc<ReplicaSpec>,
        good: Option<Arc<ReplicaSpec>>,
        at_once: bool,
    ) {
        let version = self.spec.replica.code_version.clone();
        let old = self.canary.take();
        if self.spec.traffic.is_none() {
            return;
        }
        let (same, other) = match old {
            Some(old) if old.version == version => (Some(old), None),
            other => (None, other),
        };
        if let Some(same) = same {
            self.canary = Some(match same.stage {
                Stage::GivenUp(_) => Canary::new(&version, same.stable),
                Stage::Step { .. } | Stage::Promoted => same,
            });
            return;
        }
        // The canary that this one takes the place of served least.
        let shared = other.filter(Canary::is_shared);
        let before = shared.map_or(before, |canary| canary.stable);
        let serves = |spec: &Arc<ReplicaSpec>| {
            let of_it = |replica: &Replica| replica.spec.code_version == spec.code_version;
            let mut replicas = self.replicas.values();
            spec.code_version != version
                && replicas.any(|replica| of_it(replica) && replica.phase.is_answering())
        };
        let stable = [Some(before), good].into_iter().flatten().find(serves);
        let stage = if at_once {
            Stage::Promoted
        } else {
            Stage::first()
        };
        self.canary = stable.map(|stable| Canary::new(&version, stable).at(stage));
    }

    /// A version that was given up is tried again.
    pub(super) fn retry_canary(&mut self) {
        if let Some(canary) = &mut self.canary
            && let Stage::GivenUp(_) = canary.stage
        {
            canary.stage = Stage::first();
        }
    }

    /// What follows for the canary now.
    pub(super) fn next_canary_step(&self, now: Now) -> Option<(CanaryStep, Verdict)> {
        let canary = self.canary.as_ref()?;
        let traffic = self.spec.traffic.as_ref()?;
        if self.starts.gave_up {
            return None;
        }
        canary.next(traffic, now, self.canary_ready(canary), self.target)
    }

    /// Does what was decided about the canary.
    pub(super) fn step_canary(&mut self, step: &CanaryStep, now: Now) {
        if let Some(canary) = &mut self.canary {
            canary.step(step, now);
        }
        if let CanaryStep::GiveUp(why) = step {
            self.give_up_canary(why);
        }
    }

    /// From here on it is a rollout that failed.
    fn give_up_canary(&mut self, why: &str) {
        self.starts.gave_up = true;
        self.status.on(StatusEvent::RolloutGaveUp, why);
    }

    /// The part of the requests that the canary answers; nothing when it cannot be started.
    pub fn canary_percent(&self, canary: &Canary) -> u32 {
        match &self.spec.traffic {
            Some(traffic) if !self.starts.gave_up => canary.percent(traffic),
            Some(_) | None => 0,
        }
    }

    /// Replicas of the canary that answer.
    pub fn canary_ready(&self, canary: &Canary) -> u32 {
        let replicas = self.replicas.values();
        let ready =
            replicas.filter(|replica| canary.is_of(replica) && replica.phase.is_answering());
        ready.count() as u32
    }

    /// What replicas of a version are made of, as far as it is known: else as the newest ones.
    pub fn known_spec(&self, code_version: &str) -> &Arc<ReplicaSpec> {
        match &self.canary {
            Some(canary) if canary.stable.code_version == code_version => &canary.stable,
            Some(_) | None => &self.spec.replica,
        }
    }

    /// The message of the status document: how far the canary is, and what else is to be said.
    pub fn message(&self, now: Now) -> String {
        let said = &self.status.message;
        let (Some(canary), Some(traffic)) = (&self.canary, &self.spec.traffic) else {
            return said.clone();
        };
        if self.starts.gave_up {
            return said.clone();
        }
        let ready = self.canary_ready(canary);
        let canary = canary.message(traffic, now, ready, self.target);
        match (canary.is_empty(), said.is_empty()) {
            (true, _) => said.clone(),
            (false, true) => canary,
            (false, false) => format!("{canary}\n{said}"),
        }
    }
}

// === impl CanaryStep, Verdict ===

impl fmt::Display for CanaryStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CanaryStep::Begin => "begin a canary step",
            CanaryStep::Next => "pass a canary step",
            CanaryStep::Promote => "promote the canary",
            CanaryStep::GiveUp(_) => "give up the canary",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Ready { replicas, percent } => {
                write!(
                    f,
                    "canary: {replicas} new replicas answer, {percent} % goes to them"
                )
            }
            Verdict::Good {
                answers,
                errors,
                percent,
            } => write!(
                f,
                "canary: {errors} of {answers} requests failed at {percent} %"
            ),
            Verdict::NothingToShare => f.write_str("canary: no replicas shall run"),
            Verdict::Failing {
                answers,
                errors,
                percent,
                rate_max,
            } => {
                let rate = rounded(100.0 * *errors as f64 / (*answers).max(1) as f64);
                let allowed = rounded(100.0 * rate_max);
                write!(
                    f,
                    "canary: {rate} % of {answers} requests failed at {percent} %, allowed \
                     {allowed} %"
                )
            }
            Verdict::Slow {
                answers,
                p99_ms,
                percent,
                p99_ms_max,
            } => write!(
                f,
                "canary: p99 of {answers} requests was {p99_ms:.0} ms at {percent} %, allowed \
                 {p99_ms_max} ms"
            ),
        }
    }
}

/// With at most two places behind the point, and none that say nothing.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
