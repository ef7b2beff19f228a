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
    for (deployment, target) in intent.counts() {
        world.observe(Event::Scale { deployment, target }, now);
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
