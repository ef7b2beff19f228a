//! The world as the store has it, when a head starts: the config that counts, built and
//! waiting for workers, and the configs that its applications could return to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mobula_spec::ServeConfig;
use tracing::{info, warn};

use crate::documents::StoredConfig;
use crate::error::HeadError;
use crate::executor::Executor;
use crate::prepare::Preparer;
use crate::status::About;
use crate::world::intent::Good;
use crate::world::spec::ApplicationSpec;
use crate::world::{DeploymentId, Event, Now, World};

/// Makes the world that an earlier head left.
///
/// # Errors
/// When what is stored cannot be read or understood.
pub async fn restore(
    executor: &Executor,
    preparer: &Preparer,
    about: &About,
    workers_outlive_head: bool,
) -> Result<World, HeadError> {
    let version_base = (about.started_at_s * 1000.0) as u64;
    let mut world = World::new(about.node_id.clone(), version_base);
    let Some(revision) = executor.history().current else {
        return Ok(world);
    };
    let stored = executor.config(revision).await?.ok_or_else(|| {
        HeadError::Stored(format!("the config of revision {revision} is missing"))
    })?;
    let config = read(&stored)?;
    let mut spec = preparer.prepare(&config, stored.deployed_time_s).await;
    spec.revision = revision;
    for application in &mut spec.applications {
        with_history(application, &stored);
    }
    let now = Now {
        ms: 0,
        unix_s: about.started_at_s,
    };
    info!(
        applications = spec.applications.len(),
        revision, "the stored config is deployed again"
    );
    world.observe(Event::Deploy(Box::new(spec)), now);
    let intent = executor.intent()?;
    let is_of_config = intent.revision.is_none_or(|of| of == revision);
    for (deployment, target) in intent.counts() {
        // A config that was stored after the counts has the last word, but for those that the
        // load set.
        if is_of_config || is_autoscaled(&world, &deployment) {
            world.observe(Event::Scale { deployment, target }, now);
        }
    }
    world.capacity.direction = intent.capacity_direction;
    for (application, spec, revision) in good(executor, preparer, &intent.good).await? {
        world.remember_good(&application, spec, revision);
    }
    let befores = intent.probations.iter();
    let befores = befores.map(|(name, probation)| (name.clone(), probation.before));
    for (name, spec, revision) in good(executor, preparer, &befores.collect()).await? {
        let spec = Arc::new(spec);
        let until_s = intent.probations[&name].until_s;
        world.remember_probation(&name, Good { revision, spec }, until_s, now);
    }
    let deployments: Vec<DeploymentId> = world.deployments().map(|(id, _)| id).collect();
    for id in deployments {
        world.resume_canary(&id.application, &id.deployment, intent.canary(&id));
    }
    if workers_outlive_head {
        let groups = intent.groups.into_iter();
        world.remembered = groups.map(|(id, group)| (id, group.remembered())).collect();
        world.awaited_workers = intent.workers;
    }
    Ok(world)
}

fn is_autoscaled(world: &World, id: &DeploymentId) -> bool {
    let application = world.applications.get(&id.application);
    let deployment = application.and_then(|found| found.deployments.get(&id.deployment));
    deployment.is_some_and(|deployment| deployment.spec.autoscaling.is_some())
}

/// What each application could return to. One that is not kept any more, or whose code is
/// gone, is left out: then there is nothing to return to.
async fn good(
    executor: &Executor,
    preparer: &Preparer,
    revisions: &BTreeMap<String, u64>,
) -> Result<Vec<(String, ApplicationSpec, u64)>, HeadError> {
    let mut found = Vec::with_capacity(revisions.len());
    let distinct: BTreeSet<u64> = revisions.values().copied().collect();
    for revision in distinct {
        let Some(stored) = executor.config(revision).await? else {
            continue;
        };
        let config = match read(&stored) {
            Ok(config) => config,
            Err(error) => {
                warn!(%error, revision, "a config of the history cannot be read");
                continue;
            }
        };
        let wanted = revisions.iter().filter(|(_, of)| **of == revision);
        for (name, _) in wanted {
            let Some(application) = config.application(name) else {
                continue;
            };
            let mut spec = preparer
                .application(&config, application, stored.deployed_time_s)
                .await;
            with_history(&mut spec, &stored);
            if spec.built.is_ok() {
                found.push((name.clone(), spec, revision));
            }
        }
    }
    Ok(found)
}

fn read(stored: &StoredConfig) -> Result<ServeConfig, HeadError> {
    ServeConfig::from_json(stored.config.to_string().as_bytes())
        .map(|checked| checked.config)
        .map_err(|errors| HeadError::Stored(errors.to_string()))
}

fn with_history(spec: &mut ApplicationSpec, stored: &StoredConfig) {
    spec.deployed_time_s = stored.declared_at_s(&spec.name);
    spec.taken_back = stored.taken_back.get(&spec.name).cloned();
}

#[cfg(test)]
mod tests {
    use mobula_app::{Application, Deployment, Registry};
    use mobula_store::MemoryStore;
    use serde_json::{Value, json};

    use super::*;
    use crate::control_loop::ControlLoop;
    use crate::history::End;
    use crate::message::Proposal;
    use crate::world::fixtures::at;

    fn preparer() -> Preparer {
        let mut registry = Registry::default();
        registry.register("test:app", |_| {
            Ok(Application::single(Deployment::without_code("D")))
        });
        Preparer::on_this_thread(registry)
    }

    /// Three replicas, with these arguments.
    fn document(args: Value) -> Value {
        json!({"applications": [{
            "name": "app", "import_path": "test:app", "args": args,
            "external_scaler_enabled": true,
            "deployments": [{"name": "D", "num_replicas": 3}],
        }]})
    }

    async fn deploy(control: &mut ControlLoop, document: Value) {
        let checked = ServeConfig::from_json(document.to_string().as_bytes()).unwrap();
        let proposal = Proposal {
            config: StoredConfig::new(checked.config.to_json(), 1.0),
            spec: preparer().prepare(&checked.config, 1.0).await,
            reason: "test".to_owned(),
            end: End::Superseded,
            expected: None,
        };
        control.deploy(proposal, at(0)).await.unwrap();
    }

    /// The count that another head finds.
    async fn found(store: &Arc<MemoryStore>) -> u32 {
        let executor = Executor::load(store.clone()).await.unwrap();
        let about = About {
            ray_version: "2.60.0".parse().unwrap(),
            node_id: "b".repeat(56),
            node_ip: "127.0.0.1".to_owned(),
            pid: 2,
            started_at_s: 2.0,
        };
        let world = restore(&executor, &preparer(), &about, true).await.unwrap();
        world.applications["app"].deployments["D"].target
    }

    #[tokio::test]
    async fn a_count_is_known_to_the_next_head_unless_a_config_came_after_it() {
        let store = Arc::new(MemoryStore::default());
        let executor = Executor::load(store.clone()).await.unwrap();
        let mut control = ControlLoop::new(World::new("head", 0), executor);
        deploy(&mut control, document(json!({"version": 1}))).await;
        assert_eq!(found(&store).await, 3);
        let id = DeploymentId {
            application: "app".to_owned(),
            deployment: "D".to_owned(),
        };
        control.scale(id, 0, at(1)).await.unwrap();
        // The answer is enough: the head may end before it does anything.
        assert_eq!(found(&store).await, 0);
        // Also the answer to a deploy.
        deploy(&mut control, document(json!({"version": 2}))).await;
        assert_eq!(found(&store).await, 3);
    }
}
