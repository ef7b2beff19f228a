//! The plan against the model of Kubernetes: single situations.

use std::collections::BTreeSet;

use super::action::{Action, Reason};
use super::budget::{AWAITED_MS_MAX, budgets};
use super::groups::parse;
use super::ledger::{DELETION_RETRY_MS, Ledger};
use super::model::{FILE, Model, cpus, texts};
use super::plan::UNNEEDED_MS;
use super::pods::Stage;
use super::survey::UNSCHEDULABLE_MS;
use crate::world::Resources;
use crate::world::resources::{CPU, GPU};

#[test]
fn an_unsynced_head_decides_nothing() {
    let mut model = Model::new();
    model.demand.synced = false;
    model.demand.unplaced = vec![cpus(1.0)];
    assert_eq!(texts(&model.pass()), Vec::<String>::new());
}

#[test]
fn replicas_without_room_share_new_pods_of_the_group_that_comes_first() {
    let mut model = Model::new();
    model.demand.unplaced = vec![cpus(1.0); 5];
    // 2 + 2 + 1; min is among them.
    assert_eq!(model.pass().len(), 3);
    assert_eq!((model.count("small"), model.count("large")), (3, 0));
    assert!(model.pass().is_empty(), "what is on its way counts");
}

#[test]
fn a_full_group_passes_the_demand_on_and_gpus_go_to_who_needs_them() {
    let mut model = Model::new();
    model.demand.unplaced = vec![cpus(2.0); 8];
    let gpu = Resources::from_units([(CPU, 1.0), (GPU, 1.0)]);
    model.demand.unplaced.push(gpu);
    model.pass();
    assert_eq!((model.count("small"), model.count("large")), (4, 2));
}

#[test]
fn needs_that_may_not_share_a_machine_get_a_pod_each() {
    let mut model = Model::new();
    model.demand.apart = vec![vec![cpus(1.0); 3]];
    model.demand.unplaced = vec![cpus(1.0); 2];
    model.pass();
    assert_eq!(model.count("small"), 3, "which have room for the others");
    assert!(model.pass().is_empty(), "what is on its way counts");
}

#[test]
fn a_need_that_no_pod_could_hold_makes_none() {
    let mut model = Model::new();
    model.settle();
    model.demand.unplaced = vec![cpus(100.0)];
    assert!(model.pass().is_empty());
}

#[test]
fn a_group_whose_empty_pod_is_of_no_use_gets_no_more_of_them() {
    let mut model = Model::new();
    model.groups.truncate(1);
    model.settle();
    model.demand.unplaced = vec![cpus(1.0)];
    assert_eq!(texts(&model.pass()), Vec::<String>::new());
}

#[test]
fn a_refused_group_waits_and_the_next_one_is_asked() {
    let mut model = Model::new();
    model.settle();
    model.demand.unplaced = vec![cpus(2.0)];
    let now = model.now_ms;
    model
        .ledger
        .refused("p9", "small", "exceeded quota".to_owned(), now);
    model.pass();
    assert_eq!((model.count("small"), model.count("large")), (1, 1));
}

#[test]
fn pauses_after_refusals_double_and_end_with_a_success() {
    let mut ledger = Ledger::default();
    let mut pauses = Vec::new();
    for _ in 0..7 {
        ledger.refused("p", "g", "no".to_owned(), 0);
        pauses.push(ledger.refusals()["g"].until_ms / 1_000);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    ledger.accepted("g");
    assert!(!ledger.is_paused("g", 0));
}

#[test]
fn a_pod_without_a_node_holds_demand_for_a_while_then_the_next_group_gets_it_and_it_goes() {
    let mut model = Model::new();
    model.settle();
    model.fill();
    model.demand.unplaced = vec![cpus(2.0)];
    model.pass();
    let stuck = model.pods.keys().last().unwrap().clone();
    model.pods.get_mut(&stuck).unwrap().stage = Stage::Unschedulable;
    assert!(model.pass().is_empty());
    let planned = model.after(UNSCHEDULABLE_MS).pass();
    assert_eq!(model.count("large"), 1, "{planned:?}");
    let planned = model.pass();
    assert_eq!(planned[0].reason, Reason::Unneeded, "{planned:?}");
    assert!(matches!(&planned[0].action, Action::Drain { uid, .. } if *uid == stuck));
}

#[test]
fn a_pod_without_a_node_stays_where_nobody_else_can_help() {
    let mut model = Model::new();
    model.groups.truncate(1);
    model.settle();
    model.fill();
    model.demand.unplaced = vec![cpus(2.0)];
    model.pass();
    let stuck = model.pods.keys().last().unwrap().clone();
    model.pods.get_mut(&stuck).unwrap().stage = Stage::Unschedulable;
    for _ in 0..10 {
        let planned = model.after(UNSCHEDULABLE_MS).pass();
        assert_eq!(texts(&planned), Vec::<String>::new());
    }
}

#[test]
fn pending_pods_go_first_when_the_demand_falls() {
    let mut model = Model::new();
    model.demand.unplaced = vec![cpus(2.0); 3];
    model.pass();
    let first = model.pods.keys().next().unwrap().clone();
    model.start(&first);
    model.demand.unplaced.clear();
    assert!(model.pass().is_empty(), "it may come back at once");
    let planned = model.after(UNNEEDED_MS).pass();
    assert_eq!(planned.len(), 2);
    assert!(planned.iter().all(|step| step.reason == Reason::Unneeded));
}

#[test]
fn an_idle_pod_drains_after_its_time_and_is_deleted_when_its_worker_has_gone() {
    let mut model = Model::new();
    model.demand.unplaced = vec![cpus(2.0); 2];
    model.pass();
    model.start_all();
    model.demand.unplaced.clear();
    assert!(model.pass().is_empty());
    assert!(model.after(19_999).pass().is_empty());
    let planned = model.after(1).pass();
    assert_eq!(planned.len(), 1, "min stays");
    assert!(matches!(planned[0].action, Action::Drain { .. }));
    let planned = model.pass();
    assert_eq!(planned[0].reason, Reason::Drained);
    assert_eq!(model.count("small"), 1);
}

#[test]
fn a_draining_pod_is_not_deleted_while_replicas_are_left_in_it() {
    let mut model = Model::new();
    model.settle();
    let uid = model.pods.keys().next().unwrap().clone();
    model.ledger.drain(&uid);
    let worker = model.demand.workers.get_mut(&uid).unwrap();
    worker.draining = true;
    worker.replicas = 1;
    let planned = model.pass();
    assert_eq!(planned.len(), 1, "only the replacement: {planned:?}");
    assert!(matches!(planned[0].action, Action::Create { .. }));
}

#[test]
fn an_evicted_pod_is_made_up_for_before_it_is_gone() {
    let mut model = Model::new();
    model.settle();
    let uid = model.pods.keys().next().unwrap().clone();
    model.pods.get_mut(&uid).unwrap().terminating = true;
    let planned = model.pass();
    assert_eq!(planned[0].reason, Reason::BelowMin { count: 0, min: 1 });
    assert_eq!(planned.len(), 1, "whoever evicts it deletes it");
}

#[test]
fn a_worker_whose_session_is_away_keeps_its_pod() {
    let mut model = Model::new();
    model.settle();
    let uid = model.pods.keys().next().unwrap().clone();
    model.demand.workers.remove(&uid);
    for _ in 0..20 {
        assert_eq!(texts(&model.after(20_000).pass()), Vec::<String>::new());
    }
    let planned = model.after(600_000).pass();
    assert!(matches!(planned[0].reason, Reason::NeverJoined { .. }));
}

#[test]
fn pods_that_end_before_they_join_are_deleted_and_not_made_again_at_once() {
    let mut model = Model::new();
    model.pass();
    let uid = model.pods.keys().next().unwrap().clone();
    model.pods.get_mut(&uid).unwrap().stage = Stage::Ended;
    let planned = model.pass();
    assert_eq!(planned.len(), 1);
    assert_eq!(planned[0].reason, Reason::Ended);
    assert!(model.pass().is_empty());
    assert_eq!(model.after(1_000).pass().len(), 1);
}

#[test]
fn a_deletion_without_effect_is_asked_for_again() {
    let mut ledger = Ledger::default();
    assert!(ledger.may_delete("u", 0));
    ledger.deleting("u", 0);
    assert!(!ledger.may_delete("u", DELETION_RETRY_MS - 1));
    assert!(ledger.may_delete("u", DELETION_RETRY_MS));
}

#[test]
fn a_new_template_replaces_pod_by_pod_with_one_more_at_a_time() {
    let mut model = Model::new();
    model.groups[0].min = 3;
    model.settle();
    for worker in model.demand.workers.values_mut() {
        worker.replicas = 2;
    }
    let old: BTreeSet<String> = model.pods.keys().cloned().collect();
    let mut changed = parse(&FILE.replace("image: one", "image: two")).unwrap();
    changed[0].min = 3;
    model.restart_with(changed);
    for _ in 0..60 {
        model.after(1_000).pass();
        assert!(model.count("small") <= 4, "3 and one more");
        model.start_all();
        model.move_replicas();
    }
    let now: BTreeSet<String> = model.pods.keys().cloned().collect();
    assert_eq!(now.len(), 3);
    assert!(now.is_disjoint(&old));
}

#[test]
fn a_pod_on_a_cordoned_node_is_made_up_for_and_then_goes() {
    let mut model = Model::new();
    model.settle();
    model.fill();
    let old = model.pods.keys().next().unwrap().clone();
    model.pods.get_mut(&old).unwrap().cordoned = true;
    let planned = model.pass();
    assert_eq!(planned.len(), 1);
    assert_eq!(planned[0].reason, Reason::MakesUp);
    // However long it takes to start.
    assert_eq!(
        texts(&model.after(UNNEEDED_MS).pass()),
        Vec::<String>::new()
    );
    assert_eq!(texts(&model.after(60_000).pass()), Vec::<String>::new());
    model.start_all();
    let planned = model.pass();
    assert_eq!(planned.len(), 1);
    assert_eq!(planned[0].reason, Reason::Cordoned);
    assert!(matches!(&planned[0].action, Action::Drain { uid, .. } if *uid == old));
}

#[test]
fn pods_of_a_group_that_is_gone_from_the_file_are_drained() {
    let mut model = Model::new();
    model.settle();
    model.groups.remove(0);
    let planned = model.pass();
    assert_eq!(planned[0].reason, Reason::NoSuchGroup);
}

#[test]
fn an_eviction_waits_for_the_pod_that_makes_up_for_the_last_one_but_not_for_ever() {
    let mut model = Model::new();
    model.groups[0].min = 3;
    model.settle();
    let budget = |model: &Model| {
        let survey = model.survey();
        let now = model.now_ms;
        let all = budgets(&model.groups, &model.pods, &model.ledger, &survey, now);
        all.get("small").copied()
    };
    assert_eq!(budget(&model), Some(2));
    let evicted = model.pods.keys().next().unwrap().clone();
    model.pods.get_mut(&evicted).unwrap().terminating = true;
    assert_eq!(budget(&model), Some(1), "it does not count any more");
    model.pass();
    model.pass();
    assert_eq!(budget(&model), Some(2), "its replacement does");
    let fresh = model.pods.keys().last().unwrap().clone();
    model.pods.get_mut(&fresh).unwrap().stage = Stage::Running;
    model.pass();
    model.after(AWAITED_MS_MAX).pass();
    assert_eq!(
        budget(&model),
        Some(1),
        "one that does not come is not waited for"
    );
    model.pods.retain(|uid, _| *uid == fresh);
    assert_eq!(budget(&model), None);
}
