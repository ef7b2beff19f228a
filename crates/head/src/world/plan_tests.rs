//! What plans say in the situations that people will ask about.

use std::sync::Arc;

use insta::assert_snapshot;

use super::deployment_status::{State, Trigger};
use super::fixtures::{V1, Version, application, at, config};
use super::intent::{Deployment, Phase};
use super::observed::ReportedState;
use super::rollout::DRAIN_REPLACE_MS_MAX;
use super::sim::{BAD_CODE, Sim};
use super::{DeploymentId, Event, apply_all};

fn deploy(sim: &mut Sim, version: Version) {
    let spec = config(vec![application("app", version)]);
    sim.observe(Event::Deploy(Box::new(spec)));
}

/// A settled cluster of that version on workers with that many CPUs.
fn running(version: Version, workers: &[f64]) -> Sim {
    let mut sim = Sim::new();
    for cpus in workers {
        sim.add_worker(*cpus);
    }
    sim.add_router();
    deploy(&mut sim, version);
    sim.settle();
    sim
}

fn the_deployment(sim: &Sim) -> &Deployment {
    &sim.world.applications["app"].deployments["D"]
}

#[test]
fn a_first_deploy_starts_the_target() {
    let mut sim = Sim::new();
    sim.add_worker(4.0);
    deploy(&mut sim, Version { target: 2, ..V1 });
    assert_snapshot!(sim.head_step(), @r"
    start app#D#r0000002 on worker1: 0 of 2 replicas exist
    start app#D#r0000003 on worker1: 1 of 2 replicas exist
    ");
}

#[test]
fn a_new_version_starts_before_the_old_one_leaves() {
    let mut sim = running(V1, &[4.0]);
    deploy(&mut sim, Version { code: "v2", ..V1 });
    assert_snapshot!(sim.head_step(), @"start app#D#r0000004 on worker1: new version first, at most 1 beyond the target");
    sim.assign("worker1");
    sim.progress("worker1");
    sim.report("worker1");
    assert_snapshot!(sim.head_step(), @"withdraw app#D#r0000003: 2 replicas answer where 1 shall");
    sim.route("router2");
    assert_snapshot!(sim.head_step(), @"");
    sim.ack("router2");
    assert_snapshot!(sim.head_step(), @"drop app#D#r0000003: every router serves from table 104 or newer");
}

#[test]
fn without_a_surge_the_old_ones_leave_a_wave_at_a_time() {
    let two = Version {
        target: 2,
        surge: Some(0.0),
        ..V1
    };
    let mut sim = running(two, &[4.0]);
    deploy(&mut sim, Version { code: "v2", ..two });
    assert_snapshot!(sim.head_step(), @r"
    withdraw app#D#r0000004: old version first, at most 1 at once
    start app#D#r0000005 on worker1: 1 of 2 replicas exist
    ");
    sim.settle();
    assert_eq!(the_deployment(&sim).status.state, State::Healthy);
}

#[test]
fn a_surge_of_all_starts_everything_at_once() {
    let two = Version {
        target: 2,
        surge: Some(1.0),
        ..V1
    };
    let mut sim = running(two, &[4.0]);
    deploy(&mut sim, Version { code: "v2", ..two });
    assert_snapshot!(sim.head_step(), @r"
    start app#D#r0000005 on worker1: new version first, at most 2 beyond the target
    start app#D#r0000006 on worker1: new version first, at most 2 beyond the target
    ");
    sim.settle();
    assert_eq!(the_deployment(&sim).status.state, State::Healthy);
}

#[test]
fn without_a_surge_a_version_that_fails_costs_one_wave() {
    let two = Version {
        target: 2,
        surge: Some(0.0),
        ..V1
    };
    let mut sim = running(two, &[4.0]);
    let bad = Version {
        code: BAD_CODE,
        ..two
    };
    deploy(&mut sim, bad);
    sim.settle();
    assert_eq!(sim.phases(), [Phase::Running]);
    assert_eq!(the_deployment(&sim).status.state, State::DeployFailed);
}

#[test]
fn without_room_for_a_surge_the_old_one_leaves_first() {
    let mut sim = running(V1, &[1.0]);
    deploy(&mut sim, Version { code: "v2", ..V1 });
    assert_snapshot!(sim.head_step(), @r"
    withdraw app#D#r0000003: no room to start the new one (1 CPU) before the old one leaves
    say of app#D: waiting: 0 of 1 replicas placed; needs 1 CPU, nothing free on the nearest of 1 worker(s), 1 CPU short
    ");
    sim.settle();
    assert_eq!(the_deployment(&sim).status.state, State::Healthy);
}

#[test]
fn a_version_that_fits_nowhere_leaves_the_old_one_alone() {
    let mut sim = running(V1, &[1.0]);
    deploy(
        &mut sim,
        Version {
            code: "v2",
            cpus: 2.0,
            ..V1
        },
    );
    assert_snapshot!(sim.head_step(), @"say of app#D: waiting: 0 of 1 replicas placed; needs 2 CPU, nothing free on the nearest of 1 worker(s), 2 CPU short");
    sim.settle();
    assert_eq!(sim.phases(), [Phase::Running]);
    let status = &the_deployment(&sim).status;
    assert_eq!(status.state, State::Updating);
    assert_snapshot!(status.message, @"waiting: 0 of 1 replicas placed; needs 2 CPU, nothing free on the nearest of 1 worker(s), 2 CPU short");
}

#[test]
fn waiting_for_room_is_no_failure_and_says_what_is_missing() {
    let sim = running(Version { target: 2, ..V1 }, &[1.5]);
    let deployment = the_deployment(&sim);
    assert_eq!(deployment.status.state, State::Updating);
    assert_eq!(deployment.starts.failures_in_a_row, 0);
    assert_snapshot!(deployment.status.message, @"waiting: 1 of 2 replicas placed; needs 1 CPU, 0.5 CPU free on the nearest of 1 worker(s), 0.5 CPU short");
}

#[test]
fn a_version_that_fails_and_waits_for_room_says_both() {
    let mut sim = Sim::new();
    sim.add_worker(1.5);
    let bad = Version {
        code: BAD_CODE,
        target: 2,
        ..V1
    };
    deploy(&mut sim, bad);
    let failed = (0..10).any(|_| {
        sim.round();
        the_deployment(&sim).starts.failures_in_a_row == 1
    });
    assert!(failed);
    // Time for the next try.
    sim.now_ms += 1_000;
    sim.head_step();
    assert_snapshot!(the_deployment(&sim).status.message, @r"
    waiting: 0 of 2 replicas placed; needs 1 CPU, 0.5 CPU free on the nearest of 1 worker(s), 0.5 CPU short
    A replica failed to start, 1 in a row, trying 5 more time(s). Error:
    no such model
    ");
    sim.settle();
    let status = &the_deployment(&sim).status;
    assert_eq!(status.state, State::DeployFailed);
    assert!(
        status
            .message
            .starts_with("The deployment failed to start 6 times")
    );
}

#[test]
fn a_bad_version_gives_up_and_the_old_one_keeps_serving() {
    let mut sim = running(V1, &[4.0]);
    deploy(
        &mut sim,
        Version {
            code: BAD_CODE,
            ..V1
        },
    );
    sim.settle();
    assert_eq!(sim.phases(), [Phase::Running]);
    let deployment = the_deployment(&sim);
    assert!(!deployment.is_current(deployment.replicas.values().next().unwrap()));
    assert_eq!(deployment.status.state, State::DeployFailed);
    assert_eq!(deployment.status.trigger, Trigger::ReplicaStartupFailed);
    assert_snapshot!(deployment.status.message, @r"
    The deployment failed to start 3 times in a row. This may be due to a problem with its constructor or initial health check failing. It is not tried again until the config changes. Error:
    no such model
    ");
}

#[test]
fn a_changed_config_is_taken_by_running_replicas_a_wave_at_a_time() {
    let mut sim = running(Version { target: 3, ..V1 }, &[4.0]);
    let before: Vec<String> = the_deployment(&sim).replicas.keys().cloned().collect();
    deploy(
        &mut sim,
        Version {
            target: 3,
            config: "c2",
            ..V1
        },
    );
    assert_snapshot!(sim.head_step(), @"configure app#D#r0000003: its config changed, at most 1 at once");
    sim.settle();
    let after: Vec<String> = the_deployment(&sim).replicas.keys().cloned().collect();
    assert_eq!(before, after);
    assert_eq!(
        the_deployment(&sim).status.trigger,
        Trigger::ConfigUpdateCompleted
    );
}

#[test]
fn the_same_config_again_changes_nothing() {
    let mut sim = running(V1, &[4.0]);
    let table = sim.world.published.table_version();
    deploy(&mut sim, V1);
    assert!(sim.head_step().is_empty());
    assert_eq!(sim.world.published.table_version(), table);
}

#[test]
fn a_killed_worker_is_replaced_at_once() {
    let mut sim = running(Version { target: 2, ..V1 }, &[2.0, 2.0]);
    let worker = the_deployment(&sim)
        .replicas
        .values()
        .next()
        .unwrap()
        .worker
        .clone();
    sim.kill(&worker);
    let deployment = the_deployment(&sim);
    assert_eq!(deployment.status.state, State::Unhealthy);
    assert_eq!(deployment.status.trigger, Trigger::HealthCheckFailed);
    assert_snapshot!(sim.head_step(), @"start app#D#r0000006 on worker2: 1 of 2 replicas exist");
    sim.settle();
    assert_eq!(the_deployment(&sim).status.state, State::Healthy);
    assert_eq!(the_deployment(&sim).dead.len(), 1);
}

#[test]
fn a_worker_without_a_session_loses_its_replicas_only_after_the_limit() {
    let mut sim = running(V1, &[1.0]);
    let worker = sim.workers.keys().next().unwrap().clone();
    sim.workers.get_mut(&worker).unwrap().connected = false;
    sim.observe(Event::WorkerDisconnected(worker.clone()));
    sim.now_ms += super::observe::WORKER_LOST_MS - 1;
    assert!(sim.head_step().is_empty());
    assert_eq!(sim.phases(), [Phase::Running]);
    sim.now_ms += 1;
    sim.add_worker(1.0);
    assert_snapshot!(sim.head_step(), @"start app#D#r0000005 on worker4: 0 of 1 replicas exist");
}

#[test]
fn an_unhealthy_replica_is_replaced_and_serves_until_then() {
    let mut sim = running(V1, &[2.0]);
    sim.afflict("worker1", 0, ReportedState::Unhealthy);
    sim.report("worker1");
    assert_snapshot!(sim.head_step(), @"start app#D#r0000004 on worker1: the replacement comes first");
    let table = sim.world.published.table().unwrap();
    assert_eq!(table.applications[0].deployments[0].replicas.len(), 1);
    sim.settle();
    assert_eq!(sim.phases(), [Phase::Running]);
    assert_eq!(the_deployment(&sim).status.state, State::Healthy);
}

#[test]
fn replicas_of_a_leaving_worker_move_and_the_worker_is_retired() {
    let mut sim = running(V1, &[1.0, 1.0]);
    let worker = the_deployment(&sim)
        .replicas
        .values()
        .next()
        .unwrap()
        .worker
        .clone();
    sim.workers.get_mut(&worker).unwrap().draining = true;
    sim.report(&worker);
    assert_snapshot!(sim.head_step(), @"start app#D#r0000005 on worker2: the replacement comes first");
    assert_eq!(the_deployment(&sim).status.state, State::Healthy);
    sim.settle();
    assert!(!sim.workers.contains_key(&worker));
    assert_eq!(sim.phases(), [Phase::Running]);
}

#[test]
fn a_leaving_worker_is_not_kept_waiting_for_a_replacement_that_does_not_come_up() {
    let mut sim = running(V1, &[1.0, 1.0]);
    let worker = the_deployment(&sim)
        .replicas
        .values()
        .next()
        .unwrap()
        .worker
        .clone();
    sim.workers.get_mut(&worker).unwrap().draining = true;
    sim.report(&worker);
    sim.head_step();
    sim.now_ms += DRAIN_REPLACE_MS_MAX;
    assert_snapshot!(sim.head_step(), @"withdraw app#D#r0000004: worker worker1 leaves");
}

#[test]
fn a_router_that_never_takes_the_table_does_not_hold_a_rollout_for_ever() {
    let mut sim = running(V1, &[2.0]);
    deploy(&mut sim, Version { target: 0, ..V1 });
    sim.head_step();
    sim.ack("router2");
    sim.now_ms += super::observed::ROUTER_ACK_MS_MAX - 1;
    sim.ack("router2");
    assert!(sim.head_step().is_empty());
    sim.now_ms += 1;
    sim.ack("router2");
    // The simulated router still has the old table: exactly what is given up on.
    sim.routers.clear();
    assert_snapshot!(sim.head_step(), @"drop app#D#r0000003: every router serves from table 103 or newer");
}

#[test]
fn deleting_everything_ends_with_a_closed_ingress() {
    let mut sim = running(V1, &[2.0]);
    sim.observe(Event::DeleteAll);
    assert_snapshot!(sim.head_step(), @"withdraw app#D#r0000003: not declared any more");
    sim.settle();
    assert!(sim.world.serving.is_none());
    assert!(sim.world.published.table().unwrap().ingress.is_none());
    assert_eq!(sim.workers.len(), 1, "workers stay warm");
}

#[test]
fn a_restarted_head_adopts_what_runs() {
    let mut sim = running(Version { target: 2, ..V1 }, &[2.0]);
    let before: Vec<String> = the_deployment(&sim).replicas.keys().cloned().collect();
    let table = sim.world.published.table_version();
    sim.world = super::World::new("head-node", 100);
    sim.world.awaited_workers.insert("worker1".to_owned());
    deploy(&mut sim, Version { target: 2, ..V1 });
    assert_snapshot!(sim.head_step(), @"say of app#D: waiting: 1 worker(s) of before have not reported yet");
    sim.settle();
    let after: Vec<String> = the_deployment(&sim).replicas.keys().cloned().collect();
    assert_eq!(before, after);
    assert!(sim.world.published.table_version() > table);
}

#[test]
fn what_was_told_to_stop_is_not_adopted_by_a_report_of_before() {
    let mut sim = running(V1, &[1.0]);
    let before: Vec<String> = the_deployment(&sim).replicas.keys().cloned().collect();
    // Another head, which knows of no application.
    sim.world = super::World::new("head-node", 100);
    sim.observe(Event::Deploy(Box::new(config(Vec::new()))));
    sim.report("worker1");
    sim.head_step();
    // Declared again before the worker has heard of it.
    deploy(&mut sim, V1);
    sim.report("worker1");
    assert!(the_deployment(&sim).replicas.is_empty());
    sim.settle();
    let after: Vec<String> = the_deployment(&sim).replicas.keys().cloned().collect();
    assert_eq!(after.len(), 1);
    assert_ne!(before, after);
}

#[test]
fn the_scale_route_counts_until_something_of_the_deployment_changes() {
    let id = || DeploymentId {
        application: "app".into(),
        deployment: "D".into(),
    };
    let scale = |sim: &mut Sim, target| {
        sim.observe(Event::Scale {
            deployment: id(),
            target,
        });
    };
    let mut sim = running(V1, &[8.0]);
    scale(&mut sim, 3);
    assert_eq!(the_deployment(&sim).status.state, State::Upscaling);
    sim.settle();
    assert_eq!(sim.phases().len(), 3);
    deploy(&mut sim, V1);
    sim.settle();
    assert_eq!(sim.phases().len(), 3);
    deploy(&mut sim, Version { target: 2, ..V1 });
    sim.settle();
    assert_eq!(sim.phases().len(), 2);
    // None at all: new settings, or new code, bring the config's count back.
    let settings = Version {
        config: "c2",
        target: 2,
        ..V1
    };
    let code = Version {
        code: "v2",
        ..settings
    };
    for changed in [settings, code] {
        scale(&mut sim, 0);
        sim.settle();
        assert_eq!(sim.phases(), []);
        deploy(&mut sim, changed);
        sim.settle();
        assert_eq!(sim.phases(), [Phase::Running; 2], "{changed:?}");
        deploy(&mut sim, changed);
        sim.settle();
        assert_eq!(sim.phases().len(), 2);
    }
}

#[test]
fn when_all_workers_leave_nobody_waits_for_a_replacement() {
    let mut sim = running(V1, &[1.0, 1.0]);
    // The one without a replica goes first, with a replacement on it that never came up.
    let workers: Vec<String> = sim.workers.keys().cloned().collect();
    let full = the_deployment(&sim)
        .replicas
        .values()
        .next()
        .unwrap()
        .worker
        .clone();
    sim.workers.get_mut(&full).unwrap().draining = true;
    sim.report(&full);
    sim.head_step();
    assert_eq!(sim.phases(), [Phase::Running, Phase::Starting]);
    for id in &workers {
        sim.workers.get_mut(id).unwrap().draining = true;
        sim.report(id);
    }
    assert_snapshot!(sim.head_step(), @r"
    drop app#D#r0000005: no router ever knew it
    withdraw app#D#r0000004: worker worker1 leaves
    ");
}

#[test]
fn numbers_that_only_the_worker_looks_at_change_at_once_and_restart_nothing() {
    let version = Version { target: 2, ..V1 };
    let mut sim = running(version, &[4.0]);
    let mut changed = application("app", version);
    let spec = &mut changed.built.as_mut().unwrap().deployments[0].replica;
    Arc::make_mut(spec).graceful_shutdown_timeout_s = 60.0;
    sim.observe(Event::Deploy(Box::new(config(vec![changed]))));
    assert_snapshot!(sim.head_step(), @r"
    configure app#D#r0000003: its limits changed
    configure app#D#r0000004: its limits changed
    settle app#D: everything runs as declared
    ");
    let assignment = &sim.world.published.assignments()["worker1"];
    assert!(
        assignment
            .replicas
            .iter()
            .all(|r| r.graceful_shutdown_timeout_s == 60.0)
    );
}

#[test]
fn a_replica_that_is_dropped_before_anything_was_published_of_it_is_gone() {
    let mut sim = running(V1, &[4.0]);
    deploy(&mut sim, Version { target: 2, ..V1 });
    let now = at(sim.now_ms);
    let plan = sim.world.plan(now, &mut || "r-unheard-of".to_owned());
    // The store is away: what is decided stays, and nothing of it is published.
    apply_all(&mut sim.world, &plan, now);
    assert_eq!(the_deployment(&sim).replicas.len(), 2);
    deploy(&mut sim, V1);
    let told = |sim: &Sim| sim.world.published.assignments()["worker1"].version;
    let before = told(&sim);
    assert_snapshot!(sim.head_step(), @"drop app#D#r-unheard-of: no router ever knew it");
    // The report of an old one would be a repetition, from which nothing follows.
    assert!(told(&sim) > before);
    sim.settle();
    let phases = the_deployment(&sim).replicas.values().map(|r| &r.phase);
    assert_eq!(phases.collect::<Vec<_>>(), [&Phase::Running]);
}
