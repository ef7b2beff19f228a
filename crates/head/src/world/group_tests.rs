//! Placing bundles and gangs: pure, whole or not at all, never beyond what there is, and with an
//! explanation of what is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use insta::assert_snapshot;
use mobula_spec::LabelSelector;
use proptest::prelude::*;
use proptest::strategy::Strategy as Gives;

use super::fixtures::{V1, Version, deployment};
use super::group::{Group, Placed, Strategy};
use super::intent::Deployment;
use super::placement::{Free, Peers};
use super::reason::{Reason, Room};
use super::resources::{CPU, GPU};
use super::sim::{Sim, SimWorker};
use super::spec::DeploymentSpec;
use super::{Resources, World};

const DISK: &str = "disk";

/// CPUs, GPUs, disks.
type Amounts = [u32; 3];

#[derive(Clone, Debug)]
struct Machine {
    has: Amounts,
    node: u8,
    is_spot: bool,
}

#[derive(Clone, Debug)]
struct Asked {
    bundles: Vec<Amounts>,
    strategy: Strategy,
    gang_size: u32,
    spot: Option<bool>,
}

fn resources([cpus, gpus, disks]: Amounts) -> Resources {
    let named = [(CPU, cpus), (GPU, gpus), (DISK, disks)];
    Resources::from_units(named.map(|(name, units)| (name, f64::from(units))))
}

fn world<'a>(machines: impl Iterator<Item = (usize, &'a Machine)>) -> World {
    let mut sim = Sim::new();
    let mut all = BTreeMap::new();
    for (index, machine) in machines {
        let [cpus, gpus, disks] = machine.has.map(f64::from);
        let market = if machine.is_spot { "spot" } else { "owned" };
        let id = sim.join(SimWorker {
            cpus,
            gpus,
            custom: [(DISK.to_owned(), disks)].into(),
            node: Some(format!("node{}", machine.node)),
            labels: [("market".to_owned(), market.to_owned())].into(),
            ..SimWorker::default()
        });
        // Named by their place in the list, in whatever order they came.
        let mut worker = sim.world.workers.remove(&id).unwrap();
        worker.id = format!("w{index}");
        all.insert(worker.id.clone(), worker);
    }
    sim.world.workers = all;
    sim.world
}

fn spec(asked: &Asked) -> DeploymentSpec {
    let mut spec = deployment(Version {
        target: asked.gang_size,
        ..V1
    });
    let market = |spot: bool| if spot { "spot" } else { "!spot" };
    let selector = |spot| {
        let texts = [("market".to_owned(), market(spot).to_owned())];
        LabelSelector::of(&texts.into())
    };
    Arc::make_mut(&mut spec.replica).group = Group {
        bundles: asked.bundles.iter().copied().map(resources).collect(),
        labels: asked.spot.map(selector).into_iter().collect(),
        strategy: asked.strategy,
        gang_size: asked.gang_size,
    };
    spec
}

fn place(world: &World, spec: &DeploymentSpec) -> (Free, Option<Vec<Placed>>) {
    let mut free = Free::of(world);
    let placed = free.place(world, spec, &mut Peers::default());
    (free, placed)
}

fn amounts(most: u32) -> impl Gives<Value = Amounts> {
    [0..=most, 0..=1u32, 0..=1u32]
}

prop_compose! {
    fn machine()(has in [0..6u32, 0..3u32, 0..3u32], node in 0..4u8, is_spot in any::<bool>())
        -> Machine { Machine { has, node, is_spot } }
}

fn machines() -> impl Gives<Value = Vec<Machine>> {
    prop::collection::vec(machine(), 0..6)
}

prop_compose! {
    fn asked()(
        bundles in prop::collection::vec(
            amounts(3).prop_filter("some", |amounts| amounts.iter().any(|units| *units > 0)),
            1..4,
        ),
        strategy in prop_oneof![
            Just(Strategy::Pack),
            Just(Strategy::Spread),
            Just(Strategy::StrictPack),
            Just(Strategy::StrictSpread),
        ],
        gang_size in 1..3u32,
        spot in prop::option::weighted(0.3, any::<bool>()),
    ) -> Asked {
        let strict = matches!(strategy, Strategy::StrictPack | Strategy::StrictSpread);
        Asked { bundles, strategy, gang_size: if strict { 1 } else { gang_size }, spot }
    }
}

/// Whether there is any way at all, by trying all of them.
fn is_possible(machines: &[Machine], asked: &Asked) -> bool {
    let once = || asked.bundles.iter().copied();
    let all: Vec<Amounts> = (0..asked.gang_size).flat_map(|_| once()).collect();
    let allowed = |machine: &Machine| asked.spot.is_none_or(|spot| machine.is_spot == spot);
    let left = machines.iter().map(|machine| {
        let has = if allowed(machine) {
            machine.has
        } else {
            [0; 3]
        };
        (has, machine.node, allowed(machine))
    });
    fits(&all, &mut left.collect(), asked.strategy, &mut Vec::new())
}

fn fits(
    bundles: &[Amounts],
    left: &mut Vec<(Amounts, u8, bool)>,
    strategy: Strategy,
    used: &mut Vec<usize>,
) -> bool {
    let Some((first, rest)) = bundles.split_first() else {
        return true;
    };
    for index in 0..left.len() {
        let (has, node, allowed) = left[index];
        let elsewhere = match strategy {
            Strategy::Pack | Strategy::Spread => false,
            Strategy::StrictPack => used.first().is_some_and(|there| *there != index),
            Strategy::StrictSpread => used.iter().any(|there| left[*there].1 == node),
        };
        if !allowed || elsewhere || (0..3).any(|i| has[i] < first[i]) {
            continue;
        }
        for (left, taken) in left[index].0.iter_mut().zip(first) {
            *left -= taken;
        }
        used.push(index);
        if fits(rest, left, strategy, used) {
            return true;
        }
        used.pop();
        left[index].0 = has;
    }
    false
}

/// What is held on each worker.
fn held(spec: &DeploymentSpec, placed: &[Placed]) -> BTreeMap<String, Resources> {
    let mut held: BTreeMap<String, Resources> = BTreeMap::new();
    for replica in placed {
        let own = held.entry(replica.worker.clone()).or_default();
        own.add(spec.replica.hosted());
        for reservation in &replica.reserved {
            let there = held.entry(reservation.worker.clone()).or_default();
            there.add(&reservation.resources);
        }
    }
    held
}

fn nodes(world: &World, placed: &Placed) -> BTreeSet<String> {
    let others = placed
        .reserved
        .iter()
        .map(|reservation| &reservation.worker);
    let workers = others.chain([&placed.worker]);
    workers
        .map(|id| world.workers[id].node_id.clone())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_placed_fits_and_follows_its_strategy_and_its_labels(
        machines in machines(),
        asked in asked(),
    ) {
        let world = world(machines.iter().enumerate());
        let spec = spec(&asked);
        let Some(placed) = place(&world, &spec).1 else { return Ok(()) };
        prop_assert_eq!(placed.len(), asked.gang_size as usize, "all of it");
        let held = held(&spec, &placed);
        let mut sum = Resources::default();
        for (id, resources) in &held {
            let worker = &world.workers[id];
            prop_assert!(worker.capacity.has_room_for(resources, &worker.capacity));
            sum.add(resources);
            if let Some(spot) = asked.spot {
                prop_assert_eq!(worker.labels["market"] == "spot", spot);
            }
        }
        let mut needed = Resources::default();
        for _ in 0..asked.gang_size {
            spec.replica.bundles().iter().for_each(|bundle| needed.add(bundle));
        }
        prop_assert_eq!(sum, needed, "nothing is left out");
        for replica in &placed {
            match asked.strategy {
                Strategy::StrictPack => {
                    let elsewhere = replica.reserved.iter().any(|r| r.worker != replica.worker);
                    prop_assert!(!elsewhere);
                }
                Strategy::StrictSpread => {
                    prop_assert_eq!(nodes(&world, replica).len(), asked.bundles.len());
                }
                Strategy::Pack | Strategy::Spread => {}
            }
        }
    }

    #[test]
    fn it_is_placed_exactly_when_there_is_a_way(machines in machines(), asked in asked()) {
        let world = world(machines.iter().enumerate());
        let spec = spec(&asked);
        let before = Free::of(&world);
        let (after, placed) = place(&world, &spec);
        prop_assert_eq!(placed.is_some(), is_possible(&machines, &asked));
        if placed.is_none() {
            prop_assert_eq!(before, after, "nothing is taken by half");
        }
    }

    #[test]
    fn what_finds_no_room_says_what_is_missing_and_how_much(
        machines in machines(),
        asked in asked(),
    ) {
        let world = world(machines.iter().enumerate());
        let spec = spec(&asked);
        let (free, placed) = place(&world, &spec);
        if placed.is_some() {
            return Ok(());
        }
        let mut shortage = super::supply::Shortage::default();
        free.shortage(&world, &spec, &Peers::default(), 1, &mut shortage);
        prop_assert!(!shortage.is_empty(), "a provisioner is asked for something");
        let text = free.waiting(&world, &Deployment::new(spec.clone()), &Peers::default(), 0);
        let Reason::Waiting { room, fits, .. } = &text else { panic!("{text}") };
        if let Some(fits) = fits {
            prop_assert!(fits.parts < fits.of, "{text}");
        }
        match room {
            Room::NoWorkers => prop_assert!(machines.is_empty()),
            Room::NoneWithLabels { workers, labels } => {
                prop_assert_eq!(*workers, machines.len());
                prop_assert!(labels.starts_with("market="));
                prop_assert!(machines.iter().all(|m| Some(m.is_spot) != asked.spot));
            }
            Room::NodesFull { .. } => panic!("there is no limit per node"),
            Room::NoOtherNode { .. } => prop_assert_eq!(asked.strategy, Strategy::StrictSpread),
            Room::Nearest { lacks, .. } => {
                prop_assert!(!lacks.is_empty(), "{text}");
                for (name, units) in lacks.iter() {
                    let words = format!("{units} {name}");
                    prop_assert!(text.to_string().contains(&words), "{text} without {words}");
                }
            }
        }
    }

    #[test]
    fn the_order_in_which_workers_came_does_not_matter(
        machines in machines(),
        asked in asked(),
    ) {
        let spec = spec(&asked);
        let one = world(machines.iter().enumerate());
        let other = world(machines.iter().enumerate().rev());
        prop_assert_eq!(place(&one, &spec), place(&other, &spec));
        prop_assert_eq!(place(&one, &spec), place(&one, &spec));
    }

    #[test]
    fn packed_bundles_share_a_worker_where_one_has_room_for_all_and_spread_ones_do_not(
        machines in machines(),
        asked in asked(),
    ) {
        let world = world(machines.iter().enumerate());
        let packed = Asked { strategy: Strategy::Pack, gang_size: 1, ..asked.clone() };
        let together = Asked { strategy: Strategy::StrictPack, ..packed.clone() };
        let apart = Asked { strategy: Strategy::StrictSpread, ..packed.clone() };
        let spread = Asked { strategy: Strategy::Spread, ..packed.clone() };
        // Machines with GPUs are kept free even where bundles would share them.
        let needs_gpus = packed.bundles.iter().any(|[_, gpus, _]| *gpus > 0);
        if needs_gpus && is_possible(&machines, &together) {
            let placed = place(&world, &spec(&packed)).1.unwrap();
            prop_assert!(placed[0].reserved.iter().all(|r| r.worker == placed[0].worker));
        }
        let alike = packed.bundles.iter().all(|bundle| *bundle == packed.bundles[0]);
        if needs_gpus && alike && is_possible(&machines, &apart) {
            let placed = place(&world, &spec(&spread)).1.unwrap();
            prop_assert_eq!(nodes(&world, &placed[0]).len(), packed.bundles.len());
        }
    }
}

fn machine_of(has: Amounts, node: u8) -> Machine {
    Machine {
        has,
        node,
        is_spot: false,
    }
}

fn said(machines: &[Machine], asked: &Asked) -> String {
    let world = world(machines.iter().enumerate());
    let spec = spec(asked);
    let free = Free::of(&world);
    let deployment = Deployment::new(spec);
    free.waiting(&world, &deployment, &Peers::default(), 0)
        .to_string()
}

#[test]
fn messages_name_the_bundle_that_has_no_room() {
    let asked = Asked {
        bundles: vec![[2, 1, 0], [2, 0, 0]],
        strategy: Strategy::Pack,
        gang_size: 1,
        spot: None,
    };
    let machines = [machine_of([3, 1, 0], 0), machine_of([1, 0, 0], 1)];
    assert_snapshot!(said(&machines, &asked), @"waiting: 0 of 1 replicas placed; needs 2 CPU, 1 GPU + 2 CPU at once (PACK), 1 of 2 bundles fit, for 2 CPU: 1 CPU free on the nearest of 2 worker(s), 1 CPU short");
    let together = Asked {
        strategy: Strategy::StrictPack,
        ..asked.clone()
    };
    assert_snapshot!(said(&machines, &together), @"waiting: 0 of 1 replicas placed; needs 2 CPU, 1 GPU + 2 CPU at once (STRICT_PACK), 3 CPU, 1 GPU free on the nearest of 2 worker(s), 1 CPU short");
    let apart = Asked {
        strategy: Strategy::StrictSpread,
        ..asked.clone()
    };
    let one_node = [machine_of([3, 1, 0], 0), machine_of([3, 0, 0], 0)];
    assert_snapshot!(said(&one_node, &apart), @"waiting: 0 of 1 replicas placed; needs 2 CPU, 1 GPU + 2 CPU at once (STRICT_SPREAD), 1 of 2 bundles fit, for 2 CPU: all 1 node(s) where it may be have one of its bundles");
    let gang = Asked {
        bundles: vec![[2, 0, 0]],
        gang_size: 2,
        ..asked
    };
    assert_snapshot!(said(&machines, &gang), @"waiting: 0 of 2 replicas placed; needs 2 CPU for each of 2 replicas at once (PACK), 1 of 2 bundles fit, for 2 CPU: 1 CPU free on the nearest of 2 worker(s), 1 CPU short");
    let disks = Asked {
        bundles: vec![[1, 0, 1]],
        gang_size: 1,
        ..gang
    };
    assert_snapshot!(said(&machines, &disks), @"waiting: 0 of 1 replicas placed; needs 1 CPU, 1 disk, 3 CPU free on the nearest of 2 worker(s), 1 disk short");
}
