//! Which config of each application is known to run, and which one failed to replace it.
//!
//! A config is good once its application was RUNNING with it. When a newer one fails before
//! that, or soon after (`probation`), the application returns to the good one; this says which
//! and why, the controller makes it durable and true.

use std::sync::Arc;

use super::application_status::{AppState, status_of_what_counts};
use super::canary::Canary;
use super::deployment_status::State;
use super::intent::{Application, Deployment, Good};
use super::spec::ApplicationSpec;
use super::starts::threshold;
use super::{Now, World};

/// Bytes of the text that says what failed, which is stored with the config.
const ERROR_BYTES_MAX: usize = 4 * 1024;

/// A config that did not come to run, and the one to return to.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedRollout {
    pub application: String,
    /// What failed.
    pub error: String,
    /// Where the good config stands in the history.
    pub revision: u64,
    /// The good config, to be declared again; its `taken_back` says what happened.
    pub spec: ApplicationSpec,
}

// === impl World ===

impl World {
    /// Remembers the config of every application that runs. Changes nothing that is planned.
    pub fn mark_good(&mut self, now: Now) {
        self.end_probations(now);
        for application in self.applications.values_mut() {
            let newest = application
                .good
                .as_ref()
                .is_some_and(|good| good.revision == self.revision);
            if !application.runs_as_declared() || (application.proven && newest) {
                continue;
            }
            let good = Good {
                revision: self.revision,
                spec: application.declared.clone(),
            };
            let before = application.good.replace(good);
            if let Some(before) = before.filter(|_| !application.proven) {
                application.begin_probation(before, now);
            }
            application.proven = true;
        }
    }

    /// The rollouts that shall be taken back now.
    pub fn failed_rollouts(&self) -> Vec<FailedRollout> {
        self.applications
            .iter()
            .filter_map(|(name, application)| failed_rollout(name, application))
            .collect()
    }

    /// What an earlier head knew to run. One that is what is declared has nothing to prove.
    pub fn remember_good(&mut self, application: &str, spec: ApplicationSpec, revision: u64) {
        if let Some(application) = self.applications.get_mut(application)
            && !application.deleting
        {
            application.proven = application.declared.raw == spec.raw;
            application.good = Some(Good {
                revision,
                spec: Arc::new(spec),
            });
        }
    }

    /// The rollout of an application is left as it is: it cannot be taken back.
    pub fn leave_failed(&mut self, application: &str) {
        if let Some(application) = self.applications.get_mut(application) {
            Arc::make_mut(&mut application.declared).rollback = false;
        }
    }
}

fn failed_rollout(name: &str, application: &Application) -> Option<FailedRollout> {
    if application.deleting || !application.declared.rollback {
        return None;
    }
    if application.proven {
        return application.failed_probation(name);
    }
    let good = application.good.as_ref()?;
    let error = error(application)?;
    let serving = application
        .deployments
        .values()
        .flat_map(|deployment| deployment.replicas.values())
        .any(|replica| replica.phase.is_answering());
    let revision = good.revision;
    let which = if serving { ", which is serving" } else { "" };
    let mut spec = (*good.spec).clone();
    spec.taken_back = Some(format!(
        "{error}\nrolled back to revision {revision}{which}"
    ));
    Some(FailedRollout {
        application: name.to_owned(),
        error,
        revision,
        spec,
    })
}

/// What made the newest config fail for good; None: it did not, or not yet.
fn error(application: &Application) -> Option<String> {
    let text = match &application.failure {
        Some(failure) => failure.clone(),
        None => {
            let (name, failed) = application.deployments.iter().find(|(_, deployment)| {
                // Code that ran before is tried for ever; a config that it cannot take is not.
                let starts = &deployment.starts;
                !deployment.deleting
                    && (starts.gave_up || starts.failures_in_a_row >= threshold(deployment.target))
                    && deployment.status.state == State::DeployFailed
            })?;
            let (_, summary) = status_of_what_counts(application);
            format!("{summary}\n{name}: {}", failed.status.message)
        }
    };
    if text.len() <= ERROR_BYTES_MAX {
        return Some(text);
    }
    let end = text.floor_char_boundary(ERROR_BYTES_MAX);
    Some(format!("{}…", &text[..end]))
}

// === impl Application ===

impl Application {
    /// Whether everything that is declared of it runs, whatever was declared before.
    pub fn runs(&self) -> bool {
        self.built.is_some() && status_of_what_counts(self).0 == AppState::Running
    }

    /// Whether it runs with nothing but the newest version of everything. An application whose
    /// count follows the load is RUNNING while it is being replaced, too.
    pub fn runs_as_declared(&self) -> bool {
        let replaced = |deployment: &Deployment| {
            let judged = !deployment.canary.as_ref().is_some_and(Canary::is_shared);
            let mut live = deployment
                .replicas
                .values()
                .filter(|replica| replica.phase.is_live());
            let all_newest = live.all(|replica| deployment.is_current(replica));
            let mut live = deployment.replicas.values();
            judged
                && all_newest
                && (deployment.target == 0 || live.any(|replica| replica.phase.is_answering()))
        };
        self.runs() && self.deployments.values().all(replaced)
    }
}
