//! A config that runs is good, and on probation for a while: when its replicas fail again and
//! again soon after they were ready, the application returns to the good config before it.
//! Health checks find in this time what no start can.

use super::good::FailedRollout;
use super::intent::{Application, Deployment, Good};
use super::starts::threshold;
use super::{Now, World};

/// The shortest probation: a replica that dies under its first requests does so within it, some
/// times over.
pub const PROBATION_SECONDS_MIN: f64 = 30.0;

/// The longest, whatever the periods of the health checks are: what fails later may have any
/// cause.
pub const PROBATION_SECONDS_MAX: f64 = 600.0;

/// Health checks that fail in a row before a replica is not well (the worker's number).
const CHECKS_PER_VERDICT: u32 = 3;

/// A config that came to run a short while ago.
#[derive(Clone, Debug)]
pub struct Probation {
    /// Unix time.
    pub until_s: f64,
    /// Where it goes when this one fails.
    pub before: Good,
}

/// What failed in the replicas of the newest config since the application was RUNNING with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// A failed start, a death and a failed health check are one each.
    count: u32,
    last: String,
}

// === impl Failures ===

impl Failures {
    /// A replica died, or one did not start.
    pub fn ended(&mut self, why: &str) {
        self.add(1, why);
    }

    /// So many checks in a row failed that the replica counts as not well.
    pub fn not_well(&mut self, why: &str) {
        self.add(CHECKS_PER_VERDICT, why);
    }

    fn add(&mut self, count: u32, why: &str) {
        self.count = self.count.saturating_add(count);
        why.clone_into(&mut self.last);
    }
}

// === impl Application ===

impl Application {
    /// It runs with a config that never ran before.
    pub(super) fn begin_probation(&mut self, before: Good, now: Now) {
        let live = self.deployments.values_mut().filter(|d| !d.deleting);
        let mut seconds = PROBATION_SECONDS_MIN;
        for deployment in live {
            deployment.failures = Failures::default();
            seconds = seconds.max(deployment.verdict_seconds());
        }
        self.probation = Some(Probation {
            until_s: now.unix_s + seconds.min(PROBATION_SECONDS_MAX),
            before,
        });
    }

    /// The deployment that failed too often, and what to say of it.
    fn failed_on_probation(&self) -> Option<String> {
        let failed = |deployment: &Deployment| {
            !deployment.deleting && deployment.failures.count >= threshold(deployment.target)
        };
        let (name, deployment) = self.deployments.iter().find(|(_, d)| failed(d))?;
        let Failures { count, last } = &deployment.failures;
        Some(format!(
            "Failed to update the deployments ['{name}'].\n{name}: Its replicas were ready, and \
             failed {count} times soon after. Error:\n{last}"
        ))
    }

    /// The rollout that shall be taken back although the application was RUNNING with it.
    pub(super) fn failed_probation(&self, name: &str) -> Option<FailedRollout> {
        let probation = self.probation.as_ref()?;
        let error = self.failed_on_probation()?;
        let Good { revision, spec } = &probation.before;
        let mut spec = (**spec).clone();
        spec.taken_back = Some(format!("{error}\nrolled back to revision {revision}"));
        Some(FailedRollout {
            application: name.to_owned(),
            error,
            revision: *revision,
            spec,
        })
    }
}

// === impl Deployment ===

impl Deployment {
    /// How long it takes until a replica whose checks all hang counts as not well.
    fn verdict_seconds(&self) -> f64 {
        let replica = &self.spec.replica;
        let check = replica.health_check_period_s + replica.health_check_timeout_s;
        f64::from(CHECKS_PER_VERDICT) * check
    }
}

// === impl World ===

impl World {
    /// Whoever has come through it has nothing more to prove.
    pub(super) fn end_probations(&mut self, now: Now) {
        for application in self.applications.values_mut() {
            let over = |probation: &mut Probation| now.unix_s >= probation.until_s;
            application.probation.take_if(over);
        }
    }

    /// What an earlier head knew of a probation; what failed until then is not known any more.
    pub fn remember_probation(&mut self, application: &str, before: Good, until_s: f64, now: Now) {
        if let Some(application) = self.applications.get_mut(application)
            && application.proven
            && !application.deleting
        {
            // Clocks of two machines may differ.
            let until_s = until_s.min(now.unix_s + PROBATION_SECONDS_MAX);
            application.probation = Some(Probation { until_s, before });
        }
    }
}
