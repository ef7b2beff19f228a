//! Workers whose session is gone: for a moment, for good, or at the change of a head.

use insta::assert_snapshot;

use super::deployment_status::State;
use super::fixtures::{V1, Version, application, config};
use super::intent::{Deployment, Phase};
use super::observe::{WORKER_AWAY_MS, WORKER_LOST_MS, WORKER_TRUSTED_MS};
use super::sim::Sim;
use super::{AWAITED_MS_MAX, Event, SYNC_MS_MAX, World};
use crate::documents::StoredIntent;

const TWO: Version = Version { target: 2, ..V1 };

fn deploy(sim: &mut Sim, version: Version) {
    let spec = config(vec![application("app", version)]);
    sim.observe(Event::Deploy(Box::new(spec)));
}

/// One replica on each of two workers, which have room for more.
fn running() -> Sim {
    let mut sim = Sim::new();
    for _ in 0..2 {
        sim.add_worker(4.0);
    }
    sim.add_router();
    deploy(&mut sim, TWO);
    sim.settle();
    sim
}

fn cut(sim: &mut Sim, worker: &str) {
    sim.report(worker);
    sim.workers.get_mut(worker).unwrap().connected = false;
    sim.observe(Event::WorkerDisconnected(worker.to_owned()));
}

fn reconnect(sim: &mut Sim, worker: &str) {
    sim.workers.get_mut(worker).unwrap().connected = true;
    sim.report(worker);
}

fn the_deployment(sim: &Sim) -> &Deployment {
    &sim.world.applications["app"].deployments["D"]
}

/// The workers whose replicas routers are told of.
fn routed(sim: &Sim) -> Vec<String> {
    let table = sim.world.published.table().unwrap();
    let replicas = &table.applications[0].deployments[0].replicas;
    replicas.iter().map(|r| r.worker_id.clone()).collect()
}

/// Time goes on in small steps, and everybody does his part.
fn pass(sim: &mut Sim, ms: u64) {
    let until = sim.now_ms + ms;
    while sim.now_ms < until {
        sim.now_ms += 100;
        sim.round();
        sim.serve();
    }
}

#[test]
fn replicas_out_of_reach_are_replaced_early_and_stay_in_the_table_until_others_answer() {
    let mut sim = running();
    cut(&mut sim, "worker1");
    sim.now_ms += WORKER_AWAY_MS - 1;
    assert!(sim.head_step().is_empty());
    sim.now_ms += 1;
    assert_snapshot!(sim.head_step(), @"start app#D#r0000006 on worker2: 1 of 2 replicas are out of reach with their workers");
    assert_eq!(routed(&sim), ["worker1", "worker2"]);
    for _ in 0..3 {
        sim.round();
    }
    assert_eq!(routed(&sim), ["worker2", "worker2"]);
    assert_eq!(sim.phases(), [Phase::Running; 3], "the old one is kept");
    assert_eq!(the_deployment(&sim).status.state, State::Healthy);
    pass(&mut sim, WORKER_LOST_MS);
    assert_eq!(sim.phases(), [Phase::Running; 2]);
    assert_eq!(the_deployment(&sim).status.state, State::Healthy);
}

#[test]
fn a_worker_that_says_the_same_for_long_is_not_out_of_reach_as_soon_as_its_session_ends() {
    let mut sim = running();
    let heartbeat = Event::WorkerReported(Box::new(sim.world.workers["worker1"].clone()));
    for _ in 0..5 {
        sim.now_ms += 1_000;
        assert!(sim.world.is_repetition(&heartbeat));
        sim.world
            .hear(heartbeat.clone(), super::fixtures::at(sim.now_ms));
    }
    sim.workers.get_mut("worker1").unwrap().connected = false;
    sim.observe(Event::WorkerDisconnected("worker1".to_owned()));
    sim.now_ms += WORKER_AWAY_MS - 1;
    assert!(sim.head_step().is_empty());
    sim.now_ms += 1;
    assert!(!sim.head_step().is_empty());
}

#[test]
fn a_worker_that_comes_back_keeps_its_replicas_and_the_replacements_leave() {
    let mut sim = running();
    let before = sim.workers["worker1"]
        .replicas
        .keys()
        .cloned()
        .collect::<Vec<_>>();
    cut(&mut sim, "worker1");
    pass(&mut sim, WORKER_AWAY_MS + 1_000);
    assert_eq!(sim.phases().len(), 3);
    reconnect(&mut sim, "worker1");
    sim.head_step();
    assert_eq!(routed(&sim).len(), 3);
    pass(&mut sim, WORKER_TRUSTED_MS + 1_000);
    assert_eq!(sim.phases(), [Phase::Running; 2]);
    let after = &sim.workers["worker1"].replicas;
    assert!(before.iter().all(|id| after.contains_key(id)));
    assert_eq!(routed(&sim), ["worker1", "worker2"]);
}

#[test]
fn a_link_that_breaks_again_and_again_starts_one_replacement_and_not_one_each_time() {
    let mut sim = running();
    let mut starts = 0;
    for _ in 0..10 {
        cut(&mut sim, "worker1");
        for _ in 0..30 {
            sim.now_ms += 100;
            starts += sim.round().to_string().matches("start ").count();
            sim.serve();
        }
        reconnect(&mut sim, "worker1");
        pass(&mut sim, 1_000);
    }
    assert_eq!(starts, 1);
}

#[test]
fn all_replicas_of_a_worker_are_replaced_at_once_and_not_a_wave_at_a_time() {
    let mut sim = Sim::new();
    sim.add_worker(4.0);
    deploy(&mut sim, TWO);
    sim.settle();
    sim.add_worker(4.0);
    cut(&mut sim, "worker1");
    sim.now_ms += WORKER_AWAY_MS;
    assert_snapshot!(sim.head_step(), @r"
    start app#D#r0000005 on worker4: 2 of 2 replicas are out of reach with their workers
    start app#D#r0000006 on worker4: 2 of 2 replicas are out of reach with their workers
    ");
}

/// Another head takes over, which waits for all workers that had replicas.
fn take_over(sim: &mut Sim) {
    let intent = StoredIntent::of(&sim.world);
    sim.world = World::new("head-node", 100);
    sim.now_ms = 0;
    sim.world.awaited_workers = intent.workers;
    deploy(sim, TWO);
}

#[test]
fn a_new_head_replaces_what_ran_on_a_worker_that_does_not_come_when_others_do() {
    let mut sim = running();
    let old = sim.world.published.table_version();
    sim.workers.remove("worker1");
    take_over(&mut sim);
    sim.serve();
    sim.now_ms = AWAITED_MS_MAX - 1;
    assert_eq!(sim.round().to_string().matches("start ").count(), 0);
    sim.now_ms += 1;
    assert_snapshot!(sim.head_step(), @r"
    start app#D#r0000006 on worker2: 1 of 2 replicas exist
    say of app#D: 1 of 2 replicas exist
    ");
    assert!(
        sim.world.published.table().is_none(),
        "less than routers have"
    );
    pass(&mut sim, 1_000);
    assert!(sim.now_ms < SYNC_MS_MAX);
    assert_eq!(routed(&sim), ["worker2", "worker2"]);
    assert!(sim.world.published.table_version() > old);
}

#[test]
fn a_new_head_that_nobody_reports_to_starts_nothing() {
    let mut sim = running();
    take_over(&mut sim);
    sim.now_ms = SYNC_MS_MAX - 1;
    assert_snapshot!(sim.head_step(), @"say of app#D: waiting: 2 worker(s) of before have not reported yet");
}

#[test]
fn a_late_worker_is_adopted_by_a_new_head_and_the_surplus_leaves() {
    let mut sim = running();
    let before = sim.workers["worker1"]
        .replicas
        .keys()
        .cloned()
        .collect::<Vec<_>>();
    let late = sim.workers.remove("worker1").unwrap();
    take_over(&mut sim);
    sim.serve();
    pass(&mut sim, AWAITED_MS_MAX + 1_000);
    sim.workers.insert("worker1".to_owned(), late);
    sim.settle();
    assert_eq!(sim.phases(), [Phase::Running; 2]);
    let after = &sim.workers["worker1"].replicas;
    assert!(before.iter().all(|id| after.contains_key(id)));
}

#[test]
fn a_head_that_takes_over_from_one_that_had_just_begun_waits_for_the_same_workers() {
    let mut sim = running();
    take_over(&mut sim);
    sim.head_step();
    take_over(&mut sim);
    assert_eq!(sim.world.awaited_workers.len(), 2);
    assert!(sim.world.published.table().is_none());
    sim.settle();
    assert_eq!(sim.phases(), [Phase::Running; 2]);
}
