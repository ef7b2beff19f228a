//! Replicas with bundles and replicas in gangs, in a cluster that changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use insta::assert_snapshot;

use super::fixtures::{V1, Version, application, at, config};
use super::group::{Group, Strategy};
use super::health::is_right;
use super::intent::{Deployment, Replica};
use super::observed::ReportedState;
use super::resources::CPU;
use super::sim::{Sim, SimWorker};
use super::spec::{Autoscaling, DeploySpec};
use super::supply::Supply;
use super::{AWAITED_MS_MAX, DeploymentId, Event, Resources};

fn bundles(cpus: &[f64], strategy: Strategy) -> Group {
    let bundle = |cpus: &f64| Resources::from_units([(CPU, *cpus)]);
    Group {
        bundles: cpus.iter().map(bundle).collect(),
        strategy,
        ..Group::default()
    }
}

fn gangs_of(size: u32) -> Group {
    Group {
        gang_size: size,
        ..Group::default()
    }
}

fn declared(version: Version, group: Group) -> DeploySpec {
    let mut app = application("app", version);
    let deployment = &mut app.built.as_mut().unwrap().deployments[0];
    Arc::make_mut(&mut deployment.replica).group = group;
    config(vec![app])
}

fn deploy(sim: &mut Sim, version: Version, group: Group) {
    let spec = declared(version, group);
    sim.observe(Event::Deploy(Box::new(spec)));
}

/// Workers of that many CPUs on a machine each, and a router.
fn cluster(cpus: &[f64]) -> Sim {
    let mut sim = Sim::new();
    for cpus in cpus {
        sim.add_worker(*cpus);
    }
    sim.add_router();
    sim
}

fn the_deployment(sim: &Sim) -> &Deployment {
    &sim.world.applications["app"].deployments["D"]
}

fn replicas(sim: &Sim) -> impl Iterator<Item = &Replica> {
    the_deployment(sim).replicas.values()
}

fn message(sim: &Sim) -> &str {
    &the_deployment(sim).status.message
}

/// How many replicas each gang has.
fn gangs(sim: &Sim) -> BTreeMap<String, usize> {
    let mut gangs = BTreeMap::new();
    for replica in replicas(sim) {
        let gang = replica.gang.as_ref().expect("every replica is of a gang");
        *gangs.entry(gang.id.clone()).or_default() += 1;
    }
    gangs
}

fn ids(sim: &Sim) -> BTreeSet<String> {
    the_deployment(sim).replicas.keys().cloned().collect()
}

#[test]
fn a_replica_reserves_all_its_bundles_and_gives_them_back() {
    let mut sim = cluster(&[2.0, 2.0]);
    let apart = bundles(&[1.0, 2.0], Strategy::StrictSpread);
    deploy(&mut sim, V1, apart.clone());
    assert_snapshot!(sim.head_step(), @"start app#D#r0000004 on worker1 with 2 CPU on worker2: 0 of 1 replicas exist");
    sim.settle();
    assert!(is_right(&sim.world, the_deployment(&sim)));
    // Two more CPUs than there are: only one is free.
    deploy(&mut sim, Version { target: 2, ..V1 }, apart.clone());
    sim.settle();
    assert_snapshot!(message(&sim), @"waiting: 1 of 2 replicas placed; needs 1 CPU + 2 CPU at once (STRICT_SPREAD), 1 of 2 bundles fit, for 2 CPU: nothing free on the nearest of 2 worker(s), 2 CPU short");
    deploy(
        &mut sim,
        Version { code: "v2", ..V1 },
        bundles(&[2.0, 2.0], Strategy::StrictSpread),
    );
    sim.settle();
    assert!(
        is_right(&sim.world, the_deployment(&sim)),
        "the old one made room"
    );
}

#[test]
fn a_replica_that_loses_the_worker_of_a_bundle_is_replaced_and_says_why() {
    let mut sim = cluster(&[1.0, 1.0, 1.0, 1.0]);
    deploy(&mut sim, V1, bundles(&[1.0, 1.0], Strategy::Pack));
    sim.settle();
    let before = replicas(&sim).next().unwrap().clone();
    sim.kill(&before.reserved[0].worker);
    assert_snapshot!(message(&sim), @"A replica's health check failed. This deployment will be UNHEALTHY until the replica recovers or is replaced. Reason: its worker ended (signal 9); it held a bundle of replica r0000006");
    let plan = sim.head_step();
    assert_snapshot!(plan, @"start app#D#r0000007 on worker3 with 1 CPU on worker4: worker worker2, which held a bundle of it, is gone; the replacement comes first");
    sim.settle();
    assert!(is_right(&sim.world, the_deployment(&sim)));
    assert_eq!(message(&sim), "");
}

#[test]
fn a_worker_that_only_holds_a_bundle_leaves_when_the_replacement_is_up() {
    let mut sim = cluster(&[1.0, 1.0]);
    deploy(&mut sim, V1, bundles(&[1.0, 1.0], Strategy::Pack));
    sim.settle();
    let old = ids(&sim);
    let holder = replicas(&sim).next().unwrap().reserved[0].worker.clone();
    for _ in 0..2 {
        sim.add_worker(1.0);
    }
    sim.workers.get_mut(&holder).unwrap().draining = true;
    sim.report(&holder);
    sim.round();
    assert!(!sim.workers[&holder].retired, "the bundle is still needed");
    sim.settle();
    assert!(!sim.workers.contains_key(&holder), "it went");
    assert!(is_right(&sim.world, the_deployment(&sim)));
    assert!(ids(&sim).is_disjoint(&old));
}

#[test]
fn a_gang_is_placed_whole_or_not_at_all() {
    let mut sim = cluster(&[3.0]);
    deploy(&mut sim, Version { target: 4, ..V1 }, gangs_of(2));
    sim.settle();
    assert_eq!(gangs(&sim).values().collect::<Vec<_>>(), [&2]);
    assert_snapshot!(message(&sim), @"waiting: 2 of 4 replicas placed; needs 1 CPU for each of 2 replicas at once (PACK), 1 of 2 bundles fit, for 1 CPU: nothing free on the nearest of 1 worker(s), 1 CPU short");
    sim.add_worker(1.0);
    sim.settle();
    assert_eq!(gangs(&sim).values().collect::<Vec<_>>(), [&2, &2]);
    assert!(is_right(&sim.world, the_deployment(&sim)));
}

#[test]
fn a_gang_with_a_failed_member_is_started_again_whole() {
    let mut sim = cluster(&[4.0]);
    deploy(&mut sim, Version { target: 4, ..V1 }, gangs_of(2));
    sim.settle();
    let before = gangs(&sim);
    let old = ids(&sim);
    sim.afflict("worker1", 0, ReportedState::Failed);
    sim.report("worker1");
    let plan = sim.head_step().to_string();
    assert!(
        plan.contains("1 of 2 replicas of its gang are left, which is restarted whole"),
        "{plan}"
    );
    sim.settle();
    let after = gangs(&sim);
    assert_eq!(
        after.keys().filter(|id| before.contains_key(*id)).count(),
        1
    );
    assert_eq!(ids(&sim).intersection(&old).count(), 2);
    assert!(is_right(&sim.world, the_deployment(&sim)));
}

#[test]
fn counts_are_whole_gangs_and_whole_gangs_leave() {
    let mut sim = cluster(&[8.0]);
    deploy(&mut sim, Version { target: 6, ..V1 }, gangs_of(2));
    sim.settle();
    let id = DeploymentId {
        application: "app".to_owned(),
        deployment: "D".to_owned(),
    };
    for (asked, runs) in [(3, 4), (4, 4), (1, 2), (5, 6), (0, 0)] {
        let deployment = id.clone();
        sim.observe(Event::Scale {
            deployment,
            target: asked,
        });
        sim.settle();
        assert_eq!(ids(&sim).len(), runs, "{asked}");
        assert!(gangs(&sim).values().all(|members| *members == 2));
    }
}

#[test]
fn the_load_asks_for_whole_gangs_down_to_none() {
    let mut sim = cluster(&[16.0]);
    let mut spec = declared(Version { target: 3, ..V1 }, gangs_of(3));
    let built = spec.applications[0].built.as_mut().unwrap();
    built.deployments[0].autoscaling = Some(Autoscaling {
        downscale_to_zero_delay_ms: 1_000,
        ..Autoscaling::for_tests()
    });
    sim.observe(Event::Deploy(Box::new(spec)));
    sim.settle();
    let router = sim.routers.keys().next().unwrap().clone();
    for (ongoing, runs) in [(7, 6), (30, 15), (0, 0)] {
        sim.loads.insert(router.clone(), (0, ongoing));
        for _ in 0..600 {
            sim.now_ms += 100;
            sim.serve();
            sim.round();
            assert_eq!(the_deployment(&sim).target % 3, 0);
        }
        assert_eq!(ids(&sim).len(), runs, "{ongoing}");
    }
}

#[test]
fn versions_with_and_without_gangs_replace_each_other_start_first() {
    let mut sim = cluster(&[12.0]);
    let four = Version { target: 4, ..V1 };
    let rollout = [
        (V1.code, Group::default()),
        ("v2", gangs_of(2)),
        ("v3", gangs_of(4)),
        ("v4", Group::default()),
    ];
    for (code, group) in rollout {
        let is_first = !sim.world.applications.contains_key("app");
        deploy(&mut sim, Version { code, ..four }, group);
        for round in 0.. {
            assert!(round < 500, "{code}: {:#?}", the_deployment(&sim));
            if is_right(&sim.world, the_deployment(&sim)) {
                break;
            }
            sim.now_ms += 100;
            sim.round();
            sim.serve();
            let answering = replicas(&sim).filter(|r| r.phase.is_answering()).count();
            assert!(is_first || answering >= 4, "{code}: {answering} answer");
        }
    }
}

#[test]
fn another_head_knows_the_gangs_and_what_is_reserved() {
    let mut sim = cluster(&[2.0, 2.0]);
    let group = Group {
        gang_size: 2,
        ..bundles(&[1.0, 1.0], Strategy::Spread)
    };
    let two = Version { target: 2, ..V1 };
    deploy(&mut sim, two, group.clone());
    sim.settle();
    let before = the_deployment(&sim).replicas.clone();
    sim.change_heads(declared(two, group));
    // One worker is there before the other: what the other's replicas hold here is not free.
    sim.report("worker1");
    sim.now_ms = AWAITED_MS_MAX;
    let plan = sim.head_step();
    assert!(!plan.to_string().contains("start"), "{plan}");
    sim.settle();
    let after = &the_deployment(&sim).replicas;
    assert_eq!(
        after.keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>()
    );
    for (id, replica) in after {
        assert_eq!(replica.gang, before[id].gang);
        assert_eq!(replica.reserved, before[id].reserved);
    }
    assert!(is_right(&sim.world, the_deployment(&sim)));
}

#[test]
fn a_provisioner_is_asked_for_what_is_missing_and_keeps_what_is_waited_with() {
    let mut sim = cluster(&[1.0]);
    sim.observe(Event::Supplied(Supply {
        on_demand: true,
        ..Supply::default()
    }));
    let one = Resources::from_units([(CPU, 1.0)]);
    deploy(&mut sim, V1, bundles(&[1.0, 1.0, 1.0], Strategy::Pack));
    let shortage = sim.head_step().shortage;
    assert_eq!(shortage.unplaced, [one.clone(), one.clone()]);
    let demand = sim.world.demand(&shortage, at(sim.now_ms));
    assert_eq!(
        demand.workers["pod-of-worker1"].replicas, 1,
        "it is not idle"
    );
    let apart = bundles(&[1.0, 1.0, 1.0], Strategy::StrictSpread);
    deploy(&mut sim, Version { code: "v2", ..V1 }, apart);
    let shortage = sim.head_step().shortage;
    assert_eq!(shortage.apart, [vec![one.clone(), one]]);
    for _ in 0..2 {
        sim.join(SimWorker {
            cpus: 1.0,
            node: Some("node-of-worker1".to_owned()),
            ..SimWorker::default()
        });
    }
    sim.settle();
    assert_snapshot!(message(&sim), @"waiting: 0 of 1 replicas placed; needs 1 CPU + 1 CPU + 1 CPU at once (STRICT_SPREAD), 1 of 3 bundles fit, for 1 CPU: all 1 node(s) where it may be have one of its bundles");
    sim.add_worker(1.0);
    sim.add_worker(1.0);
    sim.settle();
    assert!(is_right(&sim.world, the_deployment(&sim)));
}

#[test]
fn where_a_surge_has_no_room_the_old_replica_goes_whose_room_the_bundles_can_use() {
    let mut sim = cluster(&[2.0, 1.5]);
    let old = Version { target: 3, ..V1 };
    deploy(&mut sim, old, Group::default());
    sim.settle();
    assert!(is_right(&sim.world, the_deployment(&sim)));
    let new = Version { code: "v2", ..old };
    deploy(&mut sim, new, bundles(&[1.0, 0.5], Strategy::StrictPack));
    sim.settle();
    let current = |sim: &Sim| {
        let deployment = the_deployment(sim);
        let of = deployment.replicas.values();
        of.filter(|replica| deployment.is_current(replica)).count()
    };
    // No other one can use what one of the two leaves that remain.
    assert_eq!((current(&sim), replicas(&sim).count()), (1, 3));
    assert_snapshot!(message(&sim), @"waiting: 1 of 3 replicas placed; needs 1 CPU + 0.5 CPU at once (STRICT_PACK), nothing free on the nearest of 2 worker(s), 1.5 CPU short");
    sim.observe(Event::Supplied(Supply {
        on_demand: true,
        ..Supply::default()
    }));
    let shortage = sim.head_step().shortage;
    let whole = Resources::from_units([(CPU, 1.5)]);
    assert_eq!(shortage.unplaced, [whole], "one at a time");
    sim.add_worker(1.5);
    sim.settle();
    assert!(is_right(&sim.world, the_deployment(&sim)));
}
