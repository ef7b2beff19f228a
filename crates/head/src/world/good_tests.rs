//! When a config is good, and when a failed one is taken back.

use super::application_status::{AppState, status};
use super::deployment_status::State;
use super::fixtures::{V1, Version, config, told_apart};
use super::intent::Phase;
use super::sim::{BAD_CODE, Sim};
use super::{Event, World};

const BAD: Version = Version {
    code: BAD_CODE,
    ..V1
};

fn deploy(sim: &mut Sim, version: Version, rollback: bool) {
    let mut app = told_apart("app", version);
    app.rollback = rollback;
    let mut spec = config(vec![app]);
    spec.revision = sim.world.revision + 1;
    sim.observe(Event::Deploy(Box::new(spec)));
}

fn running(version: Version, cpus: f64) -> Sim {
    let mut sim = Sim::new();
    sim.rollback = true;
    sim.add_worker(cpus);
    sim.add_router();
    deploy(&mut sim, version, true);
    sim.settle();
    sim
}

fn app_status(world: &World) -> (AppState, String) {
    status(&world.applications["app"])
}

#[test]
fn a_version_that_does_not_start_is_taken_back_and_the_status_says_so() {
    let mut sim = running(V1, 4.0);
    deploy(&mut sim, BAD, true);
    sim.settle();
    let (state, message) = app_status(&sim.world);
    assert_eq!(state, AppState::DeployFailed);
    assert!(
        message.starts_with("Failed to update the deployments ['D'].\nD: The deployment failed"),
        "{message}"
    );
    assert!(
        message.ends_with("no such model\nrolled back to revision 1, which is serving"),
        "{message}"
    );
    let application = &sim.world.applications["app"];
    assert!(application.runs());
    assert_eq!(application.deployments["D"].status.state, State::Healthy);
    assert_eq!(sim.phases(), [Phase::Running]);
    assert_eq!(sim.world.revision, 3);

    // Another config is another chance, and forgets the failure.
    deploy(&mut sim, Version { code: "v2", ..V1 }, true);
    sim.settle();
    assert_eq!(app_status(&sim.world), (AppState::Running, String::new()));
}

#[test]
fn the_replica_of_the_good_version_never_leaves_the_table() {
    let mut sim = running(V1, 4.0);
    let routed = |sim: &Sim| {
        let table = sim.world.published.table().unwrap();
        table.applications[0].deployments[0].replicas.clone()
    };
    let before = routed(&sim);
    deploy(&mut sim, BAD, true);
    while app_status(&sim.world).0 != AppState::DeployFailed {
        sim.now_ms += 100;
        sim.round();
        sim.serve();
        assert_eq!(routed(&sim), before);
    }
    sim.settle();
    assert_eq!(routed(&sim), before);
}

#[test]
fn where_the_old_one_had_to_leave_first_it_comes_back() {
    let mut sim = running(V1, 1.0);
    deploy(&mut sim, BAD, true);
    sim.settle();
    let (state, message) = app_status(&sim.world);
    assert_eq!(state, AppState::DeployFailed);
    assert!(message.ends_with("rolled back to revision 1"), "{message}");
    assert_eq!(sim.phases(), [Phase::Running]);
}

#[test]
fn rollback_can_be_switched_off() {
    let mut sim = running(V1, 4.0);
    deploy(&mut sim, BAD, false);
    sim.settle();
    let (state, message) = app_status(&sim.world);
    assert_eq!(state, AppState::DeployFailed);
    assert_eq!(message, "Failed to update the deployments ['D'].");
    assert_eq!(sim.world.revision, 2);
    assert_eq!(sim.phases(), [Phase::Running]);
}

#[test]
fn a_first_version_has_nothing_to_return_to() {
    let sim = running(BAD, 4.0);
    assert_eq!(app_status(&sim.world).0, AppState::DeployFailed);
    assert!(sim.world.applications["app"].good.is_none());
    assert_eq!(sim.world.revision, 1);
}

#[test]
fn what_cannot_be_built_is_taken_back() {
    let mut sim = running(V1, 4.0);
    let mut app = told_apart("app", Version { code: "v2", ..V1 });
    app.built = Err("no such deployment".to_owned());
    let mut spec = config(vec![app]);
    spec.revision = 2;
    sim.observe(Event::Deploy(Box::new(spec)));
    sim.settle();
    let (state, message) = app_status(&sim.world);
    assert_eq!(state, AppState::DeployFailed);
    assert_eq!(
        message,
        "no such deployment\nrolled back to revision 1, which is serving"
    );
    assert!(sim.world.applications["app"].runs());
}

#[test]
fn a_config_that_ran_is_not_taken_back_for_what_happens_later() {
    let mut sim = running(V1, 4.0);
    deploy(&mut sim, Version { code: "v2", ..V1 }, true);
    sim.settle();
    let good = sim.world.applications["app"].good.clone().unwrap();
    assert_eq!(good.revision, 2);
    sim.kill("worker1");
    sim.settle();
    assert_eq!(sim.world.failed_rollouts(), []);
    assert_eq!(sim.world.revision, 2);
}

#[test]
fn deleting_an_application_forgets_what_was_good() {
    let mut sim = running(V1, 4.0);
    sim.observe(Event::Deploy(Box::new(config(Vec::new()))));
    deploy(&mut sim, BAD, true);
    sim.settle();
    assert!(sim.world.applications["app"].good.is_none());
    assert_eq!(app_status(&sim.world).0, AppState::DeployFailed);
}
