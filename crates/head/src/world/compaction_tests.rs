//! Workers that hold little are emptied, one replica at a time, and never at the cost of what
//! runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::Event;
use super::compaction::QUIET_MS;
use super::fixtures::{V1, Version, application, config};
use super::group::Group;
use super::health::is_right;
use super::intent::Phase;
use super::sim::{BAD_CODE, Sim, SimWorker};
use super::spec::{CompactionMode, DeploySpec};
use super::supply::Supply;

/// Applications by the number of their replicas, of one CPU each.
fn declared(counts: &BTreeMap<String, u32>, mode: CompactionMode) -> DeploySpec {
    let app = |(name, target): (&String, &u32)| {
        application(
            name,
            Version {
                target: *target,
                ..V1
            },
        )
    };
    let mut spec = config(counts.iter().map(app).collect());
    spec.serving.compaction = mode;
    spec
}

fn counts(pairs: &[(&str, u32)]) -> BTreeMap<String, u32> {
    let owned = |(name, count): &(&str, u32)| ((*name).to_owned(), *count);
    pairs.iter().map(owned).collect()
}

fn deploy(sim: &mut Sim, pairs: &[(&str, u32)], mode: CompactionMode) {
    let spec = declared(&counts(pairs), mode);
    sim.observe(Event::Deploy(Box::new(spec)));
}

/// All pods of the workers may be taken away, but those of `kept`.
fn supply(sim: &mut Sim, kept: &[&str]) {
    let workers = sim.world.workers.values();
    let may_go = workers.filter(|worker| !kept.contains(&worker.id.as_str()));
    let releasable = may_go.filter_map(|worker| worker.pod().map(ToOwned::to_owned));
    let supply = Supply {
        on_demand: true,
        releasable: releasable.collect(),
        ..Supply::default()
    };
    sim.observe(Event::Supplied(supply));
}

/// How many replicas each worker has.
fn on_workers(sim: &Sim) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (_, deployment) in sim.world.deployments() {
        for replica in deployment.replicas.values() {
            *counts.entry(replica.worker.clone()).or_default() += 1;
        }
    }
    counts
}

/// The machines of each deployment, with how many replicas are there.
fn on_nodes(sim: &Sim) -> BTreeMap<String, Vec<usize>> {
    let mut all = BTreeMap::new();
    for (id, deployment) in sim.world.deployments() {
        let mut nodes: BTreeMap<&str, usize> = BTreeMap::new();
        for replica in deployment.replicas.values() {
            let node = &sim.world.workers[&replica.worker].node_id;
            *nodes.entry(node).or_default() += 1;
        }
        let mut spread: Vec<usize> = nodes.into_values().collect();
        spread.sort_unstable();
        all.insert(id.to_string(), spread);
    }
    all
}

/// Time passes in seconds; every replica that shall answer does, all the time, and at most one
/// moves.
fn pass(sim: &mut Sim, ms: u64) {
    let until = sim.now_ms + ms;
    while sim.now_ms < until {
        sim.now_ms += 1000;
        sim.serve();
        sim.round();
        sim.serve();
        let mut beyond = 0;
        for (id, deployment) in sim.world.deployments() {
            let running = deployment.replicas.values();
            let running = running.filter(|r| r.phase == Phase::Running).count();
            assert!(running >= deployment.target as usize, "{id} has {running}");
            beyond += deployment.replicas.len() - deployment.target as usize;
        }
        assert!(beyond <= 1, "{beyond} replicas move at once");
    }
}

/// Three applications of which one has grown and shrunk: two workers with little on them.
fn thinly_spread(mode: CompactionMode) -> Sim {
    let mut sim = Sim::new();
    for _ in 0..2 {
        sim.add_worker(4.0);
    }
    sim.add_router();
    deploy(&mut sim, &[("a", 2), ("b", 2), ("c", 2)], mode);
    sim.settle();
    deploy(&mut sim, &[("a", 1), ("b", 1), ("c", 1)], mode);
    sim.settle();
    // Wherever they are now: one of them is put on the other worker.
    let on = on_workers(&sim);
    if on.len() == 1 {
        let full = on.keys().next().unwrap().clone();
        let room = sim.world.workers[&full].capacity.clone();
        sim.workers.get_mut(&full).unwrap().cpus = 3.0;
        sim.report(&full);
        deploy(&mut sim, &[("a", 1), ("b", 1), ("c", 1), ("d", 1)], mode);
        sim.settle();
        sim.workers.get_mut(&full).unwrap().cpus = room.units(super::resources::CPU);
        sim.report(&full);
    }
    assert_eq!(on_workers(&sim).len(), 2);
    sim
}

/// The head has decided on it, and nobody has heard of it.
fn until_a_move_begins(sim: &mut Sim) {
    pass(sim, QUIET_MS / 2);
    let latest = sim.now_ms + 2 * QUIET_MS;
    while !sim.world.compaction.is_under_way() {
        assert!(sim.now_ms < latest, "{:?}", sim.world.compaction);
        sim.now_ms += 1000;
        sim.head_step();
    }
}

#[test]
fn a_worker_with_little_is_emptied_after_a_quiet_time_and_stays_empty() {
    let mut sim = thinly_spread(CompactionMode::Auto);
    supply(&mut sim, &[]);
    pass(&mut sim, QUIET_MS - 5_000);
    assert_eq!(on_workers(&sim).len(), 2, "not yet");
    pass(&mut sim, 60_000);
    assert_eq!(on_workers(&sim).len(), 1, "one is empty");
    let there = on_workers(&sim);
    pass(&mut sim, 10 * QUIET_MS);
    assert_eq!(on_workers(&sim), there);
    assert!(!sim.world.compaction.is_under_way());
}

#[test]
fn nothing_moves_where_no_worker_would_go_unless_it_is_asked_for() {
    for (mode, supplied, kept, moves) in [
        (CompactionMode::Auto, false, false, false),
        (CompactionMode::Auto, true, true, false),
        (CompactionMode::Never, true, false, false),
        (CompactionMode::Always, false, false, true),
    ] {
        let mut sim = thinly_spread(mode);
        if supplied {
            let kept: &[&str] = if kept { &["worker1", "worker2"] } else { &[] };
            supply(&mut sim, kept);
        }
        pass(&mut sim, 3 * QUIET_MS);
        let emptied = on_workers(&sim).len() == 1;
        assert_eq!(emptied, moves, "{mode:?} {supplied} {kept:?}");
    }
}

#[test]
fn replicas_of_one_deployment_stay_on_their_machines() {
    let mut sim = Sim::new();
    for _ in 0..3 {
        sim.add_worker(8.0);
    }
    sim.add_router();
    deploy(&mut sim, &[("a", 3)], CompactionMode::Always);
    sim.settle();
    pass(&mut sim, 5 * QUIET_MS);
    assert_eq!(on_workers(&sim).len(), 3);
}

#[test]
fn a_change_of_the_config_calls_a_move_off() {
    let mut sim = thinly_spread(CompactionMode::Always);
    until_a_move_begins(&mut sim);
    let moving: Vec<String> = on_workers(&sim).into_keys().collect();
    assert_eq!(moving.len(), 2);
    let names: Vec<(String, u32)> = sim
        .world
        .applications
        .keys()
        .map(|n| (n.clone(), 2))
        .collect();
    let spec = declared(&names.into_iter().collect(), CompactionMode::Always);
    sim.observe(Event::Deploy(Box::new(spec)));
    sim.head_step();
    assert!(!sim.world.compaction.is_under_way());
    sim.settle();
    assert!(
        sim.world
            .deployments()
            .all(|(_, d)| is_right(&sim.world, d))
    );
    assert!(on_nodes(&sim).values().all(|spread| *spread == [1, 1]));
}

#[test]
fn workers_with_gangs_or_bundles_are_left_alone() {
    let mut sim = Sim::new();
    for _ in 0..2 {
        sim.add_worker(2.0);
    }
    sim.add_router();
    let mut apps = vec![
        application("a", V1),
        application("gang", Version { target: 2, ..V1 }),
    ];
    let gang = &mut apps[1].built.as_mut().unwrap().deployments[0];
    Arc::make_mut(&mut gang.replica).group = Group {
        gang_size: 2,
        ..Group::default()
    };
    let mut spec = config(apps);
    spec.serving.compaction = CompactionMode::Always;
    sim.observe(Event::Deploy(Box::new(spec)));
    sim.settle();
    sim.add_worker(8.0);
    let before = on_workers(&sim);
    pass(&mut sim, 3 * QUIET_MS);
    assert_eq!(on_workers(&sim), before);
}

#[test]
fn a_replacement_that_does_not_start_ends_the_move() {
    let mut sim = thinly_spread(CompactionMode::Always);
    until_a_move_begins(&mut sim);
    let ids: Vec<String> = sim.workers.keys().cloned().collect();
    for id in &ids {
        sim.assign(id);
        for replica in sim.workers.get_mut(id).unwrap().replicas.values_mut() {
            if replica.state == super::observed::ReportedState::Starting {
                replica.assigned.code_version = BAD_CODE.to_owned();
            }
        }
    }
    sim.round();
    assert!(!sim.world.compaction.is_under_way());
    sim.settle();
    assert!(
        sim.world
            .deployments()
            .all(|(_, d)| is_right(&sim.world, d))
    );
    assert_eq!(on_workers(&sim).len(), 2, "everything is where it was");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Grown and shrunk again in any way, compaction comes to an end, never takes away spread,
    /// and each move empties a worker a little more.
    #[test]
    fn compaction_ends_and_leaves_everything_as_spread_as_it_was(
        sizes in prop::collection::vec((1..6u32, 0..4u8), 2..6),
        grown in prop::collection::vec(1..4u32, 1..6),
        shrunk in prop::collection::vec(1..3u32, 6),
    ) {
        let mut sim = Sim::new();
        for (cpus, node) in &sizes {
            sim.join(SimWorker {
                cpus: f64::from(*cpus),
                node: Some(format!("node{node}")),
                ..SimWorker::default()
            });
        }
        sim.add_router();
        let named = |counts: &[u32]| -> BTreeMap<String, u32> {
            let names = counts.iter().enumerate();
            names.map(|(index, count)| (format!("app{index}"), *count)).collect()
        };
        for counts in [grown.clone(), shrunk[..grown.len()].to_vec()] {
            let spec = declared(&named(&counts), CompactionMode::Always);
            sim.observe(Event::Deploy(Box::new(spec)));
            sim.settle();
        }
        prop_assume!(sim.world.deployments().all(|(_, d)| is_right(&sim.world, d)));
        let (before, spread) = (on_workers(&sim), on_nodes(&sim));
        let replicas: usize = before.values().sum();
        // Each worker needs a quiet time and a few seconds for each of its replicas.
        pass(&mut sim, (QUIET_MS + 20_000) * (sizes.len() as u64 + 1) + 10_000 * replicas as u64);
        let after = on_workers(&sim);
        let settled = ids(&sim);
        pass(&mut sim, 4 * QUIET_MS);
        prop_assert_eq!(&settled, &ids(&sim), "it has ended");
        prop_assert!(after.len() <= before.len());
        let were: BTreeSet<&String> = before.keys().collect();
        prop_assert!(after.keys().all(|id| were.contains(id)), "no empty worker is filled");
        for (id, nodes) in on_nodes(&sim) {
            let had = &spread[&id];
            prop_assert!(nodes.len() >= had.len(), "{id} was on {had:?}, is on {nodes:?}");
            prop_assert!(nodes.last() <= had.last(), "{id} was on {had:?}, is on {nodes:?}");
        }
    }
}

fn ids(sim: &Sim) -> BTreeSet<String> {
    let deployments = sim.world.deployments();
    deployments
        .flat_map(|(_, d)| d.replicas.keys().cloned().collect::<Vec<_>>())
        .collect()
}
