//! Canaries in the simulated cluster: what starts, who gets what part, and how it ends.

mod heads;
mod judged;

use std::time::Duration;

use mobula_proto::latency::{BUCKETS, bucket_of};
use mobula_spec::Traffic;

use super::{Canary, PROLONGED_MAX, Stage};
use crate::documents::StoredIntent;
use crate::world::application_status::{AppState, status};
use crate::world::deployment_status::State;
use crate::world::fixtures::{V1, Version, at, config, told_apart};
use crate::world::intent::{Deployment, Phase};
use crate::world::observed::Answers;
use crate::world::sim::{BAD_CODE, Sim};
use crate::world::spec::{ApplicationSpec, Autoscaling};
use crate::world::{DeploymentId, Event, World};

const FOUR: Version = Version { target: 4, ..V1 };
const V2: Version = Version { code: "v2", ..FOUR };
const V3: Version = Version { code: "v3", ..FOUR };
const STEP_S: f64 = 10.0;

fn traffic() -> Traffic {
    Traffic {
        steps: vec![5, 25, 50],
        step_s: STEP_S,
        error_rate_max: 0.01,
        p99_ms_max: Some(200.0),
        requests_min: 100,
    }
}

fn with_traffic(version: Version) -> ApplicationSpec {
    let mut app = told_apart("app", version);
    let built = app.built.as_mut().unwrap();
    built.deployments[0].traffic = Some(traffic());
    app
}

fn put(sim: &mut Sim, app: ApplicationSpec, goes_back: bool) {
    let mut spec = config(vec![app]);
    spec.revision = sim.world.revision + 1;
    spec.goes_back = goes_back;
    sim.observe(Event::Deploy(Box::new(spec)));
}

fn deploy(sim: &mut Sim, version: Version) {
    put(sim, with_traffic(version), false);
}

/// A settled cluster of four replicas of v1.
fn running(cpus: f64) -> Sim {
    let mut sim = Sim::new();
    sim.rollback = true;
    sim.add_worker(cpus);
    sim.add_router();
    deploy(&mut sim, FOUR);
    sim.settle();
    sim
}

/// The same, with v2 as a canary at its first step.
fn canary() -> Sim {
    let mut sim = running(16.0);
    deploy(&mut sim, V2);
    rounds(&mut sim, 5);
    assert_eq!(share(&sim), Some(("v2".to_owned(), 5)));
    sim
}

fn rounds(sim: &mut Sim, count: usize) {
    for _ in 0..count {
        sim.now_ms += 1;
        sim.serve();
        sim.round();
    }
}

fn wait(sim: &mut Sim, seconds: f64) {
    sim.now_ms += (seconds * 1000.0) as u64;
    rounds(sim, 5);
}

/// Its router counts more answers of a version.
fn answer(sim: &mut Sim, version: &str, answers: u64, errors: u64, ms: u64) {
    let router = sim.routers.keys().next().unwrap().clone();
    let key = ("app".to_owned(), "D".to_owned(), version.to_owned());
    let said = sim.answers.entry(router.clone()).or_default();
    let said = said.entry(key).or_default();
    said.answers += answers;
    said.errors += errors;
    said.latencies.resize(BUCKETS, 0);
    said.latencies[bucket_of(Duration::from_millis(ms))] += answers;
    sim.ack(&router);
}

fn the_deployment(sim: &Sim) -> &Deployment {
    &sim.world.applications["app"].deployments["D"]
}

fn message(sim: &Sim) -> String {
    the_deployment(sim).message(at(sim.now_ms))
}

fn share(sim: &Sim) -> Option<(String, u32)> {
    let table = sim.world.published.table().unwrap();
    let canary = table.applications[0].deployments[0].canary.clone()?;
    Some((canary.code_version, canary.percent))
}

/// Whether routers say that they are ready for it.
fn is_running(sim: &Sim) -> bool {
    sim.world.published.table().unwrap().applications[0].running
}

/// Live replicas of a version.
fn live(sim: &Sim, code: &str) -> usize {
    let replicas = the_deployment(sim).replicas.values();
    let live = replicas.filter(|r| r.phase.is_live() && r.spec.code_version == code);
    live.count()
}

/// Every step passes with enough good answers.
fn pass_all_steps(sim: &mut Sim) {
    for _ in 0..3 {
        answer(
            sim,
            the_deployment(sim)
                .spec
                .replica
                .code_version
                .clone()
                .as_str(),
            200,
            0,
            10,
        );
        wait(sim, STEP_S);
    }
}

#[test]
fn each_step_starts_what_its_part_needs_and_the_last_one_is_followed_by_the_rollout() {
    let mut sim = canary();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push((share(&sim).unwrap().1, live(&sim, "v1"), live(&sim, "v2")));
        answer(&mut sim, "v2", 150, 1, 10);
        wait(&mut sim, STEP_S);
    }
    assert_eq!(seen, [(5, 4, 1), (25, 4, 1), (50, 4, 2)]);
    assert_eq!(share(&sim), None);
    sim.settle();
    assert_eq!((live(&sim, "v1"), live(&sim, "v2")), (0, 4));
    assert!(the_deployment(&sim).canary.is_none());
    assert_eq!(the_deployment(&sim).status.state, State::Healthy);
    assert_eq!(status(&sim.world.applications["app"]).0, AppState::Running);
}

#[test]
fn nothing_goes_to_the_new_version_before_its_replicas_answer() {
    let mut sim = running(16.0);
    deploy(&mut sim, V2);
    let plan = sim.head_step();
    assert_eq!(plan.actions.len(), 1, "{plan}");
    assert_eq!(share(&sim), Some(("v2".to_owned(), 0)));
    assert_eq!(
        message(&sim),
        "canary: step 1 of 3, 0 % of the requests; 0 answers, 0 failed, p99 0 ms; 0 of 1 new \
         replicas answer"
    );
}

#[test]
fn another_version_takes_the_place_of_a_canary_and_the_old_config_ends_it() {
    let mut sim = canary();
    answer(&mut sim, "v2", 150, 0, 10);
    deploy(&mut sim, V3);
    rounds(&mut sim, 10);
    assert_eq!(share(&sim), Some(("v3".to_owned(), 5)));
    assert_eq!(
        (live(&sim, "v1"), live(&sim, "v2"), live(&sim, "v3")),
        (4, 0, 1)
    );

    deploy(&mut sim, FOUR);
    rounds(&mut sim, 1);
    assert_eq!(share(&sim), None);
    sim.settle();
    assert_eq!((live(&sim, "v1"), live(&sim, "v3")), (4, 0));
    assert_eq!(
        status(&sim.world.applications["app"]),
        (AppState::Running, String::new())
    );
}

#[test]
fn the_same_config_or_other_counts_leave_a_canary_at_its_step() {
    let mut sim = canary();
    answer(&mut sim, "v2", 150, 0, 10);
    wait(&mut sim, STEP_S);
    assert_eq!(share(&sim), Some(("v2".to_owned(), 25)));
    deploy(&mut sim, V2);
    deploy(&mut sim, Version { target: 8, ..V2 });
    rounds(&mut sim, 10);
    assert_eq!(share(&sim), Some(("v2".to_owned(), 25)));
    assert_eq!((live(&sim, "v1"), live(&sim, "v2")), (8, 2));
}

#[test]
fn going_back_is_a_matter_of_replicas_and_not_of_steps() {
    let mut sim = canary();
    pass_all_steps(&mut sim);
    sim.settle();
    put(&mut sim, with_traffic(FOUR), true);
    rounds(&mut sim, 3);
    assert_eq!(share(&sim), None);
    sim.settle();
    assert_eq!((live(&sim, "v1"), live(&sim, "v2")), (4, 0));
}

#[test]
fn a_replica_of_the_old_version_that_dies_meanwhile_is_replaced_by_its_like() {
    let mut sim = running(4.0);
    sim.add_worker(16.0);
    deploy(&mut sim, V2);
    rounds(&mut sim, 5);
    assert!(is_running(&sim));
    sim.kill("worker1");
    rounds(&mut sim, 1);
    assert!(!is_running(&sim));
    assert_eq!(the_deployment(&sim).status.state, State::DeployFailed);
    rounds(&mut sim, 10);
    assert_eq!((live(&sim, "v1"), live(&sim, "v2")), (4, 1));
    assert_eq!(the_deployment(&sim).status.state, State::Updating);
    assert!(is_running(&sim), "nothing is missing any more");
    let replicas = the_deployment(&sim).replicas.values();
    let mut of_v1 = replicas.filter(|replica| replica.spec.code_version == "v1");
    assert!(of_v1.all(|replica| replica.spec.config_version == "c1"));
}

#[test]
fn without_room_the_canary_waits_and_nobody_leaves_for_it() {
    let mut sim = running(4.0);
    deploy(&mut sim, V2);
    rounds(&mut sim, 10);
    assert_eq!((live(&sim, "v1"), live(&sim, "v2")), (4, 0));
    assert!(
        message(&sim).ends_with(
            "0 of 1 new replicas answer\nwaiting: 0 of 1 replicas placed; needs 1 CPU, nothing free \
             on the nearest of 1 worker(s), 1 CPU short"
        ),
        "{}",
        message(&sim)
    );
    sim.add_worker(4.0);
    rounds(&mut sim, 10);
    assert_eq!(share(&sim), Some(("v2".to_owned(), 5)));
}

#[test]
fn a_canary_that_does_not_start_is_taken_back() {
    let mut sim = Sim::new();
    sim.rollback = true;
    sim.add_worker(4.0);
    deploy(&mut sim, V1);
    sim.settle();
    let bad = Version {
        code: BAD_CODE,
        ..V1
    };
    deploy(&mut sim, bad);
    sim.settle();
    let (state, message) = status(&sim.world.applications["app"]);
    assert_eq!(state, AppState::DeployFailed);
    assert!(
        message.ends_with("rolled back to revision 1, which is serving"),
        "{message}"
    );
    assert_eq!(sim.phases(), [Phase::Running]);
}

#[test]
fn without_rollback_what_was_given_up_leaves_and_the_old_version_serves_on() {
    let mut sim = canary();
    let mut app = with_traffic(V2);
    app.rollback = false;
    put(&mut sim, app.clone(), false);
    answer(&mut sim, "v2", 250, 18, 10);
    sim.settle();
    assert_eq!((live(&sim, "v1"), live(&sim, "v2")), (4, 0));
    assert_eq!(
        message(&sim),
        "canary: 7.2 % of 250 requests failed at 5 %, allowed 1 %"
    );
    let (state, message) = status(&sim.world.applications["app"]);
    assert_eq!(
        (state, message.as_str()),
        (
            AppState::DeployFailed,
            "Failed to update the deployments ['D']."
        )
    );
    // The same again is another try.
    put(&mut sim, app, false);
    rounds(&mut sim, 5);
    assert_eq!(share(&sim), Some(("v2".to_owned(), 5)));
}

#[test]
fn where_nothing_serves_yet_there_is_no_canary() {
    let mut sim = Sim::new();
    sim.add_worker(8.0);
    sim.add_router();
    deploy(&mut sim, FOUR);
    rounds(&mut sim, 1);
    deploy(&mut sim, V2);
    sim.settle();
    assert_eq!(live(&sim, "v2"), 4);
    assert!(the_deployment(&sim).canary.is_none());
}

#[test]
fn versions_keep_their_own_limits_in_the_table() {
    let mut sim = running(16.0);
    let mut app = with_traffic(V2);
    let built = app.built.as_mut().unwrap();
    let mut replica = (*built.deployments[0].replica).clone();
    replica.max_ongoing_requests = 7;
    built.deployments[0].replica = replica.into();
    put(&mut sim, app, false);
    rounds(&mut sim, 5);
    let table = sim.world.published.table().unwrap();
    let deployment = &table.applications[0].deployments[0];
    assert_eq!(deployment.max_ongoing_requests, 7);
    let own = deployment.replicas.iter();
    let own: Vec<(&str, u32)> = own
        .map(|replica| (replica.code_version.as_str(), replica.max_ongoing_requests))
        .collect();
    assert_eq!(own, [("v1", 5), ("v1", 5), ("v1", 5), ("v1", 5), ("v2", 0)]);
}

#[test]
fn the_load_changes_the_count_during_a_canary_and_that_proves_nothing() {
    let autoscaled = |version: Version| {
        let mut app = with_traffic(version);
        app.built.as_mut().unwrap().deployments[0].autoscaling = Some(Autoscaling {
            min_replicas: 4,
            max_replicas: 8,
            look_back_ms: 500,
            upscale_delay_ms: 1000,
            ..Autoscaling::for_tests()
        });
        app
    };
    let mut sim = Sim::new();
    sim.rollback = true;
    sim.add_worker(32.0);
    let router = sim.add_router();
    put(&mut sim, autoscaled(FOUR), false);
    sim.settle();
    put(&mut sim, autoscaled(V2), false);
    sim.loads.insert(router, (0, 100));
    for _ in 0..50 {
        sim.now_ms += 100;
        rounds(&mut sim, 1);
    }
    assert_eq!((live(&sim, "v1"), live(&sim, "v2")), (8, 1));
    let application = &sim.world.applications["app"];
    assert_eq!(status(application).0, AppState::Running, "as Ray says it");
    assert!(!application.runs_as_declared());
    answer(&mut sim, "v2", 250, 18, 10);
    rounds(&mut sim, 3);
    let (_, message) = status(&sim.world.applications["app"]);
    assert!(
        message.ends_with("rolled back to revision 1, which is serving"),
        "{message}"
    );
    assert_eq!((live(&sim, "v1"), live(&sim, "v2")), (8, 0));
}
