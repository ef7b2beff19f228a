//! From what routers report to the load of each deployment.

use std::collections::{BTreeMap, BTreeSet};

use super::super::observed::Router;
use super::super::{DeploymentId, Now, RouterId, World};
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

/// (application, deployment) -> (queued, ongoing)
type Loads = BTreeMap<(String, String), (u32, u32)>;

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
        let older = older.unwrap_or(&empty);
        let changed: BTreeSet<(String, String)> = fresh
            .iter()
            .filter(|(key, load)| older.get(*key) != Some(load))
            .map(|(key, _)| key)
            .chain(older.keys().filter(|key| !fresh.contains_key(*key)))
            .cloned()
            .collect();
        self.measure(changed, now);
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
        self.measure(changed, now);
    }

    /// Sums up the load of the named deployments and folds it in.
    fn measure(&mut self, names: BTreeSet<(String, String)>, now: Now) {
        for key in names {
            let load = self.load_of(&key);
            let (application, deployment) = key;
            let id = DeploymentId {
                application,
                deployment,
            };
            let Some(deployment) = self.deployment_mut(&id) else {
                continue;
            };
            if let Some(autoscaling) = &deployment.spec.autoscaling {
                let look_back_ms = autoscaling.look_back_ms;
                deployment
                    .autoscaler
                    .window
                    .push(now.ms, load, look_back_ms);
            }
        }
    }

    fn load_of(&self, key: &(String, String)) -> Load {
        let live = self.routers.values().map(|router| &router.loads);
        let departed = self.departed_routers.values().map(|router| &router.loads);
        let loads = live.chain(departed).filter_map(|loads| loads.get(key));
        loads.fold(Load::default(), |sum, (queued, ongoing)| Load {
            queued: sum.queued + u64::from(*queued),
            ongoing: sum.ongoing + u64::from(*ongoing),
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
        self.measure(names, now);
    }
}
