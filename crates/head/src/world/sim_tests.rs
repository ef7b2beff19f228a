//! Properties of the whole world under arbitrary events.

use std::sync::Arc;

use mobula_spec::Traffic;
use proptest::prelude::*;

use super::application_status::{AppState, status};
use super::fixtures::{V1, Version, config, told_apart};
use super::group::{self, Group};
use super::health::is_right;
use super::intent::Phase;
use super::observed::ReportedState;
use super::resources::CPU;
use super::sim::{BAD_CODE, Sim};
use super::{Event, Resources};

#[derive(Clone, Debug)]
enum Op {
    Deploy {
        code: u8,
        config: u8,
        target: u32,
        surge: u8,
        traffic: bool,
    },
    /// A router counts answers of a version; with rollback some of them may be errors.
    Answer {
        router: u8,
        code: u8,
        failed: bool,
    },
    DeployNothing,
    DeleteAll,
    Scale(u32),
    AddWorker {
        cpus: u8,
    },
    Kill(u8),
    Drain(u8),
    Cut(u8),
    Reconnect(u8),
    Report(u8),
    Assign(u8),
    Progress(u8),
    Afflict {
        worker: u8,
        replica: u8,
        failed: bool,
    },
    Recover {
        worker: u8,
        replica: u8,
    },
    AddRouter,
    LoseRouter(u8),
    Route(u8),
    Ack(u8),
    Head,
    /// All workers come a step further and report, and the head acts.
    Round,
    /// All routers take the table and say so.
    Serve,
    Wait(u16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0..3u8, 0..3u8, 0..4u32, 0..3u8, any::<bool>()).prop_map(
            |(code, config, target, surge, traffic)| Op::Deploy {
                code, config, target, surge, traffic,
            }
        ),
        2 => (any::<u8>(), 0..3u8, any::<bool>())
            .prop_map(|(router, code, failed)| Op::Answer { router, code, failed }),
        1 => Just(Op::DeployNothing),
        1 => Just(Op::DeleteAll),
        1 => (0..4u32).prop_map(Op::Scale),
        // Small ones, so that there is not always room for a surge.
        2 => (1..4u8).prop_map(|cpus| Op::AddWorker { cpus }),
        1 => any::<u8>().prop_map(Op::Kill),
        1 => any::<u8>().prop_map(Op::Drain),
        1 => any::<u8>().prop_map(Op::Cut),
        2 => any::<u8>().prop_map(Op::Reconnect),
        8 => any::<u8>().prop_map(Op::Report),
        8 => any::<u8>().prop_map(Op::Assign),
        8 => any::<u8>().prop_map(Op::Progress),
        2 => (any::<u8>(), 0..3u8, any::<bool>())
            .prop_map(|(worker, replica, failed)| Op::Afflict { worker, replica, failed }),
        1 => (any::<u8>(), 0..3u8).prop_map(|(worker, replica)| Op::Recover { worker, replica }),
        2 => Just(Op::AddRouter),
        1 => any::<u8>().prop_map(Op::LoseRouter),
        6 => any::<u8>().prop_map(Op::Route),
        6 => any::<u8>().prop_map(Op::Ack),
        8 => Just(Op::Head),
        20 => Just(Op::Round),
        3 => Just(Op::Serve),
        2 => (1..3000u16).prop_map(Op::Wait),
    ]
}

fn nth(names: impl Iterator<Item = String>, index: u8) -> Option<String> {
    let names: Vec<String> = names.collect();
    (!names.is_empty()).then(|| names[usize::from(index) % names.len()].clone())
}

fn version(code: u8, config: u8, target: u32, surge: u8) -> Version {
    Version {
        code: [BAD_CODE, "v1", "v2"][usize::from(code)],
        config: ["c0", "c1", "c2"][usize::from(config)],
        target,
        surge: [None, Some(0.0), Some(1.0)][usize::from(surge)],
        ..V1
    }
}

fn short_steps() -> Traffic {
    Traffic {
        steps: vec![30, 60],
        step_s: 0.2,
        requests_min: 20,
        ..Traffic::default()
    }
}

/// What replicas of each code are: another group is another code.
type Groups = [u8; 3];

fn groups() -> impl Strategy<Value = Groups> {
    prop_oneof![
        1 => Just([0, 0, 0]),
        1 => [0..5u8, 0..5u8, 0..5u8],
    ]
}

fn group(kind: u8) -> Group {
    let cpu = Resources::from_units([(CPU, 1.0)]);
    let bundles = vec![cpu.clone(), cpu];
    let plain = Group::default();
    match kind {
        1 => Group { bundles, ..plain },
        2 => Group {
            bundles,
            strategy: group::Strategy::StrictSpread,
            ..plain
        },
        3 => Group {
            gang_size: 2,
            ..plain
        },
        4 => Group {
            bundles,
            strategy: group::Strategy::Spread,
            gang_size: 2,
            ..plain
        },
        _ => plain,
    }
}

fn run(sim: &mut Sim, groups: Groups, op: &Op) {
    let worker = |sim: &Sim, index| nth(sim.workers.keys().cloned(), index).unwrap_or_default();
    let router = |sim: &Sim, index| nth(sim.routers.keys().cloned(), index).unwrap_or_default();
    match op {
        Op::Deploy {
            code,
            config: with,
            target,
            surge,
            traffic,
        } => {
            let version = version(*code, *with, *target, *surge);
            let mut app = told_apart("app", version);
            app.raw["traffic"] = (*traffic).into();
            if let Ok(built) = &mut app.built {
                let deployment = &mut built.deployments[0];
                deployment.traffic = traffic.then(short_steps);
                let group = group(groups[usize::from(*code)]);
                deployment.target = group.whole_gangs(deployment.target);
                Arc::make_mut(&mut deployment.replica).group = group;
            }
            let mut spec = config(vec![app]);
            spec.revision = sim.world.revision + 1;
            sim.observe(Event::Deploy(Box::new(spec)));
        }
        Op::Answer {
            router: index,
            code,
            failed,
        } => {
            let router = router(sim, *index);
            let version = version(*code, 0, 1, 0).code;
            let key = ("app".to_owned(), "D".to_owned(), version.to_owned());
            let said = sim.answers.entry(router.clone()).or_default();
            let said = said.entry(key).or_default();
            said.answers += 10;
            said.errors += u64::from(*failed && sim.rollback);
            sim.ack(&router);
        }
        Op::DeployNothing => sim.observe(Event::Deploy(Box::new(config(Vec::new())))),
        Op::DeleteAll => sim.observe(Event::DeleteAll),
        Op::Scale(target) => {
            let deployment = super::DeploymentId {
                application: "app".into(),
                deployment: "D".into(),
            };
            sim.observe(Event::Scale {
                deployment,
                target: *target,
            });
        }
        Op::AddWorker { cpus } if sim.workers.len() < 4 => {
            sim.add_worker(f64::from(*cpus));
        }
        Op::AddWorker { .. } => {}
        Op::Kill(index) => sim.kill(&worker(sim, *index)),
        Op::Drain(index) => {
            let id = worker(sim, *index);
            sim.workers
                .entry(id.clone())
                .and_modify(|worker| worker.draining = true);
            sim.report(&id);
        }
        Op::Cut(index) => {
            let id = worker(sim, *index);
            if let Some(worker) = sim.workers.get_mut(&id) {
                worker.connected = false;
                sim.observe(Event::WorkerDisconnected(id));
            }
        }
        Op::Reconnect(index) => {
            let id = worker(sim, *index);
            sim.workers
                .entry(id.clone())
                .and_modify(|worker| worker.connected = true);
            sim.report(&id);
        }
        Op::Report(index) => sim.report(&worker(sim, *index)),
        Op::Assign(index) => sim.assign(&worker(sim, *index)),
        Op::Progress(index) => sim.progress(&worker(sim, *index)),
        Op::Afflict {
            worker: index,
            replica,
            failed,
        } => {
            let state = if *failed {
                ReportedState::Failed
            } else {
                ReportedState::Unhealthy
            };
            sim.afflict(&worker(sim, *index), usize::from(*replica), state);
        }
        Op::Recover {
            worker: index,
            replica,
        } => {
            sim.afflict(
                &worker(sim, *index),
                usize::from(*replica),
                ReportedState::Running,
            );
        }
        Op::AddRouter if sim.routers.len() < 3 => drop(sim.add_router()),
        Op::AddRouter => {}
        Op::LoseRouter(index) => {
            let id = router(sim, *index);
            sim.routers.remove(&id);
            sim.observe(Event::RouterDisconnected(id));
        }
        Op::Route(index) => sim.route(&router(sim, *index)),
        Op::Ack(index) => sim.ack(&router(sim, *index)),
        Op::Head => drop(sim.head_step()),
        Op::Round => drop(sim.round()),
        Op::Serve => sim.serve(),
        Op::Wait(ms) => {
            // Below the limits of lost workers and stuck routers, which have their own tests.
            sim.now_ms += u64::from(*ms) % 200;
        }
    }
}

/// Ends all faults: whoever is cut reconnects, and a worker that stays exists.
fn end_faults(sim: &mut Sim) {
    let ids: Vec<String> = sim.workers.keys().cloned().collect();
    for id in ids {
        sim.workers
            .entry(id.clone())
            .and_modify(|worker| worker.connected = true);
        sim.report(&id);
    }
    // Two, for what may not be on one.
    sim.add_worker(16.0);
    sim.add_worker(16.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn with_rollback_a_config_that_ran_is_always_returned_to(
        groups in groups(),
        ops in prop::collection::vec(op(), 0..120),
    ) {
        let mut sim = Sim::new();
        sim.rollback = true;
        for op in &ops {
            run(&mut sim, groups, op);
        }
        end_faults(&mut sim);
        sim.settle();
        for (name, application) in &sim.world.applications {
            // Without replicas even what cannot start runs.
            let good = application.good.as_ref().filter(|good| {
                let built = good.spec.built.as_ref().expect("these can be built");
                built.deployments[0].replica.code_version != BAD_CODE
            });
            if good.is_some() {
                prop_assert!(application.runs(), "{name}: {application:#?}");
                let (state, message) = status(application);
                let taken_back = application.declared.taken_back.is_some();
                prop_assert_eq!(state == AppState::DeployFailed, taken_back, "{}", message);
            }
        }
    }

    #[test]
    fn after_faults_end_the_goal_is_reached(
        groups in groups(),
        ops in prop::collection::vec(op(), 0..120),
    ) {
        let mut sim = Sim::new();
        for op in &ops {
            run(&mut sim, groups, op);
        }
        end_faults(&mut sim);
        sim.settle();
        prop_assert!(!sim.world.shutting_down);
        for (name, application) in &sim.world.applications {
            prop_assert!(!application.deleting, "{name} is still there");
        }
        for (id, deployment) in sim.world.deployments() {
            let bad = deployment.spec.replica.code_version == BAD_CODE && deployment.target > 0;
            let (state, _) = status(&sim.world.applications[&id.application]);
            if bad {
                prop_assert!(deployment.starts.gave_up);
                // Ray's table: what fails while scaling is unhealthy, not failed to deploy.
                let shows = matches!(state, AppState::DeployFailed | AppState::Unhealthy);
                prop_assert!(shows, "{state:?}");
            } else {
                prop_assert!(is_right(&sim.world, deployment), "{:#?}", deployment);
                prop_assert_eq!(state, AppState::Running);
            }
        }
    }
}

#[test]
fn a_router_with_another_heads_table_is_not_taken_for_one_that_moved_on() {
    let mut sim = Sim::new();
    sim.add_worker(4.0);
    let router = sim.add_router();
    let declared = config(vec![told_apart("app", V1)]);
    sim.observe(Event::Deploy(Box::new(declared)));
    sim.settle();
    // The same replica, under a version of a head whose clock was ahead.
    let mut foreign = sim.routers[&router].clone();
    foreign.version += 1_000_000;
    sim.observe(Event::DeleteAll);
    sim.head_step();
    sim.routers.insert("other".to_owned(), foreign);
    sim.ack("other");
    sim.route(&router);
    sim.ack(&router);
    // It looks itself whether what is dropped is in the other router's table.
    sim.head_step();
    assert!(matches!(sim.phases()[0], Phase::Withdrawing { .. }));
    sim.settle();
    assert!(sim.world.applications.is_empty());
}
