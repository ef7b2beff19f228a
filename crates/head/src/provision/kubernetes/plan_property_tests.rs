//! The plan against the model of Kubernetes: whatever happens.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::groups::parse;
use super::model::{FILE, Model, cpus, groups};
use super::pods::Stage;
use crate::world::Resources;

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
