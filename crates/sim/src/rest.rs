//! Whether the cluster has come to rest: everything that was declared runs, nobody waits, and
//! everybody knows the same.

use std::collections::BTreeMap;

use mobula_head::world::World;
use mobula_head::world::intent::Phase;
use mobula_worker::simulation::Phase as Life;
use serde_json::Value;

use crate::cluster::{Cluster, HEADS, Target};

impl Cluster {
    /// Remembers when each count changed.
    pub fn watch_targets(&mut self, h: usize) {
        let now = self.queue.now();
        let Some(lead) = self.heads[h].lead.as_ref() else {
            return;
        };
        let mut more = 0;
        for (id, deployment) in lead.control.world.deployments() {
            let count = deployment.target;
            let entry = self.targets.entry(id.to_string());
            let entry = entry.or_insert(Target {
                count,
                since: now,
                count_before: count,
                since_before: 0,
            });
            if entry.count != count {
                more += count.saturating_sub(entry.count);
                *entry = Target {
                    count,
                    since: now,
                    count_before: entry.count,
                    since_before: entry.since,
                };
            }
        }
        self.more_may_start(more);
    }

    /// None: it has; otherwise what is still under way.
    pub fn unrest(&self) -> Option<String> {
        self.unsettled().or_else(|| {
            let lead = self.heads.iter().find_map(|head| head.lead.as_ref())?;
            let world = &lead.control.world;
            self.worker_unrest(world)
                .or_else(|| self.router_unrest(world))
                .or_else(|| self.pod_unrest(world))
        })
    }

    /// Everything that was declared runs, whatever the load is.
    pub fn is_settled(&self) -> bool {
        self.unsettled().is_none()
    }

    fn unsettled(&self) -> Option<String> {
        let leading: Vec<usize> = (0..HEADS).filter(|h| self.heads[*h].leads()).collect();
        let [h] = leading.as_slice() else {
            return Some(format!("{} heads lead", leading.len()));
        };
        let Some(lead) = self.heads[*h].lead.as_ref() else {
            return Some("nobody leads".to_owned());
        };
        let world = &lead.control.world;
        self.config_unrest(world)
            .or_else(|| deployment_unrest(world))
    }

    fn config_unrest(&self, world: &World) -> Option<String> {
        let (newest, current) = self.store.lock().index();
        // After a delete of everything no config counts, and nothing is left in the world.
        let all_gone = current.is_none() && world.serving.is_none();
        if current != Some(world.revision) && !all_gone {
            let revision = world.revision;
            return Some(format!(
                "stored is {current:?} of {newest}, the world is at {revision}"
            ));
        }
        let stored = self.store.lock().current_config().unwrap_or_default();
        let stored: BTreeMap<String, Value> = stored["applications"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|app| (app["name"].to_string(), app["args"].clone()))
            .collect();
        let declared = world.applications.iter().map(|(name, app)| {
            let name = Value::String(name.clone()).to_string();
            (name, app.declared.raw["args"].clone())
        });
        let declared: BTreeMap<String, Value> = declared.collect();
        (declared != stored).then(|| format!("declared is {declared:?}, stored is {stored:?}"))
    }

    fn worker_unrest(&self, world: &World) -> Option<String> {
        let mut wanted: Vec<&String> = world
            .applications
            .values()
            .flat_map(|application| application.deployments.values())
            .flat_map(|deployment| deployment.replicas.keys())
            .collect();
        let mut running: Vec<&String> = Vec::new();
        for worker in &self.workers {
            if worker.ongoing() > 0 {
                return Some(format!("{} has calls", worker.id));
            }
            for (id, replica) in &worker.replicas {
                if replica.phase != Life::Running {
                    return Some(format!("{id} is {:?}", replica.phase));
                }
                running.push(id);
            }
        }
        wanted.sort();
        running.sort();
        (wanted != running).then(|| format!("{running:?} run, {wanted:?} shall"))
    }

    fn router_unrest(&self, world: &World) -> Option<String> {
        let version = world.published.table_version();
        for (r, router) in self.routers.iter().enumerate() {
            if router.table.version != version {
                let has = router.table.version;
                return Some(format!("router{r} has table {has}, not {version}"));
            }
            if router.busy() > 0 || !router.requests.is_empty() {
                return Some(format!("router{r} has requests"));
            }
        }
        None
    }
}

fn deployment_unrest(world: &World) -> Option<String> {
    for (id, deployment) in world.deployments() {
        let count = deployment.replicas.len() as u32;
        let right = deployment.replicas.values().all(|replica| {
            replica.phase == Phase::Running
                && deployment.is_current(replica)
                && replica.spec.config_version == deployment.spec.replica.config_version
        });
        let mut gangs: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
        for gang in deployment.replicas.values().filter_map(|r| r.gang.as_ref()) {
            gangs.entry(&gang.id).or_insert((0, gang.size)).0 += 1;
        }
        if let Some((gang, (members, size))) = gangs.iter().find(|(_, (n, size))| n != size) {
            return Some(format!(
                "gang {gang} of {id} has {members} of {size} members"
            ));
        }
        if deployment.deleting || count != deployment.target || !right {
            let target = deployment.target;
            let phases: Vec<String> = deployment
                .replicas
                .iter()
                .map(|(id, replica)| format!("{id} {:?} on {}", replica.phase, replica.worker))
                .collect();
            let status = &deployment.status;
            return Some(format!("{id} shall have {target}: {phases:?} {status:?}"));
        }
    }
    None
}
