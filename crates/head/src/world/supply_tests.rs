//! What follows when a provisioner makes and takes away pods.

use std::collections::BTreeMap;

use super::fixtures::{V1, Version, application, at, config};
use super::observed::ReportedState;
use super::resources::CPU;
use super::sim::Sim;
use super::supply::{Shortage, Supply};
use super::{Event, Resources};

const KEEP_MS: u64 = 30_000;

fn supply(leaving: &[&str], trouble: &str) -> Event {
    let leaving: BTreeMap<String, u64> = leaving
        .iter()
        .map(|pod| ((*pod).to_owned(), KEEP_MS))
        .collect();
    Event::Supplied(Supply {
        on_demand: true,
        leaving,
        trouble: trouble.to_owned(),
        ..Supply::default()
    })
}

fn deploy(sim: &mut Sim, version: Version) {
    let spec = config(vec![application("app", version)]);
    sim.observe(Event::Deploy(Box::new(spec)));
}

/// A replica on the only worker, which is full with it, and a router.
fn one_full_worker() -> Sim {
    let mut sim = Sim::new();
    sim.add_worker(1.0);
    sim.add_router();
    sim.observe(supply(&[], ""));
    deploy(&mut sim, V1);
    sim.settle();
    sim
}

#[test]
fn an_evicted_pod_keeps_its_replica_and_asks_for_room_until_another_pod_is_there() {
    let mut sim = one_full_worker();
    sim.observe(supply(&["pod-of-worker1"], ""));
    assert!(sim.world.workers["worker1"].draining, "before it says so");
    let plan = sim.head_step();
    assert!(plan.is_empty(), "nothing to do but wait: {plan}");
    assert_eq!(
        plan.shortage.unplaced,
        [Resources::from_units([(CPU, 1.0)])]
    );
    let new = sim.add_worker(1.0);
    let plan = sim.head_step().to_string();
    assert!(
        plan.contains(&format!("on {new}: the replacement comes first")),
        "{plan}"
    );
    sim.settle();
    let demand = sim.world.demand(&Shortage::default(), at(sim.now_ms));
    let old = demand.workers.get("pod-of-worker1");
    assert!(old.is_none_or(|worker| worker.replicas == 0));
    assert_eq!(demand.workers[&format!("pod-of-{new}")].replicas, 1);
}

#[test]
fn an_evicted_pods_replicas_leave_when_its_time_is_up() {
    let mut sim = one_full_worker();
    sim.observe(supply(&["pod-of-worker1"], ""));
    sim.head_step();
    sim.now_ms += KEEP_MS - 1;
    assert!(sim.head_step().is_empty());
    sim.now_ms += 1;
    let plan = sim.head_step().to_string();
    assert!(plan.contains("worker worker1 leaves"), "{plan}");
}

#[test]
fn a_new_version_asks_for_no_room_beyond_what_it_has() {
    let mut sim = one_full_worker();
    deploy(&mut sim, Version { code: "v2", ..V1 });
    assert!(sim.head_step().shortage.unplaced.is_empty());
}

#[test]
fn replicas_without_room_are_counted_and_the_trouble_is_told_with_the_wait() {
    let mut sim = one_full_worker();
    sim.observe(supply(&[], "Kubernetes: exceeded quota"));
    deploy(&mut sim, Version { target: 4, ..V1 });
    assert_eq!(sim.head_step().shortage.unplaced.len(), 3);
    let message = &sim.world.applications["app"].deployments["D"]
        .status
        .message;
    assert!(
        message.ends_with("; Kubernetes: exceeded quota"),
        "{message}"
    );
}

#[test]
fn a_pod_that_is_gone_takes_its_worker_along_at_once() {
    let mut sim = one_full_worker();
    sim.observe(Event::PodGone("pod-of-another".to_owned()));
    assert_eq!(sim.world.workers.len(), 1);
    sim.observe(Event::PodGone("pod-of-worker1".to_owned()));
    assert!(sim.world.workers.is_empty());
    assert_eq!(sim.head_step().shortage.unplaced.len(), 1);
}

#[test]
fn a_resting_pod_gives_its_replica_away_is_not_retired_and_may_be_used_again() {
    let mut sim = one_full_worker();
    let resting = |pods: &[&str]| {
        Event::Supplied(Supply {
            on_demand: true,
            leaving: pods
                .iter()
                .map(|pod| ((*pod).to_owned(), KEEP_MS))
                .collect(),
            resting: pods.iter().map(|pod| (*pod).to_owned()).collect(),
            ..Supply::default()
        })
    };
    sim.observe(resting(&["pod-of-worker1"]));
    let new = sim.add_worker(1.0);
    sim.settle();
    let workers = sim
        .world
        .demand(&Shortage::default(), at(sim.now_ms))
        .workers;
    assert_eq!(workers["pod-of-worker1"].replicas, 0);
    assert_eq!(workers[&format!("pod-of-{new}")].replicas, 1);
    let retire = |sim: &Sim| {
        let sources = crate::assignments::sources(&sim.world);
        crate::assignments::assignment(&sources["worker1"], 1).retire
    };
    assert!(!retire(&sim));
    sim.observe(resting(&[]));
    assert!(sim.world.workers["worker1"].takes_replicas());
    sim.observe(supply(&["pod-of-worker1"], ""));
    assert!(retire(&sim), "one that leaves for good is");
}

#[test]
fn failures_count_against_a_worker_where_the_same_version_answers_elsewhere() {
    let mut sim = one_full_worker();
    deploy(&mut sim, Version { target: 2, ..V1 });
    let new = sim.add_worker(1.0);
    sim.head_step();
    sim.settle();
    let failures = |sim: &Sim| sim.world.workers[&new].failures;
    assert_eq!(failures(&sim), 0);
    sim.afflict(&new, 0, ReportedState::Failed);
    sim.report(&new);
    assert_eq!(failures(&sim), 1);
    sim.settle();
    assert_eq!(failures(&sim), 0, "one that starts there clears it");
}
