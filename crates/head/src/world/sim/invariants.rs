//! What holds after every step of the head.

use std::collections::{BTreeMap, BTreeSet};

use mobula_proto::v1;

use super::Sim;
use crate::world::canary::Stage;
use crate::world::health::is_out_of_reach;
use crate::world::observed::ReportedState;
use crate::world::rollout::{surge, wave};
use crate::world::{Action, Plan, Resources};

impl Sim {
    /// What replicas hold on a worker is never more than it has.
    pub(super) fn invariant_nothing_is_promised_twice(&self) {
        let mut held: BTreeMap<&str, Resources> = BTreeMap::new();
        for (_, deployment) in self.world.deployments() {
            for replica in deployment.replicas.values() {
                let own = held.entry(&replica.worker).or_default();
                own.add(replica.spec.hosted());
                for reservation in &replica.reserved {
                    let there = held.entry(&reservation.worker).or_default();
                    there.add(&reservation.resources);
                }
            }
        }
        for (id, worker) in &self.world.workers {
            let held = held.remove(id.as_str()).unwrap_or_default();
            let has_room = worker.capacity.has_room_for(&held, &worker.capacity);
            assert!(has_room, "{held} on {id}, which has {}", worker.capacity);
        }
    }

    pub(super) fn invariant_tables_name_only_ready_replicas(&self) {
        let table = self.world.published.table().cloned().unwrap_or_default();
        for application in &table.applications {
            for replica in application.deployments.iter().flat_map(|d| &d.replicas) {
                let report = &self.world.workers[&replica.worker_id].replicas[&replica.replica_id];
                assert!(
                    matches!(
                        report.state,
                        ReportedState::Running | ReportedState::Updating | ReportedState::Unhealthy
                    ),
                    "{} is {:?}",
                    replica.replica_id,
                    report.state
                );
            }
        }
    }

    /// What leaves an assignment while its worker lives is in no connected router's table.
    pub(super) fn invariant_out_of_tables_before_dropped(
        &self,
        before: &BTreeMap<String, v1::WorkerAssignment>,
    ) {
        for (worker, after) in self.world.published.assignments() {
            let kept: BTreeSet<&str> = after
                .replicas
                .iter()
                .map(|r| r.replica_id.as_str())
                .collect();
            let dropped = before
                .get(worker)
                .into_iter()
                .flat_map(|before| &before.replicas)
                .map(|replica| replica.replica_id.as_str())
                .filter(|id| !kept.contains(id) && !self.excused.contains(*id));
            for id in dropped {
                for (router, table) in &self.routers {
                    let routed = table
                        .applications
                        .iter()
                        .flat_map(|application| &application.deployments)
                        .flat_map(|deployment| &deployment.replicas)
                        .any(|replica| replica.replica_id == id);
                    assert!(!routed, "{id} was dropped while {router} may still use it");
                }
            }
        }
    }

    /// Beyond that there are only replicas whose worker is out of reach, or came back after its
    /// replicas were replaced.
    pub(super) fn invariant_nothing_starts_more_than_a_wave_beyond_the_target(&self, plan: &Plan) {
        for (id, deployment) in self.world.deployments() {
            let starts = plan.actions.iter().any(|planned| match &planned.action {
                Action::Start { key, .. } => key.deployment == id,
                _ => false,
            });
            if !starts {
                continue;
            }
            let canary = deployment
                .canary
                .as_ref()
                .zip(deployment.spec.traffic.as_ref());
            let group = &deployment.spec.replica.group;
            let beside = canary.map_or(0, |(canary, traffic)| match canary.stage {
                Stage::Step { .. } => {
                    group.whole_gangs(canary.replicas(traffic, deployment.target))
                }
                // It had as many as its last step needs.
                Stage::Promoted | Stage::GivenUp(_) => deployment.target,
            });
            // Each version is a deployment of its own, and may have to be moved like one.
            let versions = 1 + u32::from(canary.is_some());
            let beyond = versions * surge(deployment).max(wave(deployment));
            let live = deployment.replicas.values();
            let live = live.filter(|r| r.phase.is_live() && !is_out_of_reach(&self.world, r));
            let (live, target) = (live.count() as u32, deployment.target);
            assert!(
                live <= target + beside + beyond,
                "{live} live replicas of {id} with target {target}"
            );
        }
    }
}
