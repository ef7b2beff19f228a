//! By what a canary is judged: errors, latencies, and answers that are too few.

use super::*;

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
