//! What must hold, and what is known to check it: the truth that no single process has.

use std::collections::{BTreeMap, BTreeSet};

use mobula_head::world::{Resources, World};
use mobula_proto::v1;
use mobula_router::limits::REPEATS_MAX;

use crate::canary::Shares;
use crate::message::RequestId;

/// How a request ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    Ok,
    /// The replica's code failed.
    Failed,
    /// No such application.
    NotFound,
    /// The queue is full, or the deployment failed or went.
    Refused,
    /// The replica was lost with it.
    Died,
    TimedOut,
    /// The router went away.
    Cut,
}

#[derive(Default)]
pub struct Check {
    pub violations: Vec<String>,
    ready: BTreeSet<String>,
    open: BTreeMap<RequestId, Execution>,
    pub answers: BTreeMap<Answer, u64>,
    /// Executions that began although the router of the request never heard of another one.
    pub unheard_repeats: u64,
    accepted_max: u64,
    pub shares: Shares,
}

/// What may become of a request that is sent while nothing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Careful {
    AnswerOk,
    /// A bad version is being tried.
    MayFail,
}

#[derive(Default)]
struct Execution {
    repeatable: bool,
    careful: Option<Careful>,
    begun: u32,
    heard: u32,
}

impl Check {
    pub fn violated(&mut self, property: &str, what: &str) {
        self.violations.push(format!("{property}: {what}"));
    }

    // ---- requests ----

    pub fn sent(&mut self, request: RequestId, repeatable: bool, careful: Option<Careful>) {
        let execution = Execution {
            repeatable,
            careful,
            ..Execution::default()
        };
        self.open.insert(request, execution);
    }

    /// A replica's code sees the request.
    pub fn executed(&mut self, request: RequestId) {
        if let Some(execution) = self.open.get_mut(&request) {
            execution.begun += 1;
            if execution.begun > execution.heard + 1 {
                self.unheard_repeats += 1;
            }
        }
    }

    /// The router learns that a replica took the request.
    pub fn heard(&mut self, request: RequestId) {
        let Some(execution) = self.open.get_mut(&request) else {
            return;
        };
        execution.heard += 1;
        let max = if execution.repeatable {
            1 + REPEATS_MAX
        } else {
            1
        };
        if execution.heard > max {
            let text = format!("request {request}, {} times", execution.heard);
            self.violated("executed_at_most_once_unless_repeatable", &text);
        }
    }

    pub fn answered(&mut self, request: RequestId, answer: Answer) {
        let Some(execution) = self.open.remove(&request) else {
            let text = format!("request {request} was answered again, {answer:?}");
            self.violated("exactly_one_answer", &text);
            return;
        };
        *self.answers.entry(answer).or_default() += 1;
        let is_right = match execution.careful {
            None => true,
            Some(Careful::AnswerOk) => answer == Answer::Ok,
            Some(Careful::MayFail) => matches!(answer, Answer::Ok | Answer::Failed),
        };
        if !is_right {
            let text = format!("request {request} got {answer:?}");
            self.violated("nothing_fails_when_nothing_is_wrong", &text);
        }
        if matches!(answer, Answer::Ok | Answer::Failed) && execution.begun == 0 {
            let text = format!("request {request} was answered and nobody did it");
            self.violated("exactly_one_answer", &text);
        }
    }

    // ---- replicas and tables ----

    pub fn ready(&mut self, replica: &str) {
        self.ready.insert(replica.to_owned());
    }

    /// What a head promised on each worker, whoever asked for it.
    pub fn promised(&mut self, world: &World) {
        let mut held: BTreeMap<&str, Resources> = BTreeMap::new();
        for (_, deployment) in world.deployments() {
            for replica in deployment.replicas.values() {
                let own = held.entry(&replica.worker).or_default();
                own.add(replica.spec.hosted());
                for reservation in &replica.reserved {
                    let there = held.entry(&reservation.worker).or_default();
                    there.add(&reservation.resources);
                }
            }
        }
        for (id, held) in held {
            let Some(worker) = world.workers.get(id) else {
                continue;
            };
            if !worker.capacity.has_room_for(&held, &worker.capacity) {
                let there = world.deployments().flat_map(|(_, deployment)| {
                    let replicas = deployment.replicas.iter();
                    let here = replicas.filter(|(_, replica)| replica.workers().any(|w| w == id));
                    here.map(|(name, replica)| format!("{name} {:?}", replica.phase))
                });
                let there: Vec<String> = there.collect();
                let text = format!(
                    "{held} on {id}, which has {}: {}",
                    worker.capacity,
                    there.join(", ")
                );
                self.violated("no_worker_is_promised_twice", &text);
            }
        }
    }

    pub fn published(&mut self, table: &v1::RouteTable) {
        let deployments = table.applications.iter().flat_map(|a| &a.deployments);
        for replica in deployments.flat_map(|deployment| &deployment.replicas) {
            if !self.ready.contains(&replica.replica_id) {
                let text = format!("table {} names {}", table.version, replica.replica_id);
                self.violated("tables_name_only_ready_replicas", &text);
            }
        }
    }

    // ---- configs ----

    /// A config was answered 200.
    pub fn accepted(&mut self, revision: u64, stored: (u64, Option<u64>)) {
        if stored.0 < revision || stored.1 != Some(revision) {
            let text = format!("revision {revision} was accepted, stored is {stored:?}");
            self.violated("an_accepted_config_is_durable", &text);
        }
        self.accepted_max = self.accepted_max.max(revision);
    }

    /// What the newest revision of the store is now.
    pub fn stored(&mut self, newest: u64) {
        if newest < self.accepted_max {
            let text = format!(
                "revision {} was accepted, the newest is {newest}",
                self.accepted_max
            );
            self.violated("an_accepted_config_is_durable", &text);
        }
    }

    /// Nothing moves any more.
    pub fn at_the_end(&mut self) {
        if !self.open.is_empty() {
            let open: Vec<String> = self.open.keys().take(5).map(ToString::to_string).collect();
            let text = format!("no answer to {}", open.join(", "));
            self.violated("exactly_one_answer", &text);
        }
    }
}
