//! Where replicas go and which ones leave: spread first, then packed.

use std::collections::BTreeMap;
use std::sync::Arc;

use insta::assert_snapshot;
use mobula_spec::LabelSelector;
use proptest::prelude::*;

use super::fixtures::{V1, Version, application, config};
use super::resources::{CPU, GPU};
use super::sim::{Sim, SimWorker};
use super::spec::DeploymentSpec;
use super::{Event, Resources};

/// A worker with CPUs and GPUs on the machine of that number.
fn worker(cpus: u32, gpus: u32, node: u8) -> SimWorker {
    SimWorker {
        cpus: f64::from(cpus),
        gpus: f64::from(gpus),
        node: Some(format!("node{node}")),
        ..SimWorker::default()
    }
}

fn deploy(sim: &mut Sim, version: Version, edit: impl Fn(&mut DeploymentSpec)) {
    let mut app = application("app", version);
    edit(&mut app.built.as_mut().unwrap().deployments[0]);
    sim.observe(Event::Deploy(Box::new(config(vec![app]))));
}

/// Live replicas by what `key` says of their worker.
fn by(sim: &Sim, key: impl Fn(&super::observed::Worker) -> String) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for replica in sim.world.applications["app"].deployments["D"]
        .replicas
        .values()
    {
        *counts
            .entry(key(&sim.world.workers[&replica.worker]))
            .or_default() += 1;
    }
    counts
}

fn message(sim: &Sim) -> String {
    let deployment = &sim.world.applications["app"].deployments["D"];
    deployment.status.message.clone()
}

#[test]
fn two_replicas_go_to_two_workers_and_the_next_application_to_the_fuller_one() {
    let mut sim = Sim::new();
    for cpus in [8, 4] {
        sim.join(worker(cpus, 0, cpus as u8));
    }
    let apps = vec![
        application("app", Version { target: 2, ..V1 }),
        application("other", V1),
    ];
    sim.observe(Event::Deploy(Box::new(config(apps))));
    assert_snapshot!(sim.head_step(), @r"
    start app#D#r0000003 on worker2: 0 of 2 replicas exist
    start app#D#r0000004 on worker1: 1 of 2 replicas exist
    start other#D#r0000005 on worker2: 0 of 1 replicas exist
    ");
}

#[test]
fn a_new_version_is_spread_by_itself_whatever_the_old_one_does() {
    let mut sim = Sim::new();
    for node in 1..=2 {
        sim.join(worker(4, 0, node));
    }
    sim.add_router();
    for code in ["v1", "v2", "v3"] {
        deploy(
            &mut sim,
            Version {
                code,
                target: 2,
                ..V1
            },
            |_| {},
        );
        sim.settle();
        assert_eq!(by(&sim, |w| w.id.clone()).len(), 2, "{code}");
    }
}

#[test]
fn what_needs_no_gpu_leaves_them_to_who_does_while_there_is_other_room() {
    let mut sim = Sim::new();
    sim.join(worker(4, 1, 1));
    sim.join(worker(2, 0, 2));
    deploy(&mut sim, Version { target: 2, ..V1 }, |_| {});
    sim.settle();
    assert_eq!(
        by(&sim, |w| w.id.clone()),
        [("worker2".to_owned(), 2)].into()
    );
    deploy(&mut sim, Version { target: 3, ..V1 }, |_| {});
    sim.settle();
    assert_eq!(by(&sim, |w| w.id.clone())["worker1"], 1);
}

#[test]
fn no_machine_has_more_replicas_than_it_may_and_the_message_says_what_is_in_the_way() {
    let mut sim = Sim::new();
    for node in [1, 1, 2] {
        sim.join(worker(4, 0, node));
    }
    sim.add_router();
    let four = Version { target: 4, ..V1 };
    let one_each = |spec: &mut DeploymentSpec| spec.replicas_per_node_max = Some(1);
    deploy(&mut sim, four, one_each);
    sim.settle();
    assert_eq!(by(&sim, |w| w.node_id.clone()).values().max(), Some(&1));
    assert_snapshot!(message(&sim), @"waiting: 2 of 4 replicas placed; needs 1 CPU, max_replicas_per_node is 1, and every node with room has as many");
    // A new version has no place beside the old one: the old one leaves first.
    deploy(&mut sim, Version { code: "v2", ..four }, one_each);
    sim.settle();
    let deployment = &sim.world.applications["app"].deployments["D"];
    assert!(
        deployment
            .replicas
            .values()
            .all(|r| deployment.is_current(r))
    );
    assert_eq!(by(&sim, |w| w.node_id.clone()).values().sum::<usize>(), 2);
}

#[test]
fn only_workers_with_the_labels_get_replicas_and_the_message_names_the_labels() {
    let mut sim = Sim::new();
    sim.add_worker(8.0);
    let texts = BTreeMap::from([("disk".to_owned(), "in(ssd, nvme)".to_owned())]);
    let on_fast_disks = |spec: &mut DeploymentSpec| spec.labels = LabelSelector::of(&texts);
    deploy(&mut sim, V1, on_fast_disks);
    sim.settle();
    assert_snapshot!(message(&sim), @"waiting: 0 of 1 replicas placed; needs 1 CPU, none of 1 worker(s) has the labels disk=in(ssd, nvme)");
    let fast = sim.join(SimWorker {
        labels: [("disk".to_owned(), "nvme".to_owned())].into(),
        ..worker(1, 0, 1)
    });
    sim.settle();
    assert_eq!(by(&sim, |w| w.id.clone()), [(fast, 1)].into());
}

#[test]
fn among_equals_the_one_with_the_fewest_requests_in_progress_leaves() {
    let mut sim = Sim::new();
    sim.join(worker(4, 0, 1));
    sim.add_router();
    deploy(&mut sim, Version { target: 4, ..V1 }, |_| {});
    sim.settle();
    let busy = |load: u32| [3, 0, 2, 5][load as usize];
    let replicas = sim
        .workers
        .get_mut("worker1")
        .unwrap()
        .replicas
        .values_mut();
    let ids: Vec<String> = replicas
        .zip(0..)
        .map(|(replica, number)| {
            replica.ongoing = busy(number);
            replica.assigned.replica_id.clone()
        })
        .collect();
    sim.settle();
    for (target, left) in [(3, vec![0, 2, 3]), (2, vec![0, 3]), (1, vec![3])] {
        deploy(&mut sim, Version { target, ..V1 }, |_| {});
        sim.settle();
        let there = &sim.world.applications["app"].deployments["D"].replicas;
        let wanted: Vec<&String> = left.into_iter().map(|index: usize| &ids[index]).collect();
        assert_eq!(there.keys().collect::<Vec<_>>(), wanted);
    }
}

prop_compose! {
    fn workers()(sizes in prop::collection::vec((1..5u32, 0..2u32, 0..4u8), 1..6))
        -> Vec<(u32, u32, u8)> { sizes }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Replicas of one CPU each, so that room is easily counted.
    #[test]
    fn replicas_are_spread_over_machines_and_workers_as_evenly_as_there_is_room(
        sizes in workers(),
        target in 1..12u32,
        limit in prop::option::of(1..4u32),
    ) {
        let mut sim = Sim::new();
        for (cpus, _, node) in &sizes {
            sim.join(worker(*cpus, 0, *node));
        }
        deploy(&mut sim, Version { target, ..V1 }, |spec| spec.replicas_per_node_max = limit);
        sim.head_step();
        let nodes = by(&sim, |w| w.node_id.clone());
        let of = |counts: &BTreeMap<String, usize>, key: &str| counts.get(key).copied().unwrap_or(0);
        for node in sim.world.workers.values().map(|w| &w.node_id) {
            let here = of(&nodes, node);
            prop_assert!(limit.is_none_or(|limit| here <= limit as usize));
            let there = sim.world.workers.values().filter(|w| w.node_id == *node);
            let room = there.map(|w| w.capacity.units(CPU) as usize).sum::<usize>();
            let full = here == room || limit.is_some_and(|limit| here == limit as usize);
            let most = nodes.values().max().copied().unwrap_or(0);
            prop_assert!(full || here + 1 >= most, "{node} has room, and others more: {nodes:?}");
        }
        let workers = by(&sim, |w| w.id.clone());
        for one in sim.world.workers.values() {
            let here = of(&workers, &one.id);
            prop_assert!(here <= one.capacity.units(CPU) as usize);
            let full = here == one.capacity.units(CPU) as usize;
            for other in sim.world.workers.values().filter(|w| w.node_id == one.node_id) {
                prop_assert!(full || here + 1 >= of(&workers, &other.id), "{workers:?}");
            }
        }
    }

    /// Scaling down from any placement leaves the rest no less spread than scaling up would.
    #[test]
    fn those_that_leave_are_the_ones_that_crowd(sizes in workers(), from in 2..12u32, to in 1..12u32) {
        let mut sim = Sim::new();
        for (cpus, _, node) in &sizes {
            sim.join(worker(*cpus, 0, *node));
        }
        sim.add_router();
        deploy(&mut sim, Version { target: from, ..V1 }, |_| {});
        sim.settle();
        let before = by(&sim, |w| w.node_id.clone());
        let placed: usize = before.values().sum();
        deploy(&mut sim, Version { target: to.min(placed as u32), ..V1 }, |_| {});
        sim.settle();
        let after = by(&sim, |w| w.node_id.clone());
        let most = after.values().max().copied().unwrap_or(0);
        for (node, had) in &before {
            let has = after.get(node).copied().unwrap_or(0);
            prop_assert!(has == *had || has + 1 >= most, "{before:?} became {after:?}");
        }
    }

    #[test]
    fn no_gpu_is_wasted_while_a_worker_without_has_room(sizes in workers(), target in 1..12u32) {
        let mut sim = Sim::new();
        for (cpus, gpus, node) in &sizes {
            sim.join(worker(*cpus, *gpus, *node));
        }
        deploy(&mut sim, Version { target, ..V1 }, |spec| {
            Arc::make_mut(&mut spec.replica).required = Resources::from_units([(CPU, 1.0)]);
        });
        sim.head_step();
        let (gpus, plain): (Vec<_>, Vec<_>) = sim
            .world
            .workers
            .values()
            .partition(|w| w.capacity.parts(GPU) > 0);
        let counts = by(&sim, |w| w.id.clone());
        let used = |w: &&super::observed::Worker| counts.get(&w.id).copied().unwrap_or(0);
        if gpus.iter().map(used).sum::<usize>() > 0 {
            prop_assert!(plain.iter().all(|w| used(w) == w.capacity.units(CPU) as usize));
        }
    }
}
