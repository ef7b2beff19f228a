//! The file of worker groups: which pods the head may make. Pure; every mistake is told with
//! the field, what is wrong and what is allowed.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

use super::manifest::generation_of;
use super::quantity;
use crate::world::Resources;
use crate::world::resources::{CPU, GPU, MEMORY};

/// Groups of one cluster.
pub const GROUPS_MAX: usize = 64;

/// Pods of one group; the head has sessions for twice as many workers and routers together.
pub const GROUP_PODS_MAX: u32 = 1_000;

/// A group's name becomes a part of pod names.
pub const GROUP_NAME_CHARS_MAX: usize = 20;

/// The container that runs the worker.
pub const WORKER_CONTAINER: &str = "worker";

/// What a pod gets to end when the template does not say.
pub const GRACE_SECONDS: u64 = 60;

/// Less would not let a worker hand its replicas over.
pub const GRACE_SECONDS_MIN: u64 = 15;

/// The longest idle timeout that is taken: a week.
const IDLE_SECONDS_MAX: f64 = 604_800.0;

/// Pods of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub name: String,
    /// Pods that always exist.
    pub min: u32,
    /// Pods that take replicas are never more.
    pub max: u32,
    /// Higher is tried first.
    pub priority: i32,
    /// A pod without replicas goes after this.
    pub idle_timeout_ms: u64,
    /// Pods that are kept free beyond the demand.
    pub headroom: u32,
    /// What one pod offers.
    pub resources: Resources,
    /// Bytes; 0: not limited.
    pub memory_bytes: u64,
    /// A PodTemplateSpec, kept as it was given: fields that we do not know are passed on.
    pub template: Value,
    /// Changes with the template.
    pub generation: String,
    /// What a pod gets to end.
    pub grace_ms: u64,
}

/// The file is not right.
#[derive(Debug, Error, PartialEq)]
#[error("{0}")]
pub struct GroupsError(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct File {
    worker_groups: Vec<RawGroup>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGroup {
    name: String,
    #[serde(default)]
    min: u32,
    max: u32,
    #[serde(default)]
    priority: i32,
    #[serde(default = "default_idle_timeout_s")]
    idle_timeout_s: f64,
    #[serde(default)]
    headroom: u32,
    resources: RawResources,
    template: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawResources {
    cpus: f64,
    #[serde(default)]
    gpus: f64,
    #[serde(default)]
    memory: Value,
}

fn default_idle_timeout_s() -> f64 {
    60.0
}

/// Reads the file.
///
/// # Errors
/// When it is not YAML of that form, or a value is not allowed.
pub fn parse(yaml: &str) -> Result<Vec<Group>, GroupsError> {
    let file: File =
        serde_saphyr::from_str(yaml).map_err(|error| GroupsError(error.to_string()))?;
    let count = file.worker_groups.len();
    if count == 0 || count > GROUPS_MAX {
        return Err(GroupsError(format!(
            "workerGroups: {count} groups, allowed are 1 to {GROUPS_MAX}"
        )));
    }
    let mut names = BTreeSet::new();
    let mut groups = Vec::with_capacity(count);
    for (index, raw) in file.worker_groups.into_iter().enumerate() {
        let group =
            check(raw).map_err(|error| GroupsError(format!("workerGroups[{index}].{error}")))?;
        if !names.insert(group.name.clone()) {
            return Err(GroupsError(format!(
                "workerGroups[{index}].name: '{}' is there twice",
                group.name
            )));
        }
        groups.push(group);
    }
    Ok(groups)
}

/// Whether it can be a part of names in Kubernetes.
pub fn is_dns_label(name: &str, chars_max: usize) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty()
        && name.len() <= chars_max
        && name.bytes().all(inner)
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
}

fn check(raw: RawGroup) -> Result<Group, String> {
    if !is_dns_label(&raw.name, GROUP_NAME_CHARS_MAX) {
        return Err(format!(
            "name: '{}' is not a DNS label of at most {GROUP_NAME_CHARS_MAX} characters (a-z, \
             0-9, -, a letter first)",
            raw.name
        ));
    }
    if raw.max == 0 || raw.max > GROUP_PODS_MAX {
        return Err(format!(
            "max: {}, allowed are 1 to {GROUP_PODS_MAX}",
            raw.max
        ));
    }
    for (field, value) in [("min", raw.min), ("headroom", raw.headroom)] {
        if value > raw.max {
            return Err(format!(
                "{field}: {value}, allowed are 0 to max ({})",
                raw.max
            ));
        }
    }
    if !(0.0..=IDLE_SECONDS_MAX).contains(&raw.idle_timeout_s) {
        return Err(format!(
            "idle_timeout_s: {}, allowed are 0 to {IDLE_SECONDS_MAX}",
            raw.idle_timeout_s
        ));
    }
    let memory_bytes = memory(&raw.resources.memory)?;
    let resources = resources(&raw.resources, memory_bytes)?;
    let (template, grace_s) = check_template(raw.template)?;
    let generation = generation_of(&template, &resources);
    Ok(Group {
        name: raw.name,
        min: raw.min,
        max: raw.max,
        priority: raw.priority,
        idle_timeout_ms: (raw.idle_timeout_s * 1_000.0) as u64,
        headroom: raw.headroom,
        resources,
        memory_bytes,
        template,
        generation,
        grace_ms: grace_s * 1_000,
    })
}

fn memory(value: &Value) -> Result<u64, String> {
    let bytes = match value {
        Value::Null => Some(0),
        Value::Number(number) => number.as_u64(),
        Value::String(text) => quantity::bytes(text),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    bytes.ok_or_else(|| {
        format!(
            "resources.memory: {value}, allowed are bytes or an amount with Ki, Mi, Gi, Ti, k, M, \
             G or T"
        )
    })
}

fn resources(raw: &RawResources, memory_bytes: u64) -> Result<Resources, String> {
    if !(raw.cpus.is_finite() && raw.cpus > 0.0) {
        return Err(format!("resources.cpus: {}, must be above 0", raw.cpus));
    }
    if !(raw.gpus.is_finite() && raw.gpus >= 0.0) {
        return Err(format!("resources.gpus: {}, must be 0 or more", raw.gpus));
    }
    Ok(Resources::from_units([
        (CPU, raw.cpus),
        (GPU, raw.gpus),
        (MEMORY, memory_bytes as f64),
    ]))
}

/// The template with what we rely on, and the seconds that a pod gets to end.
fn check_template(mut template: Value) -> Result<(Value, u64), String> {
    let Some(object) = template.as_object_mut() else {
        return Err("template: must be a PodTemplateSpec with `spec`".to_owned());
    };
    for key in ["name", "generateName", "namespace", "ownerReferences"] {
        if object
            .get("metadata")
            .is_some_and(|meta| meta.get(key).is_some())
        {
            return Err(format!(
                "template.metadata.{key}: is set by the head, leave it out"
            ));
        }
    }
    for (place, value) in [
        ("metadata", object.get("metadata")),
        (
            "metadata.labels",
            object.get("metadata").and_then(|meta| meta.get("labels")),
        ),
    ] {
        if value.is_some_and(|value| !value.is_object()) {
            return Err(format!("template.{place}: must be a mapping"));
        }
    }
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return Err("template.spec: must be a PodSpec".to_owned());
    };
    let containers = spec.get("containers").and_then(Value::as_array);
    let is_worker = |container: &Value| container["name"] == WORKER_CONTAINER;
    if !containers.is_some_and(|containers| containers.iter().any(is_worker)) {
        return Err(format!(
            "template.spec.containers: none is called `{WORKER_CONTAINER}`, which runs the worker"
        ));
    }
    match spec.get("restartPolicy").and_then(Value::as_str) {
        None => set(spec, "restartPolicy", "OnFailure".into()),
        Some("OnFailure" | "Never") => {}
        Some(other) => {
            return Err(format!(
                "template.spec.restartPolicy: {other}, allowed are OnFailure and Never: a worker \
                 that has drained ends with 0 and must not be started again"
            ));
        }
    }
    let grace_s = match spec.get("terminationGracePeriodSeconds") {
        None => GRACE_SECONDS,
        Some(value) => value
            .as_u64()
            .filter(|seconds| *seconds >= GRACE_SECONDS_MIN)
            .ok_or_else(|| {
                format!(
                    "template.spec.terminationGracePeriodSeconds: {value}, allowed are whole \
                     seconds from {GRACE_SECONDS_MIN}"
                )
            })?,
    };
    set(spec, "terminationGracePeriodSeconds", grace_s.into());
    Ok((template, grace_s))
}

fn set(spec: &mut Map<String, Value>, key: &str, value: Value) {
    spec.insert(key.to_owned(), value);
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &str = r#"
workerGroups:
  - name: small
    max: 2
    resources: {cpus: 1}
    template: {spec: {containers: [{name: worker, image: i}]}}
"#;

    #[test]
    fn what_is_left_out_has_its_default() {
        let groups = parse(RIGHT).unwrap();
        let group = &groups[0];
        assert_eq!(
            (group.min, group.max, group.priority, group.headroom),
            (0, 2, 0, 0)
        );
        assert_eq!((group.idle_timeout_ms, group.grace_ms), (60_000, 60_000));
        assert_eq!(group.template["spec"]["restartPolicy"], "OnFailure");
        assert_eq!(group.template["spec"]["terminationGracePeriodSeconds"], 60);
    }

    #[test]
    fn a_mistake_names_the_field_and_what_is_allowed() {
        let with = |from: &str, to: &str| {
            assert!(RIGHT.contains(from), "{from}");
            parse(&RIGHT.replace(from, to)).unwrap_err().to_string()
        };
        for (from, to, says) in [
            (
                "name: small",
                "name: Small",
                "workerGroups[0].name: 'Small' is not a DNS label",
            ),
            (
                "max: 2",
                "max: 0",
                "workerGroups[0].max: 0, allowed are 1 to 1000",
            ),
            (
                "max: 2",
                "max: 2\n    min: 3",
                "min: 3, allowed are 0 to max (2)",
            ),
            (
                "max: 2",
                "max: 2\n    maximum: 3",
                "unknown field `maximum`",
            ),
            ("cpus: 1", "cpus: 0", "resources.cpus: 0, must be above 0"),
            (
                "cpus: 1",
                "cpus: 1, memory: 4gb",
                "resources.memory: \"4gb\", allowed are",
            ),
            ("name: worker", "name: main", "none is called `worker`"),
            (
                "{spec: {",
                "{spec: {restartPolicy: Always, ",
                "restartPolicy: Always, allowed are",
            ),
            (
                "{spec: {",
                "{spec: {terminationGracePeriodSeconds: 5, ",
                "terminationGracePeriodSeconds: 5, allowed are whole seconds from 15",
            ),
            (
                "{spec: {",
                "{metadata: {name: x}, spec: {",
                "template.metadata.name: is set by",
            ),
            (
                "{spec: {",
                "{metadata: 1, spec: {",
                "template.metadata: must be a mapping",
            ),
        ] {
            let message = with(from, to);
            assert!(message.contains(says), "{message} should say {says}");
        }
        let twice = format!("{RIGHT}{}", RIGHT.replace("\nworkerGroups:", ""));
        assert!(
            parse(&twice)
                .unwrap_err()
                .to_string()
                .contains("is there twice")
        );
        assert!(
            parse("workerGroups: []")
                .unwrap_err()
                .to_string()
                .contains("0 groups")
        );
    }
}
