//! Canaries in the simulated cluster: what starts, who gets what part, and how it ends.

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
fn errors_above_the_limit_take_the_application_back_and_the_old_version_never_left() {
    let mut sim = canary();
    let routed = |sim: &Sim| -> Vec<String> {
        let table = sim.world.published.table().unwrap();
        let replicas = table.applications[0].deployments[0].replicas.iter();
        let of_v1 = |id: &str| the_deployment(sim).replicas[id].spec.code_version == "v1";
        let ids = replicas.map(|replica| replica.replica_id.clone());
        ids.filter(|id| of_v1(id)).collect()
    };
    let before = routed(&sim);
    answer(&mut sim, "v2", 250, 18, 10);
    rounds(&mut sim, 1);
    let (state, message) = status(&sim.world.applications["app"]);
    assert_eq!(state, AppState::DeployFailed);
    assert_eq!(
        message,
        "Failed to update the deployments ['D'].\nD: canary: 7.2 % of 250 requests failed at 5 %, \
         allowed 1 %\nrolled back to revision 1, which is serving"
    );
    for _ in 0..20 {
        assert_eq!(routed(&sim), before);
        assert_eq!(live(&sim, "v2"), 0);
        rounds(&mut sim, 1);
    }
    sim.settle();
    assert_eq!(sim.phases(), [Phase::Running; 4]);
    assert_eq!(routed(&sim), before);
    assert_eq!(share(&sim), None);
    assert_eq!(the_deployment(&sim).status.state, State::Healthy);
}

#[test]
fn a_little_too_many_errors_are_judged_at_the_end_of_the_step_only() {
    let mut sim = canary();
    answer(&mut sim, "v2", 200, 3, 10);
    rounds(&mut sim, 3);
    assert_eq!(share(&sim), Some(("v2".to_owned(), 5)));
    wait(&mut sim, STEP_S);
    let (_, message) = status(&sim.world.applications["app"]);
    assert!(
        message.contains("canary: 1.5 % of 200 requests failed at 5 %, allowed 1 %"),
        "{message}"
    );
}

#[test]
fn errors_that_no_answer_to_come_could_outweigh_are_not_waited_out() {
    let mut sim = canary();
    answer(&mut sim, "v2", 2, 2, 10);
    rounds(&mut sim, 3);
    assert!(
        share(&sim).is_some(),
        "two of a hundred is not twice the limit"
    );
    answer(&mut sim, "v2", 1, 1, 10);
    rounds(&mut sim, 3);
    let (_, message) = status(&sim.world.applications["app"]);
    assert!(
        message.contains("100 % of 3 requests failed at 5 %"),
        "{message}"
    );
}

#[test]
fn slow_answers_take_the_application_back() {
    let mut sim = canary();
    answer(&mut sim, "v2", 96, 0, 10);
    rounds(&mut sim, 3);
    assert!(
        message(&sim).contains("96 answers, 0 failed, p99 11 ms"),
        "{}",
        message(&sim)
    );
    answer(&mut sim, "v2", 4, 0, 1000);
    rounds(&mut sim, 3);
    let (_, message) = status(&sim.world.applications["app"]);
    assert!(
        message.contains("canary: p99 of 100 requests was 983 ms at 5 %, allowed 200 ms"),
        "{message}"
    );
    assert!(message.ends_with("rolled back to revision 1, which is serving"));
}

#[test]
fn without_enough_answers_a_step_is_prolonged_says_so_and_ends_after_a_while() {
    let mut sim = canary();
    answer(&mut sim, "v2", 99, 0, 10);
    assert!(message(&sim).ends_with("99 answers, 0 failed, p99 11 ms; judged in 10 s"));
    wait(&mut sim, STEP_S);
    assert!(
        message(&sim).ends_with("; prolonged until there are 100 answers, by 90 s at most"),
        "{}",
        message(&sim)
    );
    assert_eq!(share(&sim), Some(("v2".to_owned(), 5)));
    wait(&mut sim, STEP_S * (PROLONGED_MAX - 1.0));
    assert_eq!(share(&sim), Some(("v2".to_owned(), 25)));
    // At its end, few answers are judged as many would be.
    answer(&mut sim, "v2", 2, 1, 10);
    wait(&mut sim, STEP_S * PROLONGED_MAX);
    let (_, message) = status(&sim.world.applications["app"]);
    assert!(
        message.contains("canary: 50 % of 2 requests failed at 25 %"),
        "{message}"
    );
}

#[test]
fn a_router_that_began_before_or_begins_anew_is_counted_from_where_it_counts() {
    let stable = V1;
    let stable = crate::world::fixtures::deployment(stable).replica;
    let canary = |said: &[u64]| {
        let mut canary = Canary::new("v2", stable.clone());
        for answers in said {
            let said = Answers {
                answers: *answers,
                errors: *answers,
                latencies: vec![*answers],
            };
            canary.count(&"router".to_owned(), said);
        }
        let late = at(1_000_000_000);
        let never = Traffic {
            error_rate_max: 0.0,
            requests_min: 1,
            ..traffic()
        };
        canary
            .next(&never, late, 0, 4)
            .map(|(_, verdict)| verdict.to_string())
    };
    let failing = |answers: u64| {
        Some(format!(
            "canary: 100 % of {answers} requests failed at 0 %, allowed 0 %"
        ))
    };
    assert_eq!(canary(&[]), None);
    assert_eq!(canary(&[500]), None);
    assert_eq!(canary(&[500, 507]), failing(7));
    assert_eq!(canary(&[0, 7, 7, 9]), failing(9));
    assert_eq!(canary(&[500, 507, 3]), failing(10));
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

/// A new head that was told what the old one stored, and hears from its workers and routers.
fn restarted(old: Sim, newest: ApplicationSpec, good: Option<ApplicationSpec>) -> Sim {
    let stored = StoredIntent::of(&old.world).to_bytes();
    let stored = StoredIntent::from_bytes(&stored).unwrap();
    let revision = old.world.revision;
    let mut sim = old;
    sim.world = World::new("head-node", 10_000);
    let mut spec = config(vec![newest]);
    spec.revision = revision;
    sim.observe(Event::Deploy(Box::new(spec)));
    if let Some(good) = good {
        sim.world.remember_good("app", good, 1);
    }
    let id = sim.world.deployments().next().unwrap().0;
    sim.world.resume_canary("app", "D", stored.canary(&id));
    sim.world.awaited_workers = stored.workers;
    rounds(&mut sim, 5);
    sim
}

#[test]
fn a_new_head_goes_on_at_the_step_and_judges_by_new_answers() {
    let mut sim = canary();
    answer(&mut sim, "v2", 150, 0, 10);
    wait(&mut sim, STEP_S);
    answer(&mut sim, "v2", 150, 0, 10);
    wait(&mut sim, STEP_S / 2.0);
    let mut sim = restarted(sim, with_traffic(V2), Some(with_traffic(FOUR)));
    assert_eq!(share(&sim), Some(("v2".to_owned(), 25)));
    assert_eq!((live(&sim, "v1"), live(&sim, "v2")), (4, 1));
    assert!(
        message(&sim).contains("step 2 of 3, 25 % of the requests; 0 answers, 0 failed"),
        "{}",
        message(&sim)
    );
    wait(&mut sim, STEP_S / 2.0);
    assert!(message(&sim).contains("prolonged"), "{}", message(&sim));
    // It knows what the old version is made of.
    sim.add_worker(16.0);
    sim.kill("worker1");
    rounds(&mut sim, 10);
    assert_eq!((live(&sim, "v1"), live(&sim, "v2")), (4, 1));
    answer(&mut sim, "v2", 150, 0, 10);
    wait(&mut sim, STEP_S);
    assert_eq!(share(&sim), Some(("v2".to_owned(), 50)));
}

#[test]
fn a_new_head_goes_on_with_the_rollout_of_a_promoted_version() {
    let mut sim = canary();
    pass_all_steps(&mut sim);
    assert_eq!(
        the_deployment(&sim).canary.as_ref().unwrap().stage,
        Stage::Promoted
    );
    let mut sim = restarted(sim, with_traffic(V2), Some(with_traffic(FOUR)));
    assert_eq!(share(&sim), None);
    sim.settle();
    assert_eq!((live(&sim, "v1"), live(&sim, "v2")), (0, 4));
}

#[test]
fn a_version_that_was_accepted_as_the_head_ended_is_a_canary_all_the_same() {
    let sim = running(16.0);
    // Nothing is stored of it yet.
    let sim = restarted(sim, with_traffic(V2), Some(with_traffic(FOUR)));
    assert_eq!(share(&sim), Some(("v2".to_owned(), 5)));
    assert_eq!((live(&sim, "v1"), live(&sim, "v2")), (4, 1));
}

#[test]
fn what_an_earlier_release_stored_is_read_and_newer_fields_are_ignored() {
    let old = br#"{"format":1,"workers":["w1"],"scaled":[]}"#;
    assert_eq!(StoredIntent::from_bytes(old).unwrap().canaries, []);
    let newer = br#"{"format":1,"workers":[],"scaled":[],"moods":["good"],"canaries":
        [{"application":"app","deployment":"D","code_version":"v2","step":1,"mood":"good"}]}"#;
    let stored = StoredIntent::from_bytes(newer).unwrap();
    let id = DeploymentId {
        application: "app".to_owned(),
        deployment: "D".to_owned(),
    };
    let stage = Stage::Step {
        step: 1,
        since_s: None,
    };
    assert_eq!(stored.canary(&id), Some(("v2", stage)));
}
