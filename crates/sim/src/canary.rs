//! New versions that get a part of the requests first: once nothing goes wrong any more, the user
//! tries good ones and bad ones, and what becomes of them is known. The shares are checked all
//! the time.

use std::collections::BTreeMap;

use mobula_proto::v1;
use mobula_worker::simulation::Phase as Life;
use serde_json::Value;

use crate::app::{APPS, Kind, trial};
use crate::cluster::{Cluster, Event};
use crate::router::DeploymentKey;

/// After the last fault the cluster is left alone for so long before something is tried.
pub const TRIAL_AFTER_MS: u64 = 25_000;

/// It is tried within this time, or the cluster is not at rest.
const TRIAL_AFTER_MS_MAX: u64 = 55_000;

/// So many standard deviations are more than chance, however often one looks.
const DEVIATIONS_MAX: f64 = 6.0;

/// So few requests say nothing.
const FEW: f64 = 6.0;

/// What was tried at the end.
#[derive(Clone, Debug)]
pub struct Trial {
    pub application: String,
    pub kind: Kind,
    /// The `args` that shall be in force at the end.
    expected: Value,
}

/// Requests that came while a version had a share, and those that it got.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    expected: f64,
    variance: f64,
    got: u64,
}

/// By deployment and version.
#[derive(Default)]
pub struct Shares(BTreeMap<(DeploymentKey, String), Share>);

impl Shares {
    /// A request came; the version gets it with that chance.
    pub fn came(&mut self, key: &DeploymentKey, version: &str, chance: f64) {
        let share = self.0.entry((key.clone(), version.to_owned())).or_default();
        share.expected += chance;
        share.variance += chance * (1.0 - chance);
    }

    /// The version got one; Some: that is too many.
    pub fn got(&mut self, key: &DeploymentKey, version: &str) -> Option<String> {
        let share = self.0.entry((key.clone(), version.to_owned())).or_default();
        share.got += 1;
        let Share {
            expected,
            variance,
            got,
        } = *share;
        let most = expected + DEVIATIONS_MAX * variance.sqrt() + FEW;
        let (app, _) = key;
        (got as f64 > most)
            .then(|| format!("{app} {version} got {got} requests, {expected:.1} are its share"))
    }
}

/// What a table says of a canary: its version, and its part.
pub fn share_of(deployment: &v1::TableDeployment) -> Option<(&str, f64)> {
    let share = deployment.canary.as_ref()?;
    Some((&share.code_version, f64::from(share.percent) / 100.0))
}

impl Cluster {
    /// The user tries new versions, as soon as the cluster is as it shall be.
    pub fn try_canaries(&mut self) {
        let now = self.queue.now();
        if !self.is_settled() {
            if now < self.faults_end_at + TRIAL_AFTER_MS_MAX {
                self.queue.after(500, Event::Trial);
            }
            return;
        }
        self.log("all is well");
        self.outside.calm_from = Some(now);
        if self.outside.compaction.is_long {
            // New versions would keep workers from being emptied.
            return self.count_starts_from_now();
        }
        for app in APPS {
            let kind = match self.rng.range(0, 3) {
                0 => continue,
                1 => Kind::Good,
                _ => Kind::Failing,
            };
            // One that was given up in the last moments of the faults is not there now.
            let serves = self.args_in_force(app);
            let before = self.outside.entries.get(app).cloned();
            let Some(before) = before.filter(|entry| serves.as_ref() == Some(&entry["args"]))
            else {
                continue;
            };
            let number = self.outside.next_number();
            let entry = trial(&before, kind, number);
            let lasting = if kind == Kind::Good { &entry } else { &before };
            self.outside.trials.push(Trial {
                application: app.to_owned(),
                kind,
                expected: lasting["args"].clone(),
            });
            self.outside.entries.insert(app.to_owned(), entry);
        }
        self.deploy_entries();
    }

    fn args_in_force(&self, app: &str) -> Option<Value> {
        let lead = self.heads.iter().find_map(|head| head.lead.as_ref())?;
        let application = lead.control.world.applications.get(app)?;
        Some(application.declared.raw["args"].clone())
    }

    /// The old version of a canary keeps its replicas.
    pub fn check_old_versions(&mut self) {
        if self.outside.calm_from.is_none() {
            return;
        }
        let Some(lead) = self.heads.iter().find_map(|head| head.lead.as_ref()) else {
            return;
        };
        let mut missing = Vec::new();
        for (id, deployment) in lead.control.world.deployments() {
            let canary = deployment.canary.as_ref();
            let Some(canary) = canary.filter(|canary| canary.is_shared()) else {
                continue;
            };
            // A count that follows the load may grow at any time.
            if deployment.spec.autoscaling.is_some() {
                continue;
            }
            let replicas = self.workers.iter().flat_map(|w| w.replicas.values());
            let serving = replicas.filter(|replica| {
                replica.phase == Life::Running
                    && replica.is_of(&id.application, &canary.stable.code_version)
            });
            let (count, target) = (serving.count(), deployment.target);
            if count < target as usize {
                missing.push(format!("{id} has {count} of {target} old replicas"));
            }
        }
        for text in missing {
            self.check
                .violated("the_old_version_keeps_its_replicas", &text);
        }
    }

    /// It has come to rest.
    pub fn check_trials(&mut self) {
        let mut wrong = Vec::new();
        for trial in &self.outside.trials {
            let args = self.args_in_force(&trial.application);
            if args.as_ref() != Some(&trial.expected) {
                let text = format!("{} has {args:?}, not {}", trial.application, trial.expected);
                let property = if trial.kind == Kind::Good {
                    "a_good_canary_is_promoted"
                } else {
                    "a_bad_canary_is_given_up"
                };
                wrong.push((property, text));
            }
        }
        for (property, text) in wrong {
            self.check.violated(property, &text);
        }
    }
}
