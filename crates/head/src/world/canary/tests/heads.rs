//! What a new head makes of a canary.

use super::*;

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
