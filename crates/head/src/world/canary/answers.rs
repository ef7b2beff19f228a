//! How the counts of routers become those of a step.

use std::collections::BTreeSet;

use crate::world::observed::{Answers, Router};
use crate::world::{RouterId, World};

// === impl Answers ===

impl Answers {
    pub(super) fn add(&mut self, more: &Answers) {
        self.answers = self.answers.saturating_add(more.answers);
        self.errors = self.errors.saturating_add(more.errors);
        if self.latencies.len() < more.latencies.len() {
            self.latencies.resize(more.latencies.len(), 0);
        }
        for (sum, more) in self.latencies.iter_mut().zip(&more.latencies) {
            *sum = sum.saturating_add(*more);
        }
    }

    /// What came after `before`. Smaller numbers mean that the router began anew: then all.
    pub(super) fn since(&self, before: &Answers) -> Answers {
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
    pub(in crate::world) fn count_answers(&mut self, router: &Router) {
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
    pub(in crate::world) fn forget_routers(&mut self) {
        let here: BTreeSet<&RouterId> = self.routers.keys().collect();
        let applications = self.applications.values_mut();
        let deployments = applications.flat_map(|app| app.deployments.values_mut());
        for canary in deployments.filter_map(|deployment| deployment.canary.as_mut()) {
            canary.said.retain(|router, _| here.contains(router));
        }
    }
}
