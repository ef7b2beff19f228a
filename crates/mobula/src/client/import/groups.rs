//! From a worker group of KubeRay's to one of the chart's.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::env::Env;
use super::fields::{Fields, Notes, set};
use super::pod::{self, Role};

/// As the chart's schema has it.
const NAME_CHARS_MAX: usize = 20;

/// Names of roles, which groups may not have.
const ROLES: &[&str] = &["head", "router", "etcd"];

const NO_VALUE: &str = "has no equivalent in a worker group and was left out";

pub const NO_START_PARAMETER: &str = "has no equivalent: it configures Ray's own processes";

/// Whether Ray's autoscaler made pods, and when it removed them.
#[derive(Debug)]
pub struct Autoscaler {
    pub on: bool,
    pub idle_seconds: Option<u64>,
}

pub fn translate(
    mut spec: Fields,
    autoscaler: &Autoscaler,
    index: usize,
    values: &mut Map<String, Value>,
    env: &mut Env,
    notes: &mut Notes,
) -> Result<Map<String, Value>> {
    let mut group = Map::new();
    let Some(name) = spec.text("groupName")? else {
        bail!("{} is missing", spec.path("groupName"));
    };
    let ours = name_of(&name);
    if ours != name {
        let text = format!(
            "became '{ours}': at most {NAME_CHARS_MAX} of a-z, 0-9 and '-', and not a role's name"
        );
        notes.add(spec.path("groupName"), text);
    }
    group.insert("name".to_owned(), json!(ours));
    bounds(&mut spec, autoscaler, &mut group, notes)?;
    offers(&mut spec, &mut group, notes)?;
    if spec.count("numOfHosts")?.is_some_and(|hosts| hosts > 1) {
        notes.add(
            spec.path("numOfHosts"),
            "has no equivalent: a replica lives in one pod",
        );
    }
    spec.replace(
        "suspend",
        notes,
        "has no equivalent: set minReplicas to 0, or leave the group out",
    );
    spec.replace(
        "scaleStrategy",
        notes,
        "is not needed: the head removes the workers with the least to do",
    );
    let pod = pod::translate(spec.object("template")?, Role::Worker, values, notes)?;
    group.extend(pod.values);
    env.add(Some(index), pod.env, pod.env_from);
    spec.finish(notes, NO_VALUE);
    Ok(group)
}

/// With an autoscaler KubeRay's own bounds, without one the number of replicas.
fn bounds(
    spec: &mut Fields,
    autoscaler: &Autoscaler,
    group: &mut Map<String, Value>,
    notes: &mut Notes,
) -> Result<()> {
    let replicas = spec.count("replicas")?;
    let least = spec.count("minReplicas")?.unwrap_or(0);
    let most = spec.count("maxReplicas")?;
    let idle = spec
        .count("idleTimeoutSeconds")?
        .or(autoscaler.idle_seconds);
    let (least, most) = if autoscaler.on {
        (least, most.or(replicas).unwrap_or(least))
    } else {
        let count = replicas.unwrap_or(least);
        let text = format!(
            "there was no autoscaler: the group has {count} pods, no more and no less. A larger maxReplicas lets the head make pods by need"
        );
        notes.add(spec.path("replicas"), text);
        (count, count)
    };
    group.insert("minReplicas".to_owned(), json!(least));
    group.insert("maxReplicas".to_owned(), json!(most.max(least).max(1)));
    if let Some(seconds) = idle.filter(|_| autoscaler.on) {
        group.insert("idleTimeoutSeconds".to_owned(), json!(seconds));
    }
    Ok(())
}

/// What a pod said to Ray that it has, where that differs from its limits.
fn offers(spec: &mut Fields, group: &mut Map<String, Value>, notes: &mut Notes) -> Result<()> {
    let mut params = spec.object("rayStartParams")?;
    let mut resources = spec.object("resources")?;
    for (param, resource, ours) in [
        ("num-cpus", "CPU", "cpus"),
        ("num-gpus", "GPU", "gpus"),
        ("memory", "memory", "memory"),
    ] {
        let told = resources.take(resource).or_else(|| params.take(param));
        if let Some(told) = told {
            set(group, &["offers", ours], number(told));
        }
    }
    resources.finish(
        notes,
        "has no equivalent: custom resources; placementLabels say what a worker is",
    );
    let labels = spec.object("labels")?.into_map();
    if !labels.is_empty() {
        group.insert("placementLabels".to_owned(), Value::Object(labels));
    }
    params.ignore(&["block"]);
    params.finish(notes, NO_START_PARAMETER);
    Ok(())
}

/// Numbers in text, as rayStartParams has them.
fn number(value: Value) -> Value {
    let parsed = value
        .as_str()
        .and_then(|text| serde_json::from_str(text).ok());
    parsed.filter(Value::is_number).unwrap_or(value)
}

/// A name that the chart takes.
fn name_of(name: &str) -> String {
    let lower = name.to_lowercase();
    let mut ours: String = lower
        .chars()
        .map(|c| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                c
            } else {
                '-'
            }
        })
        .collect();
    if !ours.starts_with(|c: char| c.is_ascii_lowercase()) || ROLES.contains(&ours.as_str()) {
        ours = format!("w-{ours}");
    }
    ours.truncate(NAME_CHARS_MAX);
    ours.trim_end_matches('-').to_owned()
}

/// Gives groups whose names became the same a number.
pub fn unique_names(groups: &mut [Map<String, Value>], notes: &mut Notes) {
    let mut taken = BTreeSet::new();
    for (index, group) in groups.iter_mut().enumerate() {
        let name = group
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if !taken.insert(name.to_owned()) {
            let numbered = format!("group-{index}");
            notes.add(
                format!("spec.rayClusterConfig.workerGroupSpecs[{index}].groupName"),
                format!("became '{numbered}': another group is '{name}' already"),
            );
            taken.insert(numbered.clone());
            group.insert("name".to_owned(), json!(numbered));
        }
    }
}
