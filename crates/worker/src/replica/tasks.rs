//! What runs beside the replica actor and tells it when something happened, so that the actor
//! itself never waits. Each sends one message per thing that happened, so none floods the mailbox.

use std::sync::Arc;

use mobula_app::Replica;
use ractor::ActorRef;
use tokio::sync::watch;

use super::ReplicaMsg;
use super::checks::Checks;
use super::start::reconfigure;
use super::threads::Threads;
use crate::assignment::{Limits, UserConfig};
use crate::gate::Gate;
use crate::health::{Health, jittered};
use crate::standstill::within;

/// Checks health for ever; tells the actor when the replica's standing changed.
pub(crate) async fn watch_health(
    replica: String,
    checks: Checks,
    limits: watch::Receiver<Limits>,
    actor: ActorRef<ReplicaMsg>,
) {
    let mut health = Health::default();
    loop {
        let period = limits.borrow().health_check_period;
        tokio::time::sleep(jittered(period, fastrand::f64())).await;
        let timeout = limits.borrow().health_check_timeout;
        let outcome = checks.check(timeout).await;
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
    code: Arc<dyn Replica>,
    threads: Threads,
    config: UserConfig,
    actor: ActorRef<ReplicaMsg>,
) {
    let version = config.version.clone();
    let configuring = threads.run(move || async move { reconfigure(&*code, &config).await });
    let outcome = configuring
        .await
        .unwrap_or_else(|broken| Err(format!("reconfigure {broken}")));
    // An actor that is gone has no config to keep.
    let _ = actor.cast(ReplicaMsg::Configured(version, outcome));
}

/// Waits until the calls inside have ended, then lets the code shut down; at most as long as the
/// config allows. The gate is closed already, so nobody new comes in: a call that a router sent
/// before it heard of that is rejected and goes elsewhere, so there is nothing to wait for first.
pub(crate) async fn drain(
    code: Arc<dyn Replica>,
    threads: Threads,
    limits: Limits,
    gate: Arc<Gate>,
    actor: ActorRef<ReplicaMsg>,
) {
    let graceful = async {
        gate.idle().await;
        let shutting_down = threads.run(move || async move { code.shutdown().await });
        if let Err(error) = shutting_down.await {
            tracing::warn!(error, "shutdown of a replica failed");
        }
    };
    let in_time = within(limits.drain_timeout, graceful).await.is_some();
    let _ = actor.cast(ReplicaMsg::Drained { in_time });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mobula_app::{CallError, Request, Response, async_trait};
    use ractor::{Actor, ActorProcessingErr};
    use tokio::sync::mpsc;

    use super::*;
    use crate::gate::Mode;

    struct Quick;

    #[async_trait]
    impl Replica for Quick {
        async fn call(&self, _request: Request) -> Result<Response, CallError> {
            Ok(Response::text("done"))
        }
    }

    /// Passes on whether a drain ended in time.
    struct Owner;

    impl Actor for Owner {
        type Msg = ReplicaMsg;
        type State = mpsc::UnboundedSender<bool>;
        type Arguments = mpsc::UnboundedSender<bool>;

        async fn pre_start(
            &self,
            _myself: ActorRef<ReplicaMsg>,
            told: mpsc::UnboundedSender<bool>,
        ) -> Result<mpsc::UnboundedSender<bool>, ActorProcessingErr> {
            Ok(told)
        }

        async fn handle(
            &self,
            _myself: ActorRef<ReplicaMsg>,
            message: ReplicaMsg,
            told: &mut mpsc::UnboundedSender<bool>,
        ) -> Result<(), ActorProcessingErr> {
            if let ReplicaMsg::Drained { in_time } = message {
                told.send(in_time)?;
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_call_that_a_stop_of_the_process_held_up_is_not_killed_as_it_wakes() {
        let limits = Limits {
            max_ongoing_requests: 1,
            drain_timeout: Duration::from_secs(20),
            health_check_period: Duration::from_secs(10),
            health_check_timeout: Duration::from_secs(30),
            route_prefix: String::new(),
        };
        let gate = Gate::new(1);
        gate.set_mode(Mode::Open);
        let call = gate.enter().unwrap();
        gate.set_mode(Mode::Draining);
        let (told, mut in_time) = mpsc::unbounded_channel();
        let (actor, _) = Actor::spawn(None, Owner, told).await.unwrap();
        let (code, threads) = (Arc::new(Quick), Threads::default());
        let draining = tokio::spawn(drain(code, threads, limits, gate, actor));
        tokio::task::yield_now().await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(27)).await;
        tokio::time::resume();
        drop(call);
        assert_eq!(in_time.recv().await, Some(true));
        draining.await.unwrap();
    }
}
