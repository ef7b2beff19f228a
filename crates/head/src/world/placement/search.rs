//! Which worker each part of a unit goes to. The best worker for one part after the other; where
//! that leaves a part without room, other choices are tried, up to a limit.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::unit::{Part, Unit};
use super::{Free, Peers};
use crate::world::group::Strategy;
use crate::world::observed::Worker;
use crate::world::resources::{CPU, GPU, MEMORY};
use crate::world::{Resources, World};

/// Workers that are looked at for one unit once the first choice did not work out. Enough for
/// every choice in a small cluster; a large one, where something fits or does not at first
/// sight, must not be held up.
const LOOKS_MAX: usize = 200_000;

/// How well a worker suits; the smallest is taken. The order of the fields is the policy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score<'a> {
    /// Emptied workers are the last choice.
    is_emptied: bool,
    /// Machines with GPUs are kept for who needs them.
    wastes_gpus: bool,
    /// What the strategy asks for.
    layout: (usize, usize),
    /// The machine with the fewest of the same deployment.
    peers_on_node: usize,
    /// The worker with the fewest of the same deployment.
    peers_on_worker: usize,
    /// The one with the fewest GPUs left.
    gpus_left: u64,
    /// The fullest first.
    cpus_left: u64,
    /// Among equals the one with more replicas.
    replicas: Reverse<usize>,
    /// Any order, as long as it is always the same.
    worker: &'a str,
}

/// A worker for each part; None: not all have room at once.
pub fn find<'a>(
    free: &Free,
    world: &'a World,
    unit: &Unit<'_>,
    peers: &Peers,
) -> Option<Vec<&'a Worker>> {
    let mut search = Search::new(free, world, unit, peers);
    if unit.strategy == Strategy::StrictSpread {
        return search.match_nodes().into_iter().collect();
    }
    if unit.parts.len() > 1 && !search.may_fit() {
        return None;
    }
    search
        .descend(0)
        .then(|| search.workers().flatten().collect())
}

/// A worker for each part that has room beside those before it.
pub fn find_some<'a>(
    free: &Free,
    world: &'a World,
    unit: &Unit<'_>,
    peers: &Peers,
) -> Vec<Option<&'a Worker>> {
    let mut search = Search::new(free, world, unit, peers);
    if unit.strategy == Strategy::StrictSpread {
        return search.match_nodes();
    }
    for depth in 0..search.order.len() {
        let candidates = search.candidates(depth);
        let best = candidates.into_iter().min_by(|(a, _), (b, _)| a.cmp(b));
        if let Some((_, worker)) = best {
            search.put(depth, worker);
        }
    }
    search.workers().collect()
}

struct Search<'s, 'a> {
    free: &'s Free,
    world: &'a World,
    unit: &'s Unit<'s>,
    peers: &'s Peers,
    /// The parts, the largest first.
    order: Vec<usize>,
    /// By part.
    chosen: Vec<Option<&'a Worker>>,
    /// By worker, what the parts so far take from it, and how many they are.
    taken: BTreeMap<&'a str, (Resources, usize)>,
    /// Parts so far, by machine.
    on_nodes: BTreeMap<&'a str, usize>,
    looks_left: usize,
}

impl<'s, 'a> Search<'s, 'a> {
    fn new(free: &'s Free, world: &'a World, unit: &'s Unit<'s>, peers: &'s Peers) -> Self {
        let parts = &unit.parts;
        let mut order: Vec<usize> = (0..parts.len()).collect();
        let size = |index: &usize| {
            let need = &parts[*index].need;
            Reverse((need.parts(GPU), need.parts(CPU), need.total_parts()))
        };
        order.sort_by_key(size);
        let first_choice = 2 * parts.len() * world.workers.len();
        Search {
            free,
            world,
            unit,
            peers,
            order,
            chosen: vec![None; parts.len()],
            taken: BTreeMap::new(),
            on_nodes: BTreeMap::new(),
            looks_left: LOOKS_MAX.max(first_choice),
        }
    }

    fn workers(self) -> impl Iterator<Item = Option<&'a Worker>> {
        self.chosen.into_iter()
    }

    /// False: together the workers do not have what is needed, however it is divided.
    fn may_fit(&self) -> bool {
        let mut needed = Resources::default();
        let mut there = Resources::default();
        for part in &self.unit.parts {
            needed.add(&part.need);
        }
        for worker in self.world.workers.values().filter(|w| w.takes_replicas()) {
            there.add(self.free.on(worker));
        }
        needed
            .names()
            .all(|name| name == MEMORY || there.parts(name) >= needed.parts(name))
    }

    /// Places all parts from `depth` on, or leaves everything as it was.
    fn descend(&mut self, depth: usize) -> bool {
        if depth == self.order.len() {
            return true;
        }
        let mut candidates = self.candidates(depth);
        while let Some(best) = smallest(&candidates) {
            let (_, worker) = candidates.swap_remove(best);
            self.put(depth, worker);
            if self.descend(depth + 1) {
                return true;
            }
            self.take_back(depth, worker);
            if self.looks_left == 0 {
                return false;
            }
        }
        false
    }

    fn put(&mut self, depth: usize, worker: &'a Worker) {
        let part = self.order[depth];
        self.chosen[part] = Some(worker);
        let taken = self.taken.entry(&worker.id).or_default();
        taken.0.add(&self.unit.parts[part].need);
        taken.1 += 1;
        *self.on_nodes.entry(&worker.node_id).or_default() += 1;
    }

    fn take_back(&mut self, depth: usize, worker: &'a Worker) {
        let part = self.order[depth];
        self.chosen[part] = None;
        if let Some(taken) = self.taken.get_mut(worker.id.as_str()) {
            taken.0.take(&self.unit.parts[part].need);
            taken.1 -= 1;
        }
        if let Some(count) = self.on_nodes.get_mut(worker.node_id.as_str()) {
            *count -= 1;
        }
    }

    /// The workers with room for the part, beside the parts before it.
    fn candidates(&mut self, depth: usize) -> Vec<(Score<'a>, &'a Worker)> {
        let world = self.world;
        self.looks_left = self.looks_left.saturating_sub(world.workers.len());
        let workers = world.workers.values();
        workers
            .filter_map(|worker| Some((self.score(depth, worker)?, worker)))
            .collect()
    }

    /// None: no room.
    fn score(&self, depth: usize, worker: &'a Worker) -> Option<Score<'a>> {
        let part = &self.unit.parts[self.order[depth]];
        if !self.may_be_on(part, worker) {
            return None;
        }
        let taken = self.taken.get(worker.id.as_str());
        let taken = taken.filter(|(_, parts)| *parts > 0);
        let free = self.free.on(worker);
        let after = taken.map(|(taken, _)| {
            let mut left = free.clone();
            left.take(taken);
            left
        });
        let free = after.as_ref().unwrap_or(free);
        if !free.has_room_for(&part.need, &worker.capacity) {
            return None;
        }
        let used = taken.map_or(0, |(_, parts)| *parts);
        let mut score = score(self.world, self.unit, part, self.peers, worker, free);
        score.layout = match self.unit.strategy {
            Strategy::Pack if used > 0 => (0, 0),
            Strategy::Pack => (1, self.would_not_fit(depth, worker, free)),
            Strategy::Spread => {
                let on_node = self.on_nodes.get(worker.node_id.as_str());
                (on_node.copied().unwrap_or(0), used)
            }
            Strategy::StrictPack | Strategy::StrictSpread => (0, 0),
        };
        Some(score)
    }

    fn may_be_on(&self, part: &Part<'_>, worker: &Worker) -> bool {
        let spec = self.unit.spec;
        part.may_be_on(worker) && (!part.hosts || self.peers.node_has_room(worker, spec, 0))
    }

    /// Of the parts from `depth` on, those that would need another worker beside this one.
    fn would_not_fit(&self, depth: usize, worker: &Worker, free: &Resources) -> usize {
        if depth + 1 == self.order.len() {
            return 0;
        }
        let mut free = free.clone();
        let parts = self.order[depth..]
            .iter()
            .map(|part| &self.unit.parts[*part]);
        let mut outside = 0;
        for part in parts {
            if part.may_be_on(worker) && free.has_room_for(&part.need, &worker.capacity) {
                free.take(&part.need);
            } else {
                outside += 1;
            }
        }
        outside
    }

    // --- a machine each ---

    /// As many parts as can have a machine of their own, by augmenting paths.
    fn match_nodes(&mut self) -> Vec<Option<&'a Worker>> {
        let choices: Vec<Vec<&'a Worker>> = (0..self.order.len())
            .map(|depth| self.best_of_each_node(depth))
            .collect();
        let mut holders: BTreeMap<&'a str, (usize, &'a Worker)> = BTreeMap::new();
        for depth in 0..choices.len() {
            augment(depth, &choices, &mut holders, &mut BTreeSet::new());
        }
        for (depth, worker) in holders.into_values() {
            self.chosen[self.order[depth]] = Some(worker);
        }
        std::mem::take(&mut self.chosen)
    }

    fn best_of_each_node(&mut self, depth: usize) -> Vec<&'a Worker> {
        let mut candidates = self.candidates(depth);
        candidates.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut nodes = BTreeSet::new();
        let workers = candidates.into_iter().map(|(_, worker)| worker);
        workers
            .filter(|worker| nodes.insert(&worker.node_id))
            .collect()
    }
}

/// Gives the part a machine, if others can move to one that is free.
fn augment<'a>(
    depth: usize,
    choices: &[Vec<&'a Worker>],
    holders: &mut BTreeMap<&'a str, (usize, &'a Worker)>,
    seen: &mut BTreeSet<&'a str>,
) -> bool {
    for worker in &choices[depth] {
        let node = worker.node_id.as_str();
        if !seen.insert(node) {
            continue;
        }
        let holder = holders.get(node).map(|(holder, _)| *holder);
        if holder.is_none_or(|holder| augment(holder, choices, holders, seen)) {
            holders.insert(node, (depth, worker));
            return true;
        }
    }
    false
}

fn smallest(candidates: &[(Score<'_>, &Worker)]) -> Option<usize> {
    let indexed = candidates.iter().enumerate();
    let best = indexed.min_by(|(_, (one, _)), (_, (other, _))| one.cmp(other));
    best.map(|(index, _)| index)
}

/// What does not depend on the other parts.
pub fn score<'a>(
    world: &World,
    unit: &Unit<'_>,
    part: &Part<'_>,
    peers: &Peers,
    worker: &'a Worker,
    free: &Resources,
) -> Score<'a> {
    let need = &part.need;
    Score {
        is_emptied: world.compaction.empties(&worker.id),
        wastes_gpus: !unit.needs_gpus && worker.capacity.parts(GPU) > 0,
        layout: (0, 0),
        peers_on_node: peers.on_node(worker),
        peers_on_worker: peers.on_worker(worker),
        gpus_left: free.parts(GPU).saturating_sub(need.parts(GPU)),
        cpus_left: free.parts(CPU).saturating_sub(need.parts(CPU)),
        replicas: Reverse(worker.replicas.len()),
        worker: &worker.id,
    }
}
