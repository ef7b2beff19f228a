//! The plan against the model of Kubernetes: single situations, and whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::action::{Action, Reason};
use super::budget::{AWAITED_MS_MAX, budgets};
use super::groups::parse;
use super::ledger::{DELETION_RETRY_MS, Ledger};
use super::model::{FILE, Model, cpus, groups, texts};
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

#[derive(Clone, Debug)]
enum Op {
    Want(Vec<u8>),
    StartAll,
    Strand,
    Work(usize, usize),
    Evict(usize),
    Cordon(usize, bool),
    End(usize),
    Lose(usize),
    Gone(usize),
    Refuse(bool),
    NewTemplate(u8),
    Stick(usize),
    Crash(usize),
    Wait(u32),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => prop::collection::vec(1..4u8, 0..12).prop_map(Op::Want),
        3 => Just(Op::StartAll),
        1 => Just(Op::Strand),
        3 => (0..8usize, 0..3usize).prop_map(|(pod, replicas)| Op::Work(pod, replicas)),
        1 => (0..8usize).prop_map(Op::Evict),
        1 => (0..8usize, any::<bool>()).prop_map(|(pod, is)| Op::Cordon(pod, is)),
        1 => (0..8usize).prop_map(Op::End),
        1 => (0..8usize).prop_map(Op::Lose),
        1 => (0..8usize).prop_map(Op::Gone),
        1 => any::<bool>().prop_map(Op::Refuse),
        1 => (0..3u8).prop_map(Op::NewTemplate),
        1 => (0..8usize).prop_map(Op::Stick),
        1 => (0..8usize).prop_map(Op::Crash),
        4 => (0..70_000u32).prop_map(Op::Wait),
    ]
}

fn happens(model: &mut Model, op: Op) {
    let nth = |model: &Model, index: usize| model.pods.keys().nth(index).cloned();
    match op {
        Op::Want(needs) => {
            model.demand.unplaced = needs.iter().map(|need| cpus(f64::from(*need))).collect();
        }
        Op::StartAll => model.start_all(),
        Op::Strand => {
            for pod in model.pods.values_mut() {
                if pod.stage == Stage::Pending {
                    pod.stage = Stage::Unschedulable;
                }
            }
        }
        Op::Work(index, replicas) => {
            let worker = nth(model, index).and_then(|uid| model.demand.workers.get_mut(&uid));
            if let Some(worker) = worker {
                // A draining worker takes nothing new.
                worker.replicas = if worker.draining {
                    worker.replicas.min(replicas)
                } else {
                    replicas
                };
            }
        }
        Op::Evict(index) => {
            if let Some(uid) = nth(model, index) {
                model.pods.get_mut(&uid).unwrap().terminating = true;
            }
        }
        Op::Cordon(index, is) => {
            if let Some(uid) = nth(model, index) {
                model.pods.get_mut(&uid).unwrap().cordoned = is;
            }
        }
        Op::End(index) => {
            if let Some(uid) = nth(model, index) {
                model.pods.get_mut(&uid).unwrap().stage = Stage::Ended;
                model.demand.workers.remove(&uid);
            }
        }
        Op::Lose(index) => {
            if let Some(uid) = nth(model, index) {
                model.demand.workers.remove(&uid);
            }
        }
        Op::Gone(index) => {
            if let Some(uid) = nth(model, index).filter(|uid| model.pods[uid].terminating) {
                model.pods.remove(&uid);
                model.demand.workers.remove(&uid);
            }
        }
        Op::Refuse(small) => {
            let name = if small { "small" } else { "large" };
            let now = model.now_ms;
            model.ledger.refused("none", name, "quota".to_owned(), now);
        }
        Op::NewTemplate(version) => {
            let image = format!("image: v{version}");
            model.restart_with(parse(&FILE.replace("image: one", &image)).unwrap());
        }
        Op::Stick(index) => {
            if let Some(uid) = nth(model, index) {
                model.stick(&uid, "ErrImagePull");
            }
        }
        Op::Crash(index) => {
            if let Some(uid) = nth(model, index) {
                model.pods.get_mut(&uid).unwrap().restarts += 1;
            }
        }
        Op::Wait(ms) => model.now_ms += u64::from(ms),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// `check` looks at every plan on the way: no busy or unknown pod goes, no group outgrows
    /// its max, nothing is deleted before it is empty.
    #[test]
    fn whatever_happens_no_busy_or_unknown_pod_goes_and_no_group_outgrows_its_max(
        ops in prop::collection::vec(op(), 1..60)
    ) {
        let mut model = Model::new();
        for op in ops {
            happens(&mut model, op);
            model.pass();
        }
    }

    /// Once nothing happens any more, nothing is done any more.
    #[test]
    fn under_steady_demand_the_pods_come_to_rest(
        ops in prop::collection::vec(op(), 1..40),
        needs in prop::collection::vec(1..3u8, 0..8),
    ) {
        let mut model = Model::new();
        for op in ops {
            happens(&mut model, op);
            model.pass();
        }
        model.restart_with(groups());
        for pod in model.pods.values_mut() {
            pod.cordoned = false;
            pod.restarts = 0;
            pod.waits = None;
        }
        // Evicted pods go; the rest starts, works off what is placed, and waits.
        let gone: Vec<String> = model.pods.iter()
            .filter(|(_, pod)| pod.terminating).map(|(uid, _)| uid.clone()).collect();
        for uid in gone {
            model.pods.remove(&uid);
            model.demand.workers.remove(&uid);
        }
        let steady: Vec<Resources> = needs.iter().map(|need| cpus(f64::from(*need))).collect();
        let mut quiet = 0;
        for _ in 0..400 {
            place(&mut model, &steady);
            quiet = if model.after(1_000).pass().is_empty() { quiet + 1 } else { 0 };
            for pod in model.pods.values_mut() {
                if pod.stage == Stage::Unschedulable {
                    pod.stage = Stage::Pending;
                }
            }
            model.start_all();
            // Above every time-out but the one for a start, and no pod is starting.
            if quiet > 65 {
                return Ok(());
            }
        }
        prop_assert!(false, "it does not come to rest");
    }
}

/// The head's part: replicas go where there is room, the rest waits.
fn place(model: &mut Model, needs: &[Resources]) {
    let mut free: BTreeMap<String, Resources> = BTreeMap::new();
    for (uid, worker) in &mut model.demand.workers {
        worker.replicas = 0;
        if !worker.draining
            && worker.connected
            && let Some(group) = model
                .groups
                .iter()
                .find(|g| g.name == model.pods[uid].group)
        {
            free.insert(uid.clone(), group.template.resources.clone());
        }
    }
    model.demand.unplaced.clear();
    for need in needs {
        let room = free
            .iter_mut()
            .find(|(_, free)| free.has_room_for(need, free));
        match room {
            Some((uid, free)) => {
                free.take(need);
                model.demand.workers.get_mut(uid).unwrap().replicas += 1;
            }
            None => model.demand.unplaced.push(need.clone()),
        }
    }
}
