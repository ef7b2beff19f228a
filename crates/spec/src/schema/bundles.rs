//! Rules of placement groups that are checked when a deployment is settled, in Ray's words
//! where it has some.

use std::collections::BTreeMap;

use serde_json::json;

use crate::error::{LateError, quoted};
use crate::schema::actor_options::RayActorOptions;
use crate::schema::deployment::DeploymentOptions;
use crate::schema::{label_selector, read_late};

/// Bundles that are placed at once: those of one replica, or of all replicas of a gang. Placing
/// looks at every worker for each of them.
pub const BUNDLES_AT_ONCE_MAX: usize = 1000;

const FIRST_BUNDLE: &str = "When using `placement_group_bundles`, the replica actor will be \
     placed in the first bundle, so the resource requirements for the actor must be a subset of \
     the first bundle.";

/// Checks what a replica asks for beside bundles.
pub(crate) fn check_resources(actor: &RayActorOptions) -> Result<(), LateError> {
    let named = ["CPU", "GPU"]
        .iter()
        .any(|name| actor.resources.contains_key(*name));
    if named {
        return Err(LateError::new(
            "Use the 'num_cpus' and 'num_gpus' keyword instead of 'CPU' and 'GPU' in 'resources' \
             keyword",
        ));
    }
    if actor.resources.contains_key("memory") {
        return Err(LateError::new(
            "ray_actor_options.resources: `memory` is an option of its own, \
             ray_actor_options.memory",
        ));
    }
    Ok(())
}

/// Checks the bundles of a deployment whose actor options are settled.
pub(crate) fn check(options: &DeploymentOptions, actor: &RayActorOptions) -> Result<(), LateError> {
    let bundles = options.placement_group_bundles.as_deref();
    let gang = options.gang_scheduling_config.value();
    let gang_size = gang.map_or(1, |gang| gang.gang_size);
    let at_once = bundles
        .map_or(1, <[_]>::len)
        .saturating_mul(gang_size as usize);
    if at_once > BUNDLES_AT_ONCE_MAX {
        return Err(LateError::new(format!(
            "placement_group_bundles times gang_size is {at_once}, at most {BUNDLES_AT_ONCE_MAX} \
             bundles are placed at once"
        )));
    }
    let Some(bundles) = bundles else {
        return Ok(());
    };
    let Some(first) = bundles.first() else {
        return Err(LateError::new(
            "Bundles must be a non-empty list of resource dictionaries. For example: \
             `[{\"CPU\": 1.0}, {\"GPU\": 1.0}]`. Got empty list instead.",
        ));
    };
    bundles
        .iter()
        .try_for_each(|bundle| check_bundle(bundle, bundles))?;
    check_first(first, actor)?;
    for selector in options
        .placement_group_bundle_label_selector
        .iter()
        .flatten()
    {
        let map = json!(selector).as_object().cloned().unwrap_or_default();
        read_late(
            &map,
            "placement_group_bundle_label_selector",
            label_selector::read,
        )?;
    }
    Ok(())
}

fn check_bundle(
    bundle: &BTreeMap<String, f64>,
    bundles: &[BTreeMap<String, f64>],
) -> Result<(), LateError> {
    if let Some((name, amount)) = bundle.iter().find(|(_, amount)| **amount < 0.0) {
        let name = quoted(name);
        return Err(LateError::new(format!(
            "placement_group_bundles: {name} must be 0 or more, got {amount}"
        )));
    }
    if bundle.values().all(|amount| *amount == 0.0) {
        let bundles = json!(bundles);
        return Err(LateError::new(format!(
            "Bundles cannot be an empty dictionary or resources with only 0 values. Bundles: \
             {bundles}"
        )));
    }
    Ok(())
}

/// Ray does not compare memory, and such a replica waits there for ever.
fn check_first(first: &BTreeMap<String, f64>, actor: &RayActorOptions) -> Result<(), LateError> {
    let has = |name: &str| first.get(name).copied().unwrap_or(0.0);
    let named = [
        ("num_cpus", "CPU", actor.cpus()),
        ("num_gpus", "GPU", actor.num_gpus.unwrap_or(0.0)),
        ("memory", "memory", actor.memory.unwrap_or(0.0)),
    ];
    for (option, name, needs) in named {
        let has = has(name);
        if has < needs {
            return Err(LateError::new(format!(
                "{FIRST_BUNDLE} `{option}` for the actor is {needs}, but the bundle only has \
                 {has} `{name}` specified."
            )));
        }
    }
    for (name, needs) in &actor.resources {
        let has = has(name);
        if has < *needs {
            return Err(LateError::new(format!(
                "{FIRST_BUNDLE} `{name}` requirement for the actor is {needs}, but the bundle \
                 only has {has} `{name}` specified."
            )));
        }
    }
    Ok(())
}
