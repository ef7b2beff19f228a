//! From what routers report to the load of each deployment.

use std::collections::{BTreeMap, BTreeSet};

use super::super::observed::{Router, RouterLoad};
use super::super::{DeploymentId, Now, RouterId, World};
use super::flow::{Counts, Piece};
use super::window::Load;

/// A router whose session ended may serve on and come back in a moment: its load counts for
/// this long.
pub const DEPARTED_ROUTER_MS_MAX: u64 = 3_000;

/// What a router carried when its session ended.
#[derive(Clone, Debug, PartialEq)]
pub struct DepartedRouter {
    since_ms: u64,
    loads: Loads,
}

/// (application, deployment)
type Key = (String, String);
type Loads = BTreeMap<Key, RouterLoad>;

/// What one router says has passed through since it said so last.
#[derive(Default)]
struct Passed {
    counts: BTreeMap<Key, Counts>,
    /// When that was.
    said_ms: u64,
    /// It had no session since.
    was_away: bool,
}

// === impl World ===

impl World {
    /// A router has reported: its loads count, and what it carried before does not any more.
    pub(in super::super) fn loads_reported(
        &mut self,
        before: Option<&Router>,
        id: &RouterId,
        now: Now,
    ) {
        let departed = self.departed_routers.remove(id);
        let fresh = self.routers.get(id).map(|router| &router.loads);
        let empty = Loads::new();
        let fresh = fresh.unwrap_or(&empty);
        let older = before.map(|router| &router.loads);
        let older = older.or(departed.as_ref().map(|departed| &departed.loads));
        let passed = Passed {
            // Of a router that was not known, nobody knows since when it counts.
            counts: older.map(|older| counts(older, fresh)).unwrap_or_default(),
            said_ms: match (&departed, before) {
                (Some(departed), _) => departed.since_ms,
                (None, Some(before)) => before.heard_ms,
                (None, None) => now.ms,
            },
            was_away: departed.is_some(),
        };
        let changed = changed(older.unwrap_or(&empty), fresh).cloned().collect();
        self.measure(changed, &passed, now);
    }

    /// Whether a router's new loads say something of a deployment that is autoscaled: nobody asks
    /// for those of the others.
    pub(in super::super) fn matters(&self, before: &Loads, fresh: &Loads) -> bool {
        let is_autoscaled = |(application, deployment): &Key| {
            let application = self.applications.get(application);
            let deployment = application.and_then(|found| found.deployments.get(deployment));
            deployment.is_some_and(|deployment| deployment.spec.autoscaling.is_some())
        };
        changed(before, fresh).any(is_autoscaled)
    }

    /// The session of a router ended.
    pub(in super::super) fn loads_departed(&mut self, router: Router, now: Now) {
        let departed = DepartedRouter {
            since_ms: now.ms,
            loads: router.loads,
        };
        self.departed_routers.insert(router.id, departed);
    }

    pub(super) fn forget_departed_routers(&mut self, now: Now) {
        let gone = self.departed_routers.extract_if(.., |_, departed| {
            now.ms.saturating_sub(departed.since_ms) >= DEPARTED_ROUTER_MS_MAX
        });
        let changed = gone.flat_map(|(_, departed)| departed.loads.into_keys());
        let changed: BTreeSet<_> = changed.collect();
        self.measure(changed, &Passed::default(), now);
    }

    /// Sums up the load of the named deployments and folds it in.
    fn measure(&mut self, names: BTreeSet<Key>, passed: &Passed, now: Now) {
        for key in names {
            let (load, all_count) = self.load_of(&key);
            let counts = passed.counts.get(&key).copied().unwrap_or_default();
            let (application, deployment) = key;
            let id = DeploymentId {
                application,
                deployment,
            };
            let Some(deployment) = self.deployment_mut(&id) else {
                continue;
            };
            if let Some(autoscaling) = &deployment.spec.autoscaling {
                let passed = all_count.then(|| passed.piece(counts, now.ms));
                let scaler = &mut deployment.autoscaler;
                scaler.measure(autoscaling, load, passed, now.ms);
            }
        }
    }

    /// The sum over all routers, and whether each of them counts what passes through.
    fn load_of(&self, key: &Key) -> (Load, bool) {
        let live = self.routers.values().map(|router| &router.loads);
        let departed = self.departed_routers.values().map(|router| &router.loads);
        let loads = live.chain(departed).filter_map(|loads| loads.get(key));
        loads.fold((Load::default(), true), |(sum, all_count), load| {
            let sum = Load {
                queued: sum.queued + u64::from(load.queued),
                ongoing: sum.ongoing + u64::from(load.ongoing),
            };
            (sum, all_count && load.counts.is_some())
        })
    }

    /// A deployment that begins to be autoscaled knows the load of now.
    pub(in super::super) fn measure_newcomers(&mut self, now: Now) {
        let newcomers = self.deployments().filter(|(_, deployment)| {
            deployment.spec.autoscaling.is_some() && deployment.autoscaler.window.newest().is_none()
        });
        let names: BTreeSet<_> = newcomers
            .map(|(id, _)| (id.application, id.deployment))
            .filter(|key| {
                self.routers
                    .values()
                    .any(|router| router.loads.contains_key(key))
            })
            .collect();
        self.measure(names, &Passed::default(), now);
    }
}

impl Passed {
    fn piece(&self, counts: Counts, now_ms: u64) -> Piece {
        if self.was_away {
            Piece::after_silence(self.said_ms, now_ms, counts)
        } else {
            Piece::between_reports(self.said_ms, now_ms, counts)
        }
    }
}

fn counts(before: &Loads, fresh: &Loads) -> BTreeMap<Key, Counts> {
    let of = |load: Option<&RouterLoad>| load.and_then(|load| load.counts);
    let passed = fresh.iter().filter_map(|(key, load)| {
        let before = of(before.get(key)).unwrap_or_default();
        Some((key.clone(), of(Some(load))?.since(before)))
    });
    passed.collect()
}

fn changed<'a>(before: &'a Loads, fresh: &'a Loads) -> impl Iterator<Item = &'a Key> {
    let newer = fresh
        .iter()
        .filter(|(key, load)| before.get(*key) != Some(load));
    let gone = before.keys().filter(|key| !fresh.contains_key(*key));
    newer.map(|(key, _)| key).chain(gone)
}
