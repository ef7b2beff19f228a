//! The document: it agrees with the Serve document, tells no secrets, and stays small.

use std::sync::Arc;

use serde_json::{Value, json};

use super::summary::Level;
use super::{Overview, REPLICAS_SHOWN_MAX, overview, replicas};
use crate::decisions::Decisions;
use crate::history::History;
use crate::status::{About, LoopStats, document};
use crate::world::fixtures::{V1, Version, application, at, config};
use crate::world::observed::RouterLoad;
use crate::world::sim::{BAD_CODE, Sim};
use crate::world::spec::DeploySpec;
use crate::world::{DeploymentId, Event};

fn about() -> About {
    About {
        ray_version: "2.60.0".parse().unwrap(),
        node_id: "a".repeat(56),
        node_ip: "192.0.2.2".to_owned(),
        pid: 42,
        started_at_s: 1_700_000_000.0,
    }
}

fn of(sim: &Sim) -> Overview {
    let now = at(sim.now_ms);
    overview(&sim.world, &about(), &History::default(), Vec::new(), now)
}

fn serve_document(sim: &Sim) -> Value {
    let stats = LoopStats::default();
    document(&sim.world, &about(), &stats, None, at(sim.now_ms))
}

fn deployed(spec: DeploySpec, cpus: f64) -> Sim {
    let mut sim = Sim::new();
    sim.add_worker(cpus);
    sim.add_router();
    sim.observe(Event::Deploy(Box::new(spec)));
    sim.settle();
    sim
}

fn three() -> DeploySpec {
    config(vec![
        application("good", Version { target: 3, ..V1 }),
        application(
            "bad",
            Version {
                code: BAD_CODE,
                ..V1
            },
        ),
        application("large", Version { cpus: 50.0, ..V1 }),
    ])
}

fn id(application: &str) -> DeploymentId {
    DeploymentId {
        application: application.to_owned(),
        deployment: "D".to_owned(),
    }
}

#[test]
fn statuses_messages_and_counts_are_those_of_the_serve_document() {
    let sim = deployed(three(), 8.0);
    let (overview, serve) = (of(&sim), serve_document(&sim));
    assert_eq!(overview.applications.len(), 3);
    for view in &overview.applications {
        let theirs = &serve["applications"][&view.name];
        assert_eq!(theirs["status"], view.status);
        assert_eq!(theirs["message"], view.message);
        for view in &view.deployments {
            let theirs = &theirs["deployments"][&view.name];
            assert_eq!(theirs["status"], view.status);
            assert_eq!(theirs["status_trigger"], view.status_trigger);
            assert_eq!(theirs["message"], view.message);
            assert_eq!(theirs["target_num_replicas"], view.target);
            let replicas = theirs["replicas"].as_array().unwrap();
            let in_state = |state: &str| replicas.iter().filter(|r| r["state"] == state).count();
            for (state, count) in &view.states {
                assert_eq!(in_state(state), *count as usize, "{state}");
            }
            assert_eq!(view.states.values().sum::<u32>() as usize, replicas.len());
        }
    }
}

#[test]
fn the_sentence_names_the_worst_and_the_concerns_say_why() {
    let sim = deployed(three(), 8.0);
    let summary = of(&sim).summary;
    assert_eq!(
        summary.sentence,
        "1 of 3 applications run; application bad is DEPLOY_FAILED."
    );
    assert_eq!((summary.level, summary.concerns_total), (Level::Trouble, 2));
    let why = &summary.concerns[1].message;
    assert!(why.contains("waiting: 0 of 1 replicas placed"), "{why}");
    let why = &summary.concerns[0].message;
    assert!(why.contains("D: The deployment failed to start"), "{why}");

    let fine = deployed(config(vec![application("app", V1)]), 4.0);
    let summary = of(&fine).summary;
    assert_eq!(summary.sentence, "1 of 1 applications run.");
    assert_eq!((summary.level, summary.concerns.len()), (Level::Ok, 0));

    let nothing = of(&Sim::new()).summary;
    assert_eq!(nothing.sentence, "Nothing is deployed.");
}

#[test]
fn a_worker_out_of_reach_is_said_with_what_it_runs() {
    let mut sim = deployed(config(vec![application("app", V1)]), 4.0);
    let worker = sim.workers.keys().next().unwrap().clone();
    assert_eq!(of(&sim).workers[0].state, "ready");
    sim.workers.get_mut(&worker).unwrap().connected = false;
    sim.observe(Event::WorkerDisconnected(worker));
    let overview = of(&sim);
    assert_eq!(overview.workers[0].state, "out of reach");
    assert_eq!(overview.workers[0].replicas, 1);
    let concern = overview.summary.concerns.first().unwrap();
    assert_eq!((concern.kind, concern.status), ("worker", "OUT OF REACH"));
}

#[test]
fn what_replicas_hold_is_in_use_on_their_worker() {
    let spec = config(vec![application(
        "app",
        Version {
            target: 2,
            cpus: 1.5,
            ..V1
        },
    )]);
    let worker = of(&deployed(spec, 4.0)).workers.remove(0);
    assert_eq!((worker.total["CPU"], worker.used["CPU"]), (4.0, 3.0));
    assert_eq!(worker.replicas, 2);
}

#[test]
fn the_load_is_the_sum_over_all_routers() {
    let mut sim = deployed(config(vec![application("app", V1)]), 4.0);
    let first = sim.routers.keys().next().unwrap().clone();
    let second = sim.add_router();
    for (router, load) in [(first, (2, 3)), (second, (5, 7))] {
        sim.loads.insert(router.clone(), load);
        sim.ack(&router);
    }
    let overview = of(&sim);
    let deployment = &overview.applications[0].deployments[0];
    assert_eq!((deployment.waiting, deployment.ongoing), (7, 10));
    // Neither of them counts what passes through.
    assert_eq!(deployment.passed, None);
    assert_eq!(overview.routers.iter().map(|r| r.ongoing).sum::<u64>(), 10);
}

#[test]
fn nothing_of_a_config_is_told_but_names_and_numbers() {
    let mut spec = config(vec![application("app", V1)]);
    let entry = &mut spec.applications[0];
    entry.raw["args"] = json!({"key": "hunter2"});
    entry.raw["runtime_env"] = json!({"env_vars": {"TOKEN": "hunter2"}});
    let built = entry.built.as_mut().unwrap();
    built.deployments[0].config["user_config"] = json!("hunter2");
    let mut replica = (*built.deployments[0].replica).clone();
    replica.args_json = r#"{"key": "hunter2"}"#.to_owned();
    replica.user_config_json = Some("\"hunter2\"".to_owned());
    replica
        .env_vars
        .insert("TOKEN".to_owned(), "hunter2".to_owned());
    built.deployments[0].replica = Arc::new(replica);
    let sim = deployed(spec, 4.0);
    let mut history = History::default().accept(1.0, "deployed", &crate::history::End::Superseded);
    history.history.records[0].digest = "hunter2".to_owned();
    let now = at(sim.now_ms);
    let decisions = Decisions::default().newest_first();
    let whole = overview(&sim.world, &about(), &history.history, decisions, now);
    let replicas = replicas(&sim.world, &id("app"), now).unwrap();
    assert_eq!(replicas.replicas.len(), 1);
    for text in [
        serde_json::to_string(&whole).unwrap(),
        serde_json::to_string(&replicas).unwrap(),
    ] {
        for secret in [
            "hunter2",
            "TOKEN",
            "env_vars",
            "digest",
            "deployed_app_config",
        ] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

#[test]
fn of_many_replicas_those_that_do_not_run_are_listed_first() {
    let target = REPLICAS_SHOWN_MAX as u32 + 50;
    let version = Version {
        target,
        cpus: 0.01,
        ..V1
    };
    let mut sim = Sim::new();
    let worker = sim.add_worker(100.0);
    sim.add_router();
    sim.observe(Event::Deploy(Box::new(config(vec![application(
        "app", version,
    )]))));
    sim.settle();
    // One of the last is not well.
    let deployment = &sim.world.applications["app"].deployments["D"];
    let last = deployment.replicas.iter().max_by_key(|(_, r)| r.serial);
    let last = last.unwrap().0.clone();
    let reported = sim.workers.get_mut(&worker).unwrap();
    let replica = reported.replicas.get_mut(&last).unwrap();
    replica.state = crate::world::observed::ReportedState::Unhealthy;
    replica.message = "it coughs".to_owned();
    sim.report(&worker);
    let found = replicas(&sim.world, &id("app"), at(sim.now_ms)).unwrap();
    assert_eq!(found.total, target as usize);
    assert_eq!(found.replicas.len(), REPLICAS_SHOWN_MAX);
    assert_eq!(found.replicas[0].id, last);
    assert_eq!(found.replicas[0].message, "it coughs");
    assert!(replicas(&sim.world, &id("other"), at(0)).is_none());
}

/// Prints what a large cluster's document costs: `cargo test -p mobula-head --release --
/// --nocapture a_thousand_deployments`.
#[test]
fn a_thousand_deployments_with_ten_thousand_replicas_fit_one_document() {
    let version = Version {
        target: 10,
        cpus: 0.01,
        ..V1
    };
    let applications = (0..1000).map(|n| application(&format!("app{n:04}"), version));
    let mut sim = Sim::new();
    for _ in 0..100 {
        sim.add_worker(4.0);
    }
    sim.observe(Event::Deploy(Box::new(config(applications.collect()))));
    let mut next = 0;
    let mut new_id = || {
        next += 1;
        format!("r{next:07}")
    };
    let now = at(0);
    let plan = sim.world.plan(now, &mut new_id);
    crate::world::apply_all(&mut sim.world, &plan, now);
    for _ in 0..10 {
        let router = sim.add_router();
        let known = sim.world.routers.get_mut(&router).unwrap();
        let keys = (0..1000).map(|n| (format!("app{n:04}"), "D".to_owned()));
        known.loads = keys.map(|key| (key, RouterLoad::default())).collect();
    }
    let begun = std::time::Instant::now();
    let overview = of(&sim);
    let made = begun.elapsed();
    let text = serde_json::to_string(&overview).unwrap();
    let bytes = text.len();
    eprintln!(
        "made in {made:?}, written in {:?}, {bytes} bytes",
        begun.elapsed() - made
    );
    let replicas = overview.workers.iter().map(|worker| worker.replicas);
    assert_eq!(replicas.sum::<u32>(), 10_000);
    assert_eq!(overview.applications.len(), 1000);
    assert_eq!(overview.summary.concerns_total, 1000);
    assert!(bytes < 1024 * 1024, "{bytes}");
}
