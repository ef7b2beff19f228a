//! What runs beside the replica actor and tells it when something happened, so that the actor
//! itself never waits. Each sends one message per thing that happened, so none floods the mailbox.

use std::sync::Arc;

use mobula_app::Replica;
use ractor::ActorRef;
use tokio::sync::watch;

use super::start::{check_health, reconfigure};
use super::{ReplicaMsg, unpanicked};
use crate::assignment::{Limits, UserConfig};
use crate::gate::Gate;
use crate::health::{Health, jittered};

/// Checks health for ever; tells the actor when the replica's standing changed.
pub(crate) async fn watch_health(
    replica: String,
    code: Arc<dyn Replica>,
    limits: watch::Receiver<Limits>,
    actor: ActorRef<ReplicaMsg>,
) {
    let mut health = Health::default();
    loop {
        let period = limits.borrow().health_check_period;
        tokio::time::sleep(jittered(period, fastrand::f64())).await;
        let timeout = limits.borrow().health_check_timeout;
        let outcome = check_health(code.as_ref(), timeout).await;
        if let Err(text) = &outcome {
            tracing::warn!(replica, error = %text, "health check failed");
        }
        let Some(verdict) = health.observe(outcome) else {
            continue;
        };
        if actor.cast(ReplicaMsg::Health(verdict)).is_err() {
            return;
        }
    }
}

/// Gives the code a new config and tells the actor how that went.
pub(crate) async fn configure(
    replica: Arc<dyn Replica>,
    config: UserConfig,
    actor: ActorRef<ReplicaMsg>,
) {
    let outcome = reconfigure(replica.as_ref(), &config).await;
    // An actor that is gone has no config to keep.
    let _ = actor.cast(ReplicaMsg::Configured(config.version, outcome));
}

/// Waits until the calls inside have ended, then lets the code shut down; at most as long as the
/// config allows. The gate is closed already, so nobody new comes in: a call that a router sent
/// before it heard of that is rejected and goes elsewhere, so there is nothing to wait for first.
pub(crate) async fn drain(
    replica: Arc<dyn Replica>,
    limits: Limits,
    gate: Arc<Gate>,
    actor: ActorRef<ReplicaMsg>,
) {
    let graceful = async {
        gate.idle().await;
        if let Err(panic) = unpanicked(replica.shutdown()).await {
            tracing::warn!(error = %panic, "shutdown of a replica failed");
        }
    };
    let in_time = tokio::time::timeout(limits.drain_timeout, graceful).await;
    let _ = actor.cast(ReplicaMsg::Drained {
        in_time: in_time.is_ok(),
    });
}
