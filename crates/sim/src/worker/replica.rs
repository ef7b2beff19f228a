//! The life of a replica whose code does nothing: as the real host and actor lead it.

use std::time::Duration;

use mobula_proto::v1;
use mobula_worker::simulation::{
    Event as Life, Gate, Health, Limits, Phase, Told, UserConfig, Verdict, jittered, mode, next,
    time_owed,
};

use super::{Replica, Timer};
use crate::app::Kind;
use crate::cluster::{Cluster, ms};
use crate::message::Message;
use crate::sabotage::Sabotage;

impl Cluster {
    /// As the real cell: the gate follows before anybody can hear of the new phase.
    fn happened(&mut self, w: usize, id: &str, event: Life, message: &str) -> bool {
        let Some(replica) = self.workers[w].replicas.get_mut(id) else {
            return false;
        };
        let Some(phase) = next(replica.phase, event) else {
            return false;
        };
        replica.gate.set_mode(mode(phase));
        replica.phase = phase;
        message.clone_into(&mut replica.message);
        if phase == Phase::Running {
            self.check.ready(id);
        }
        self.log(&format!("worker{w} {id} {phase:?} {message}"));
        self.worker_report_soon(w);
        true
    }

    pub(super) fn replica_start(&mut self, w: usize, assigned: v1::AssignedReplica) {
        let id = assigned.replica_id.clone();
        let pause = match Kind::of(&assigned.args_json) {
            Kind::Slow => self.rng.range(4000, 9000),
            Kind::Good | Kind::Bad | Kind::Flaky | Kind::Broken | Kind::Failing => {
                self.rng.range(200, 2000)
            }
        };
        let mut limit = Limits::of(&assigned).max_ongoing_requests;
        if self.breaks(Sabotage::IgnoreLimits) {
            limit += 1;
        }
        let replica = Replica {
            told: Told::of(&assigned),
            phase: Phase::Starting,
            message: String::new(),
            wanted: UserConfig::of(&assigned),
            in_force: String::new(),
            constructed: false,
            configuring: false,
            health: Health::default(),
            sick_until: 0,
            gate: Gate::new(limit),
            started_at: self.queue.now(),
            assigned,
        };
        self.log(&format!("worker{w} {id} starts"));
        self.replica_started(&id);
        self.workers[w].replicas.insert(id.clone(), replica);
        self.worker_after(w, pause, Timer::Constructed(id));
    }

    pub(super) fn constructed(&mut self, w: usize, id: &str) {
        let flaky = self.rng.percent(50);
        let Some(replica) = self.workers[w].replicas.get_mut(id) else {
            return;
        };
        if replica.phase != Phase::Starting {
            return;
        }
        let fails = match Kind::of(&replica.assigned.args_json) {
            Kind::Bad | Kind::Broken => true,
            Kind::Flaky => flaky,
            Kind::Good | Kind::Slow | Kind::Failing => false,
        };
        let config = UserConfig {
            version: replica.assigned.config_version.clone(),
            json: replica.assigned.user_config_json.clone(),
        };
        if fails || is_bad(&config) {
            self.happened(w, id, Life::Died, "did not start");
            return;
        }
        replica.constructed = true;
        replica.in_force = config.version;
        self.settle(w, id);
    }

    /// As the real actor: one `reconfigure` at a time, and ready with the wanted config only.
    pub(super) fn settle(&mut self, w: usize, id: &str) {
        let Some(replica) = self.workers[w].replicas.get_mut(id) else {
            return;
        };
        if replica.in_force == replica.wanted.version {
            self.happened(w, id, Life::Reconfigured, "");
            if self.happened(w, id, Life::Ready, "") {
                self.health_later(w, id);
            }
            return;
        }
        replica.configuring = true;
        let wanted = replica.wanted.clone();
        self.happened(w, id, Life::Reconfigure, "");
        let pause = self.rng.range(10, 300);
        self.worker_after(w, pause, Timer::Configured(id.to_owned(), wanted));
    }

    pub(super) fn configured(&mut self, w: usize, id: &str, config: &UserConfig) {
        let Some(replica) = self.workers[w].replicas.get_mut(id) else {
            return;
        };
        if matches!(
            replica.phase,
            Phase::Draining | Phase::Stopped | Phase::Failed
        ) {
            return;
        }
        if is_bad(config) {
            self.happened(w, id, Life::Died, "reconfigure failed");
            return;
        }
        replica.configuring = false;
        replica.in_force.clone_from(&config.version);
        self.worker_report_soon(w);
        self.settle(w, id);
    }

    fn health_later(&mut self, w: usize, id: &str) {
        let random = self.rng.unit();
        if let Some(replica) = self.workers[w].replicas.get(id) {
            let pause = ms(jittered(replica.told.limits.health_check_period, random));
            self.worker_after(w, pause, Timer::Health(id.to_owned()));
        }
    }

    pub(super) fn check_health(&mut self, w: usize, id: &str) {
        let now = self.queue.now();
        let Some(replica) = self.workers[w].replicas.get_mut(id) else {
            return;
        };
        if matches!(
            replica.phase,
            Phase::Draining | Phase::Stopped | Phase::Failed
        ) {
            return;
        }
        let outcome = if now < replica.sick_until {
            Err("sick".to_owned())
        } else {
            Ok(())
        };
        match replica.health.observe(outcome) {
            Some(Verdict::Lost(text)) => drop(self.happened(w, id, Life::HealthLost, &text)),
            Some(Verdict::Regained) => drop(self.happened(w, id, Life::HealthRegained, "")),
            None => {}
        }
        self.health_later(w, id);
    }

    /// A replica's code is unwell for a while, or its actor dies.
    pub fn afflict(&mut self, w: usize) {
        let until = self.queue.now() + self.rng.range(3000, 20_000);
        let dies = self.rng.percent(40);
        let n = self.rng.index(self.workers[w].replicas.len());
        let Some((id, replica)) = self.workers[w].replicas.iter_mut().nth(n) else {
            return;
        };
        let id = id.clone();
        if dies {
            self.replica_dies(w, &id);
        } else {
            replica.sick_until = until;
        }
    }

    fn replica_dies(&mut self, w: usize, id: &str) {
        if !self.happened(w, id, Life::Died, "its actor panicked") {
            return;
        }
        let calls = self.calls_of(w, id);
        for key in calls {
            self.call_over(w, key);
            self.net
                .send(&mut self.queue, key.0, 1, Message::Died(key.1), 0);
        }
    }

    pub(super) fn replica_stop(&mut self, w: usize, id: &str) {
        let Some(replica) = self.workers[w].replicas.get_mut(id) else {
            return;
        };
        replica.told.stopping = true;
        let constructed = replica.constructed;
        let timeout = ms(replica.told.limits.drain_timeout);
        if !self.happened(w, id, Life::Stop, "") {
            return;
        }
        if !constructed {
            self.happened(w, id, Life::Drained, "");
            return;
        }
        if self.breaks(Sabotage::StopWithoutDraining) {
            return self.drained(w, id);
        }
        self.drain_timeout_after(w, id, timeout);
        self.may_be_drained(w, id);
    }

    pub(super) fn may_be_drained(&mut self, w: usize, id: &str) {
        let replica = self.workers[w].replicas.get(id);
        if replica.is_some_and(|r| r.phase == Phase::Draining && r.gate.ongoing() == 0) {
            let pause = self.rng.range(1, 200);
            self.worker_after(w, pause, Timer::Drained(id.to_owned()));
        }
    }

    pub(super) fn drained(&mut self, w: usize, id: &str) {
        let calls = self.calls_of(w, id);
        if !calls.is_empty() {
            let text = format!("{id} drained with {} calls inside", calls.len());
            self.check.violated("drain_loses_nothing", &text);
        }
        self.happened(w, id, Life::Drained, "");
    }

    fn drain_timeout_after(&mut self, w: usize, id: &str, pause: u64) {
        let due = self.queue.now() + pause;
        self.worker_after(w, pause, Timer::DrainTimeout(id.to_owned(), due));
    }

    pub(super) fn drain_timeout(&mut self, w: usize, id: &str, due: u64) {
        let replica = self.workers[w].replicas.get(id);
        let Some(draining) = replica.filter(|replica| replica.phase == Phase::Draining) else {
            return;
        };
        let limit = draining.told.limits.drain_timeout;
        let late = Duration::from_millis(self.queue.now().saturating_sub(due));
        if let Some(owed) = time_owed(limit, late) {
            return self.drain_timeout_after(w, id, ms(owed));
        }
        for key in self.calls_of(w, id) {
            self.log(&format!("{id} is killed with a call"));
            self.check
                .violated("drain_loses_nothing", &format!("{id} was killed"));
            self.call_over(w, key);
        }
        self.happened(w, id, Life::Drained, "killed");
    }
}

fn is_bad(config: &UserConfig) -> bool {
    let json = config.json.as_deref().unwrap_or_default();
    json.contains("\"bad\"")
}
