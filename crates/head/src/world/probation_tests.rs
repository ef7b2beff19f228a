//! A config whose replicas start, and fail soon after.

use super::application_status::{AppState, status};
use super::deployment_status::State;
use super::fixtures::{V1, Version, config, told_apart};
use super::intent::Phase;
use super::observed::ReportedState;
use super::sim::Sim;
use super::{Event, Now};

const V2: Version = Version { code: "v2", ..V1 };
/// Three times the period and the time-out of a health check, as the fixtures have them.
const PROBATION_MS: u64 = 3 * (10 + 30) * 1000;

fn deploy(sim: &mut Sim, version: Version, rollback: bool) {
    let mut app = told_apart("app", version);
    app.rollback = rollback;
    let mut spec = config(vec![app]);
    spec.revision = sim.world.revision + 1;
    sim.observe(Event::Deploy(Box::new(spec)));
}

/// A first version that runs, and a second one that has just come to.
fn updated(target: u32, rollback: bool) -> Sim {
    let mut sim = Sim::new();
    sim.rollback = true;
    sim.add_worker(8.0);
    sim.add_router();
    for version in [V1, V2] {
        deploy(&mut sim, Version { target, ..version }, rollback);
        sim.settle();
    }
    assert_eq!(app_status(&sim), (AppState::Running, String::new()));
    sim
}

fn app_status(sim: &Sim) -> (AppState, String) {
    status(&sim.world.applications["app"])
}

fn afflict(sim: &mut Sim, state: ReportedState) {
    sim.afflict("worker1", 0, state);
    sim.report("worker1");
    sim.head_step();
}

fn code(sim: &Sim) -> &str {
    let deployment = &sim.world.applications["app"].deployments["D"];
    &deployment.spec.replica.code_version
}

#[test]
fn a_version_whose_only_replica_is_not_well_soon_after_its_start_is_taken_back() {
    let mut sim = updated(1, true);
    afflict(&mut sim, ReportedState::Unhealthy);
    sim.settle();
    let (state, message) = app_status(&sim);
    assert_eq!(state, AppState::DeployFailed);
    assert_eq!(
        message,
        "Failed to update the deployments ['D'].\nD: Its replicas were ready, and failed 3 times \
         soon after. Error:\nafflicted\nrolled back to revision 1"
    );
    assert_eq!((code(&sim), sim.world.revision), ("v1", 3));
    let application = &sim.world.applications["app"];
    assert_eq!(application.deployments["D"].status.state, State::Healthy);
    let good = application.good.as_ref().unwrap();
    assert_eq!(
        (good.revision, good.spec.raw == application.declared.raw),
        (3, true)
    );
    assert!(application.probation.is_none(), "it ran before");
}

#[test]
fn replicas_that_die_again_and_again_are_the_configs_fault_and_a_single_death_is_not() {
    let mut sim = updated(1, true);
    for _ in 0..2 {
        afflict(&mut sim, ReportedState::Failed);
        sim.settle();
        assert_eq!(code(&sim), "v2");
    }
    afflict(&mut sim, ReportedState::Failed);
    sim.settle();
    assert_eq!(code(&sim), "v1");
}

#[test]
fn of_many_replicas_as_many_have_to_fail_as_for_starts() {
    let mut sim = updated(2, true);
    afflict(&mut sim, ReportedState::Unhealthy);
    sim.settle();
    assert_eq!(code(&sim), "v2");
    afflict(&mut sim, ReportedState::Unhealthy);
    sim.settle();
    assert_eq!(code(&sim), "v1");
}

#[test]
fn the_end_of_a_worker_is_not_the_configs_fault() {
    let mut sim = updated(1, true);
    for _ in 0..4 {
        let worker = sim.workers.keys().next().unwrap().clone();
        sim.kill(&worker);
        sim.add_worker(8.0);
        sim.settle();
    }
    assert_eq!((code(&sim), sim.world.revision), ("v2", 2));
}

#[test]
fn what_fails_after_the_probation_is_not_taken_back() {
    let mut sim = updated(1, true);
    sim.now_ms += PROBATION_MS;
    sim.head_step();
    for _ in 0..4 {
        afflict(&mut sim, ReportedState::Unhealthy);
        sim.settle();
    }
    assert_eq!((code(&sim), sim.world.revision), ("v2", 2));
    assert_eq!(sim.phases(), [Phase::Running]);
}

#[test]
fn neither_is_a_first_version_nor_one_whose_rollback_is_switched_off() {
    let mut first = Sim::new();
    first.rollback = true;
    first.add_worker(8.0);
    deploy(&mut first, V1, true);
    first.settle();
    for mut sim in [first, updated(1, false)] {
        let (before, revision) = (code(&sim).to_owned(), sim.world.revision);
        for _ in 0..4 {
            afflict(&mut sim, ReportedState::Unhealthy);
            sim.settle();
        }
        assert_eq!((code(&sim), sim.world.revision), (&*before, revision));
    }
}

#[test]
fn a_newer_version_that_does_not_start_returns_to_the_one_on_probation() {
    let mut sim = updated(1, true);
    let bad = super::sim::BAD_CODE;
    deploy(&mut sim, Version { code: bad, ..V1 }, true);
    sim.settle();
    assert_eq!(code(&sim), "v2");
}

#[test]
fn the_same_config_again_goes_on_with_its_probation() {
    let mut sim = updated(1, true);
    deploy(&mut sim, V2, true);
    sim.settle();
    afflict(&mut sim, ReportedState::Unhealthy);
    sim.settle();
    assert_eq!(code(&sim), "v1");
}

#[test]
fn another_head_remembers_the_probation_and_no_clock_makes_it_longer() {
    let mut sim = updated(1, true);
    let probation = sim.world.applications["app"].probation.clone().unwrap();
    let now = Now {
        ms: 0,
        unix_s: probation.until_s - 1e6,
    };
    let application = sim.world.applications.get_mut("app").unwrap();
    application.probation = None;
    let before = probation.before.clone();
    sim.world
        .remember_probation("app", before, probation.until_s, now);
    let remembered = sim.world.applications["app"].probation.as_ref().unwrap();
    assert_eq!(remembered.before.revision, 1);
    assert_eq!(
        remembered.until_s,
        now.unix_s + super::probation::PROBATION_SECONDS_MAX
    );
}
