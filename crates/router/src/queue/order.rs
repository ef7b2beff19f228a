//! The order in which requests that wait are started, where a deployment asks for another one
//! than that in which they came: by class, and within a class fairly between tenants. Pure.
//!
//! Of two classes that wait the higher one goes first, but nobody starves: a class that was
//! passed over [`PASSED_OVER_MAX`] times in a row is next. The tenants of a class take turns
//! (deficit round robin; all requests cost the same): in its turn a tenant starts as many
//! requests as its weight says, in the order in which they came.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Seq;
use super::affinity::hash;
use crate::limits::PASSED_OVER_MAX;

/// Where a request belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// 0 goes first.
    pub class: u8,
    /// Whose it is.
    pub tenant: Tenant,
    /// Requests of the tenant per turn; at least 1.
    pub weight: u32,
}

/// Whose a request is. Two names that come to the same number share their turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tenant(u64);

/// Those who wait.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Started before and refused by a replica: ahead of all.
    again: BTreeSet<Seq>,
    classes: BTreeMap<u8, Class>,
}

/// One class; there is one as long as somebody of it waits.
#[derive(Debug, Default)]
struct Class {
    /// Those whose turn it is, and will be.
    turns: VecDeque<Tenant>,
    tenants: BTreeMap<Tenant, Line>,
    passed_over: u32,
}

/// The requests of one tenant.
#[derive(Debug, Default)]
struct Line {
    waiting: BTreeSet<Seq>,
    weight: u32,
    /// How many may still start in this turn.
    left: u32,
}

// === impl Rank ===

impl Default for Rank {
    fn default() -> Self {
        Rank {
            class: 0,
            tenant: Tenant::default(),
            weight: 1,
        }
    }
}

// === impl Tenant ===

impl Tenant {
    /// The tenant of that name; an empty one is a tenant too, that of all who name none.
    pub fn named(name: &str) -> Tenant {
        Tenant(hash(name))
    }
}

// === impl Order ===

impl Order {
    /// A request waits. Without rank: it was started before.
    pub fn join(&mut self, seq: Seq, rank: Option<Rank>) {
        match rank {
            Some(rank) => self.classes.entry(rank.class).or_default().join(seq, rank),
            None => drop(self.again.insert(seq)),
        }
    }

    /// It does not wait any more, and was not started.
    pub fn leave(&mut self, seq: Seq, rank: Option<Rank>) {
        self.remove(seq, rank, Class::leave);
    }

    /// It was started: that was its tenant's turn, and others were passed over.
    pub fn start(&mut self, seq: Seq, rank: Option<Rank>) {
        self.remove(seq, rank, Class::start);
        let Some(rank) = rank else { return };
        for (class, line) in &mut self.classes {
            if *class > rank.class {
                line.passed_over = line.passed_over.saturating_add(1);
            } else if *class == rank.class {
                line.passed_over = 0;
            }
        }
    }

    /// Who starts next, of those who may.
    pub fn next(&self, may: impl Fn(Seq) -> bool) -> Option<Seq> {
        if let Some(seq) = self.again.iter().find(|seq| may(**seq)) {
            return Some(*seq);
        }
        let overdue = self
            .classes
            .values()
            .filter(|c| c.passed_over >= PASSED_OVER_MAX);
        // Of two that are overdue the one that waits longer.
        let first = overdue.max_by_key(|class| class.passed_over);
        let classes = first.into_iter().chain(self.classes.values());
        classes.into_iter().find_map(|class| class.next(&may))
    }

    /// The last one of whoever has the most waiting, if a request of this rank has the better
    /// claim: its class is higher, or its tenant would still have less.
    pub fn last_of_most(&self, rank: Rank) -> Option<Seq> {
        let (number, class) = self.classes.last_key_value()?;
        if *number < rank.class {
            return None;
        }
        let (most, line) = class
            .tenants
            .iter()
            .max_by_key(|(_, line)| line.waiting.len())?;
        let own = class.tenants.get(&rank.tenant);
        let own = own.map_or(0, |line| line.waiting.len());
        let is_fairer =
            *number > rank.class || (*most != rank.tenant && own + 1 < line.waiting.len());
        is_fairer.then(|| line.waiting.last().copied())?
    }

    fn remove(&mut self, seq: Seq, rank: Option<Rank>, how: impl Fn(&mut Class, Seq, Tenant)) {
        let Some(rank) = rank else {
            self.again.remove(&seq);
            return;
        };
        if let Some(class) = self.classes.get_mut(&rank.class) {
            how(class, seq, rank.tenant);
            if class.tenants.is_empty() {
                self.classes.remove(&rank.class);
            }
        }
    }
}

// === impl Class ===

impl Class {
    fn join(&mut self, seq: Seq, rank: Rank) {
        let line = self.tenants.entry(rank.tenant).or_default();
        line.weight = rank.weight.max(1);
        if line.waiting.is_empty() {
            line.left = line.weight;
            self.turns.push_back(rank.tenant);
        }
        line.waiting.insert(seq);
    }

    fn leave(&mut self, seq: Seq, tenant: Tenant) {
        let Some(line) = self.tenants.get_mut(&tenant) else {
            return;
        };
        line.waiting.remove(&seq);
        if line.waiting.is_empty() {
            self.tenants.remove(&tenant);
            self.turns.retain(|other| *other != tenant);
        }
    }

    fn start(&mut self, seq: Seq, tenant: Tenant) {
        if let Some(line) = self.tenants.get_mut(&tenant) {
            line.left = line.left.saturating_sub(1);
            if line.left == 0 {
                line.left = line.weight;
                self.turns.retain(|other| *other != tenant);
                self.turns.push_back(tenant);
            }
        }
        self.leave(seq, tenant);
    }

    fn next(&self, may: impl Fn(Seq) -> bool) -> Option<Seq> {
        let lines = self
            .turns
            .iter()
            .filter_map(|tenant| self.tenants.get(tenant));
        let mut firsts = lines.filter_map(|line| line.waiting.iter().find(|seq| may(**seq)));
        firsts.next().copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rank(class: u8, tenant: &str, weight: u32) -> Option<Rank> {
        Some(Rank {
            class,
            tenant: Tenant::named(tenant),
            weight,
        })
    }

    /// Starts so many and says whose they were.
    fn run(
        order: &mut Order,
        of: &BTreeMap<Seq, (Option<Rank>, &'static str)>,
    ) -> Vec<&'static str> {
        let mut started = Vec::new();
        while let Some(seq) = order.next(|_| true) {
            let (rank, name) = of[&seq];
            order.start(seq, rank);
            started.push(name);
        }
        started
    }

    fn all(
        requests: &[(u8, &'static str, u32)],
    ) -> (Order, BTreeMap<Seq, (Option<Rank>, &'static str)>) {
        let mut order = Order::default();
        let mut of = BTreeMap::new();
        for (seq, (class, tenant, weight)) in (0..).zip(requests) {
            let rank = rank(*class, tenant, *weight);
            order.join(seq, rank);
            of.insert(seq, (rank, *tenant));
        }
        (order, of)
    }

    #[test]
    fn a_tenant_with_many_requests_does_not_keep_one_with_few_waiting() {
        let mut requests = vec![(0, "many", 1); 6];
        requests.extend([(0, "few", 1), (0, "few", 1), (0, "one", 1)]);
        let (mut order, of) = all(&requests);
        let wanted = [
            "many", "few", "one", "many", "few", "many", "many", "many", "many",
        ];
        assert_eq!(run(&mut order, &of), wanted);
    }

    #[test]
    fn a_tenant_with_a_weight_gets_so_many_in_its_turn() {
        let mut requests = vec![(0, "heavy", 3); 6];
        requests.extend([(0, "light", 1); 2]);
        let (mut order, of) = all(&requests);
        let wanted = [
            "heavy", "heavy", "heavy", "light", "heavy", "heavy", "heavy", "light",
        ];
        assert_eq!(run(&mut order, &of), wanted);
    }

    #[test]
    fn a_higher_class_goes_first_and_a_lower_one_is_not_passed_over_for_ever() {
        let mut requests = vec![(1, "low", 1); 2];
        requests.extend([(0, "high", 1); 20]);
        let (mut order, of) = all(&requests);
        let started = run(&mut order, &of);
        let max = PASSED_OVER_MAX as usize;
        let low: Vec<usize> = (0..started.len())
            .filter(|n| started[*n] == "low")
            .collect();
        assert_eq!(low, [max, 2 * max + 1]);
    }

    #[test]
    fn one_that_was_started_before_is_ahead_of_all() {
        let (mut order, _) = all(&[(0, "a", 1), (0, "b", 1)]);
        order.join(99, None);
        assert_eq!(order.next(|_| true), Some(99));
        order.start(99, None);
        assert_eq!(order.next(|seq| seq != 0), Some(1));
    }

    proptest! {
        /// Whatever comes and goes: who waits is started before many others are.
        #[test]
        fn nobody_starves(
            events in proptest::collection::vec((0u8..3, 0u8..4, 1u32..4, 0u8..3), 1..300),
        ) {
            const CLASSES: u32 = 3;
            const TENANTS: u32 = 4;
            const WEIGHT_MAX: u32 = 3;
            // In its class everybody else gets a turn between two of one's own; a class is passed
            // over so often, and once more for each other one that is overdue as well.
            let turn = TENANTS * WEIGHT_MAX;
            let bound = (turn + 1) * (PASSED_OVER_MAX + CLASSES);
            let mut order = Order::default();
            // Each line's own requests are started one after the other.
            let mut waiting: BTreeMap<Seq, (Rank, u32)> = BTreeMap::new();
            for (seq, (class, tenant, weight, starts)) in (0..).zip(events) {
                let rank = Rank { class, tenant: Tenant(tenant.into()), weight };
                order.join(seq, Some(rank));
                waiting.insert(seq, (rank, 0));
                for _ in 0..starts {
                    let Some(next) = order.next(|_| true) else { break };
                    let (rank, _) = waiting.remove(&next).expect("it waits");
                    order.start(next, Some(rank));
                    let mut firsts = BTreeSet::new();
                    for (other, waited) in waiting.values_mut() {
                        let key = (other.class, other.tenant);
                        // Only the first of a line waits for others; the rest wait for it.
                        if firsts.insert(key) && key != (rank.class, rank.tenant) {
                            *waited += 1;
                            prop_assert!(*waited <= bound, "{waited} others were started");
                        }
                    }
                }
            }
            while let Some(next) = order.next(|_| true) {
                let (rank, _) = waiting.remove(&next).expect("it waits");
                order.start(next, Some(rank));
            }
            prop_assert!(waiting.is_empty(), "all were started");
            prop_assert!(order.classes.is_empty() && order.again.is_empty());
        }

        /// Over any stretch in which two tenants of one class wait all the time, each gets the
        /// share of its weight, to within a turn.
        #[test]
        fn shares_follow_the_weights(one in 1u32..6, other in 1u32..6, turns in 1u32..10) {
            let mut order = Order::default();
            let ranks = [rank(0, "one", one), rank(0, "other", other)];
            let count = turns * (one + other);
            for seq in 0..u64::from(2 * count) {
                order.join(seq, ranks[(seq % 2) as usize]);
            }
            let mut got = [0u32; 2];
            for _ in 0..count {
                let seq = order.next(|_| true).expect("enough wait");
                got[(seq % 2) as usize] += 1;
                order.start(seq, ranks[(seq % 2) as usize]);
            }
            prop_assert_eq!(got, [turns * one, turns * other]);
        }

        #[test]
        fn those_who_leave_are_never_started(
            requests in proptest::collection::vec((0u8..3, 0u8..4, any::<bool>()), 1..60),
        ) {
            let mut order = Order::default();
            let rank = |class, tenant: u8| Some(Rank { class, tenant: Tenant(tenant.into()), weight: 2 });
            for (seq, (class, tenant, _)) in (0..).zip(&requests) {
                order.join(seq, rank(*class, *tenant));
            }
            for (seq, (class, tenant, leaves)) in (0..).zip(&requests) {
                if *leaves {
                    order.leave(seq, rank(*class, *tenant));
                }
            }
            let mut started = BTreeSet::new();
            while let Some(seq) = order.next(|_| true) {
                let (class, tenant, _) = requests[usize::try_from(seq).unwrap()];
                order.start(seq, rank(class, tenant));
                started.insert(seq);
            }
            let stayed: BTreeSet<Seq> = (0..).zip(&requests).filter(|(_, r)| !r.2).map(|(seq, _)| seq).collect();
            prop_assert_eq!(started, stayed);
        }
    }
}
