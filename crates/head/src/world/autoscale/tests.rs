//! Autoscaling in the simulated cluster: loads go up and down, replicas follow.

use proptest::prelude::*;

use super::super::application_status::{AppState, status};
use super::super::deployment_status::{State, Trigger};
use super::super::fixtures::{V1, Version, config, deployment, told_apart};
use super::super::intent::Deployment;
use super::super::sim::{BAD_CODE, Sim};
use super::super::spec::{Autoscaling, DeploySpec, Policy};
use super::super::{DeploymentId, Event, World};
use super::SHRINK_AFTER_MS;
use super::schedule::Schedule;

const STEP_MS: u64 = 100;

const V2: Version = Version { code: "v2", ..V1 };

/// Between 1 and 20 replicas, two requests each, up after 1 s and down after 3 s, over 500 ms.
fn quick() -> Autoscaling {
    Autoscaling {
        min_replicas: 1,
        max_replicas: 20,
        look_back_ms: 500,
        upscale_delay_ms: 1000,
        downscale_delay_ms: 3000,
        downscale_to_zero_delay_ms: 5000,
        ..Autoscaling::for_tests()
    }
}

fn autoscaled(
    version: Version,
    autoscaling: Option<Autoscaling>,
    capacity: Option<f64>,
) -> DeploySpec {
    let mut app = told_apart("app", version);
    app.raw["autoscaling"] = format!("{autoscaling:?}").into();
    if let Ok(built) = &mut app.built {
        let deployment = &mut built.deployments[0];
        let count = autoscaling.as_ref().map_or(version.target, |autoscaling| {
            autoscaling
                .initial_replicas
                .unwrap_or(autoscaling.min_replicas)
        });
        deployment.target = mobula_spec::scaled_count(count, capacity);
        deployment.autoscaling = autoscaling;
    }
    let mut spec = config(vec![app]);
    spec.serving.target_capacity = capacity;
    spec
}

struct Run {
    sim: Sim,
    router: String,
}

impl Run {
    /// A cluster with nothing deployed.
    fn empty() -> Run {
        let mut sim = Sim::new();
        sim.rollback = true;
        sim.add_worker(64.0);
        let router = sim.add_router();
        Run { sim, router }
    }

    fn new(autoscaling: Autoscaling) -> Run {
        let mut run = Run::empty();
        run.deploy(autoscaled(V1, Some(autoscaling), None));
        run.pass(SHRINK_AFTER_MS);
        run
    }

    fn deploy(&mut self, mut spec: DeploySpec) {
        spec.revision = self.sim.world.revision + 1;
        self.sim.observe(Event::Deploy(Box::new(spec)));
    }

    fn load(&mut self, queued: u32, ongoing: u32) {
        self.sim
            .loads
            .insert(self.router.clone(), (queued, ongoing));
    }

    /// Time passes, with everybody reporting; the counts on the way.
    fn pass(&mut self, ms: u64) -> Vec<u32> {
        let mut targets = Vec::new();
        for _ in 0..ms / STEP_MS {
            self.sim.now_ms += STEP_MS;
            self.sim.round();
            self.sim.serve();
            targets.push(self.target());
        }
        targets
    }

    fn deployment(&self) -> &Deployment {
        &self.sim.world.applications["app"].deployments["D"]
    }

    fn target(&self) -> u32 {
        self.deployment().target
    }

    fn status(&self) -> (State, Trigger) {
        let status = &self.deployment().status;
        (status.state, status.trigger)
    }

    fn app_state(&self) -> AppState {
        status(&self.sim.world.applications["app"]).0
    }
}

#[test]
fn a_step_of_load_is_followed_once_the_delay_has_passed_and_the_application_stays_running() {
    let mut run = Run::new(quick());
    assert_eq!(
        run.status(),
        (State::Healthy, Trigger::ConfigUpdateCompleted)
    );
    run.load(18, 2);
    // Reported after one step; the mean of 500 ms is complete after six.
    assert_eq!(run.pass(1000).last(), Some(&1));
    run.pass(200);
    assert_eq!(run.target(), 10);
    assert_eq!(run.status(), (State::Upscaling, Trigger::Autoscaling));
    assert_eq!(run.app_state(), AppState::Running);
    run.load(0, 20);
    run.pass(1000);
    assert_eq!(run.status(), (State::Healthy, Trigger::UpscaleCompleted));
    assert_eq!(run.deployment().replicas.len(), 10);

    run.load(0, 3);
    assert!(run.pass(2900).iter().all(|target| *target == 10));
    run.pass(1000);
    assert_eq!(run.target(), 2);
    run.pass(1000);
    assert_eq!(run.status(), (State::Healthy, Trigger::DownscaleCompleted));
}

#[test]
fn a_burst_shorter_than_the_delay_changes_nothing() {
    let mut run = Run::new(quick());
    run.load(40, 5);
    run.pass(400);
    run.load(0, 1);
    assert!(run.pass(10_000).iter().all(|target| *target == 1));
}

#[test]
fn the_last_replica_goes_in_a_step_of_its_own_and_the_first_request_brings_one_at_once() {
    let mut run = Run::new(Autoscaling {
        min_replicas: 0,
        ..quick()
    });
    run.load(0, 8);
    run.pass(2000);
    assert_eq!(run.target(), 4);
    run.load(0, 0);
    let mut counts = run.pass(15_000);
    counts.dedup();
    assert_eq!(counts, [4, 1, 0]);
    assert!(run.deployment().replicas.is_empty());
    assert_eq!(run.app_state(), AppState::Running);

    run.load(1, 0);
    run.pass(STEP_MS);
    run.pass(STEP_MS);
    assert_eq!(run.target(), 1);
    assert_eq!(run.deployment().replicas.len(), 1);
}

#[test]
fn the_loads_of_all_routers_count_and_that_of_a_departed_one_a_little_longer() {
    let mut run = Run::new(quick());
    let second = run.sim.add_router();
    run.load(0, 4);
    run.sim.loads.insert(second.clone(), (0, 8));
    run.pass(3000);
    assert_eq!(run.target(), 6);
    run.sim.routers.remove(&second);
    run.sim.observe(Event::RouterDisconnected(second));
    assert!(run.pass(5500).iter().all(|target| *target == 6));
    run.pass(2000);
    assert_eq!(run.target(), 2);
}

#[test]
fn a_head_that_has_just_started_shrinks_nothing_and_knows_nothing_without_a_router() {
    let mut sim = Sim::new();
    sim.add_worker(64.0);
    let mut spec = autoscaled(
        V1,
        Some(Autoscaling {
            downscale_delay_ms: 0,
            ..quick()
        }),
        None,
    );
    spec.revision = 1;
    sim.observe(Event::Deploy(Box::new(spec)));
    let id = DeploymentId {
        application: "app".to_owned(),
        deployment: "D".to_owned(),
    };
    // What the head before had decided.
    sim.observe(Event::Scale {
        deployment: id,
        target: 9,
    });
    let mut run = Run {
        sim,
        router: String::new(),
    };
    assert!(run.pass(20_000).iter().all(|target| *target == 9));
    let mut run = Run {
        router: run.sim.add_router(),
        ..run
    };
    run.load(0, 2);
    run.pass(1000);
    assert_eq!(run.target(), 1);
}

#[test]
fn a_bad_version_is_taken_back_while_the_load_moves_the_count() {
    let mut run = Run::new(quick());
    run.load(0, 8);
    run.pass(3000);
    assert_eq!(run.target(), 4);
    run.deploy(autoscaled(
        Version {
            code: BAD_CODE,
            ..V1
        },
        Some(quick()),
        None,
    ));
    run.load(12, 8);
    run.pass(20_000);
    assert_eq!(run.app_state(), AppState::DeployFailed);
    let message = status(&run.sim.world.applications["app"]).1;
    assert!(message.contains("rolled back to revision 1"), "{message}");
    assert_eq!(run.deployment().spec.replica.code_version, V1.code);
    assert_eq!(run.target(), 10);
    assert_eq!(run.deployment().status.state, State::Healthy);
}

#[test]
fn a_new_config_keeps_the_count_within_its_bounds_unless_it_names_an_initial_one() {
    let mut run = Run::new(quick());
    run.load(0, 16);
    run.pass(3000);
    assert_eq!(run.target(), 8);
    let deploy = |run: &mut Run, autoscaling: Option<Autoscaling>, target| {
        let version = Version { target, ..V1 };
        run.deploy(autoscaled(version, autoscaling, None));
        run.target()
    };
    let narrow = Autoscaling {
        max_replicas: 6,
        ..quick()
    };
    assert_eq!(deploy(&mut run, Some(narrow), 1), 6);
    let initial = Autoscaling {
        initial_replicas: Some(3),
        ..quick()
    };
    assert_eq!(deploy(&mut run, Some(initial.clone()), 1), 3);
    run.pass(3000);
    assert_eq!(run.target(), 8);
    // The same config again is no new one.
    assert_eq!(deploy(&mut run, Some(initial), 1), 8);
    // A count in the config is the count.
    assert_eq!(deploy(&mut run, None, 3), 3);
}

#[test]
fn while_capacity_rises_the_count_stays_at_the_initial_one_at_least() {
    let initial = Autoscaling {
        initial_replicas: Some(10),
        ..quick()
    };
    let mut run = Run::empty();
    let at = |run: &mut Run, capacity| {
        run.deploy(autoscaled(V1, Some(initial.clone()), capacity));
        run.load(0, 0);
        run.pass(10_000);
        run.target()
    };
    assert_eq!(at(&mut run, Some(20.0)), 2);
    assert_eq!(at(&mut run, Some(50.0)), 5);
    assert_eq!(at(&mut run, Some(100.0)), 10);
    // Going down, the least counts.
    assert_eq!(at(&mut run, Some(50.0)), 1);
    assert_eq!(at(&mut run, Some(0.0)), 0);
    assert_eq!(at(&mut run, None), 1);
}

#[test]
fn a_scheduled_minimum_holds_while_its_time_lasts() {
    // The clock of the simulation begins on a Tuesday at 22:13:20 UTC.
    let schedule = Schedule {
        entries: vec![mobula_spec::ScheduledMinimum {
            days: vec![1],
            from: 22 * 60 + 14,
            to: 22 * 60 + 15,
            min_replicas: 5,
        }],
        utc_offset_minutes: 0,
    };
    let mut run = Run::new(Autoscaling {
        schedule,
        ..quick()
    });
    run.load(0, 1);
    assert_eq!(run.pass(30_000).last(), Some(&1));
    run.pass(10_000);
    assert_eq!(run.target(), 5);
    let mut counts = run.pass(70_000);
    counts.dedup();
    assert_eq!(counts, [5, 1]);
}

/// How often the count turned round.
fn flaps(targets: &[u32]) -> usize {
    let mut moves: Vec<bool> = targets
        .windows(2)
        .filter(|pair| pair[0] != pair[1])
        .map(|pair| pair[1] > pair[0])
        .collect();
    moves.dedup();
    moves.len().saturating_sub(1)
}

/// Two deployments that share six replicas.
struct Sharing {
    sim: Sim,
    router: String,
    priorities: (i64, i64),
}

impl Sharing {
    fn with_priorities(first: i64, second: i64) -> Sharing {
        let mut sim = Sim::new();
        sim.add_worker(64.0);
        let router = sim.add_router();
        let mut both = Sharing {
            sim,
            router,
            priorities: (first, second),
        };
        both.deploy(V1);
        both
    }

    fn deploy(&mut self, version: Version) {
        let (first, second) = self.priorities;
        let mut spec = autoscaled(version, Some(quick()), None);
        if let Ok(built) = &mut spec.applications[0].built {
            let mut other = built.deployments[0].clone();
            other.name = "E".to_owned();
            other.replica = deployment(V1).replica;
            built.deployments.push(other);
            built.budget = Some(mobula_spec::Budget {
                max_replicas: Some(6),
                priorities: [("D".to_owned(), first), ("E".to_owned(), second)].into(),
                ..mobula_spec::Budget::default()
            });
        }
        spec.revision = 1;
        self.sim.observe(Event::Deploy(Box::new(spec)));
    }

    /// Time passes with so many requests in progress at each; their counts then.
    fn pass(&mut self, load: (u32, u32), ms: u64) -> (u32, u32) {
        let sim = &mut self.sim;
        for _ in 0..ms / STEP_MS {
            sim.now_ms += STEP_MS;
            sim.loads.insert(self.router.clone(), (0, load.0));
            sim.second_loads.insert(self.router.clone(), (0, load.1));
            sim.round();
            sim.serve();
        }
        let count = |name: &str| sim.world.applications["app"].deployments[name].target;
        (count("D"), count("E"))
    }
}

#[test]
fn deployments_of_one_application_share_its_budget_and_the_higher_priority_comes_first() {
    let mut both = Sharing::with_priorities(0, 5);
    assert_eq!(both.pass((2, 2), SHRINK_AFTER_MS + 3000), (1, 1));
    assert_eq!(both.pass((16, 2), 3000), (5, 1));
    // The second takes what it needs, the first what is left.
    assert_eq!(both.pass((16, 8), 3000), (2, 4));
    // It wants all of it, and the first keeps its minimum.
    assert_eq!(both.pass((16, 40), 3000), (1, 5));
    // What is given back after the delay goes to the first without another wish.
    assert_eq!(both.pass((16, 2), 6000), (5, 1));
    assert_eq!(both.pass((4, 2), 6000), (2, 1));
}

#[test]
fn a_rollout_gets_on_where_the_budget_is_full_and_nobody_grows_into_what_it_needs() {
    let mut both = Sharing::with_priorities(0, 0);
    both.pass((2, 2), SHRINK_AFTER_MS);
    assert_eq!(both.pass((16, 16), 5000), (3, 3));
    let live = |both: &Sharing| {
        let deployments = both.sim.world.deployments();
        let replicas = deployments.flat_map(|(_, d)| d.replicas.values());
        replicas.filter(|replica| replica.phase.is_live()).count()
    };
    let all_are = |both: &Sharing, code: &str| {
        let deployment = &both.sim.world.applications["app"].deployments["D"];
        let mut replicas = deployment.replicas.values();
        replicas.all(|replica| replica.spec.code_version == code)
    };
    // The budget is full, and a wave comes on top of it.
    both.deploy(V2);
    let mut most = 0;
    while !all_are(&both, "v2") {
        assert_eq!(both.pass((16, 16), STEP_MS), (3, 3));
        most = most.max(live(&both));
        assert!(both.sim.now_ms < 100_000, "the rollout does not get on");
    }
    assert_eq!(most, 7);
    // One is free, and the load of the second asks for it while the first is rolled out.
    assert_eq!(both.pass((6, 4), 10_000), (3, 2));
    both.deploy(V1);
    both.pass((6, 6), STEP_MS);
    while !all_are(&both, "v1") {
        assert!(live(&both) <= 6, "it grew into the wave");
        both.pass((6, 6), STEP_MS);
        assert!(both.sim.now_ms < 200_000, "the rollout does not get on");
    }
    assert_eq!(both.pass((6, 6), 3000), (3, 3));
}

#[test]
fn equals_share_a_budget_by_their_need_and_stay_where_they_are() {
    let mut both = Sharing::with_priorities(0, 0);
    both.pass((2, 2), SHRINK_AFTER_MS);
    assert_eq!(both.pass((16, 16), 5000), (3, 3));
    for _ in 0..20 {
        assert_eq!(both.pass((16, 16), 500), (3, 3));
    }
    assert_eq!(both.pass((16, 8), 6000), (4, 2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_the_load_the_count_stays_in_bounds_and_comes_to_rest(
        loads in proptest::collection::vec((0u32..60, 0u32..60, 1u64..30), 1..12),
        min in 0u32..4, max in 4u32..15, up in 0u64..2000, down in 0u64..4000,
        reactive in any::<bool>(),
    ) {
        let mut run = Run::new(Autoscaling {
            min_replicas: min,
            max_replicas: max,
            upscale_delay_ms: up,
            downscale_delay_ms: down,
            downscale_to_zero_delay_ms: down,
            policy: if reactive { Policy::Reactive } else { Policy::Default },
            ..quick()
        });
        for (queued, ongoing, steps) in loads {
            run.load(queued, ongoing);
            let targets = run.pass(steps * STEP_MS);
            prop_assert!(targets.iter().all(|target| (min..=max).contains(target)), "{targets:?}");
        }
        run.load(3, 10);
        run.pass(10_000);
        let targets = run.pass(5000);
        prop_assert_eq!(flaps(&targets), 0);
        prop_assert_eq!(run.target(), 7.clamp(min, max));
        prop_assert!(!is_moving(&run.sim.world));
    }
}

fn is_moving(world: &World) -> bool {
    world.is_in_progress()
}
