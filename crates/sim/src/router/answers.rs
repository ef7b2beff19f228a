//! Requests that two versions share: who gets them, and how they are answered.

use std::time::Duration;

use mobula_proto::v1;

use super::{DeploymentKey, Router, Target};
use crate::canary::share_of;
use crate::cluster::Cluster;
use crate::message::RequestId;
use crate::sabotage::Sabotage;

impl Router {
    /// As the real one: counts of versions that share requests, and of no others.
    pub(super) fn keep_answers(&mut self, key: &DeploymentKey, table: &v1::TableDeployment) {
        self.answers.retain(|(deployment, version), _| {
            let share = table.canary.as_ref();
            let shares = share.is_some_and(|share| {
                let mut replicas = table.replicas.iter();
                share.code_version == *version || replicas.any(|r| r.code_version == *version)
            });
            deployment != key || shares
        });
    }

    pub(super) fn answers(&self) -> Vec<v1::VersionAnswers> {
        let answers = self.answers.iter();
        answers
            .map(|((key, version), answers)| answers.report(&key.0, &key.1, version))
            .collect()
    }

    fn table_of(&self, key: &DeploymentKey) -> Option<&v1::TableDeployment> {
        let mut applications = self.table.applications.iter();
        let application = applications.find(|application| application.name == key.0)?;
        let mut deployments = application.deployments.iter();
        deployments.find(|deployment| deployment.name == key.1)
    }

    /// Whether a replica of the version that serves can be reached.
    fn reaches_stable(&self, table: &v1::TableDeployment, canary: &str) -> bool {
        let mut replicas = table.replicas.iter();
        replicas.any(|replica| {
            let peer = self.peers.get(&replica.worker_id);
            replica.code_version != canary && peer.is_some_and(|peer| peer.conn.is_some())
        })
    }
}

impl Cluster {
    /// A request came: who shares it, if anybody does.
    pub(super) fn share_came(&mut self, r: usize, key: &DeploymentKey) {
        let router = &self.routers[r];
        let Some(table) = router.table_of(key) else {
            return;
        };
        if let Some((version, part)) = share_of(table) {
            self.check.shares.came(key, version, part);
        }
    }

    /// It goes to a replica, where its answer is counted. What a canary gets because nothing else
    /// can be reached is not counted, and no reason to get more later.
    pub(super) fn share_got(&mut self, r: usize, id: RequestId, target: &Target) {
        let now = self.queue.now();
        let router = &mut self.routers[r];
        let Some(request) = router.requests.get_mut(&id) else {
            return;
        };
        request.since = now;
        request.trial.clone_from(&target.version);
        let is_first = !std::mem::replace(&mut request.was_sent, true);
        let key = request.queue.clone();
        if !is_first || !target.is_canary {
            return;
        }
        let router = &self.routers[r];
        let Some(table) = router.table_of(&key) else {
            return;
        };
        let Some((version, _)) = share_of(table) else {
            return;
        };
        if router.reaches_stable(table, version)
            && let Some(text) = self.check.shares.got(&key, version)
        {
            self.check
                .violated("a_canary_gets_its_share_at_most", &text);
        }
    }

    /// The answer of a replica began, or there is none.
    pub(super) fn judge(&mut self, r: usize, id: RequestId, failed: bool) {
        let now = self.queue.now();
        let hides = self.breaks(Sabotage::HideErrors);
        let invents = self.breaks(Sabotage::InventErrors);
        let router = &mut self.routers[r];
        let Some(request) = router.requests.get_mut(&id) else {
            return;
        };
        if let Some(version) = request.trial.take() {
            let answers = router.answers.entry((request.queue.clone(), version));
            let latency = Duration::from_millis(now - request.since);
            let is_error = (failed && !hides) || invents;
            answers.or_default().count(latency, is_error);
        }
    }
}
