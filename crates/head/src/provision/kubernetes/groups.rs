//! The file of worker groups: which pods the head may make. Pure; every mistake is told with
//! the field, what is wrong and what is allowed.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::template::{RawResources, Template};

/// Groups of one cluster.
pub const GROUPS_MAX: usize = 64;

/// Pods of one group; the head has sessions for twice as many workers and routers together.
pub const GROUP_PODS_MAX: u32 = 1_000;

/// A group's name becomes a part of pod names.
pub const GROUP_NAME_CHARS_MAX: usize = 20;

/// The longest time that is taken: a week.
const SECONDS_MAX: f64 = 604_800.0;

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
    /// How a new template takes over.
    pub strategy: Strategy,
    /// Pods beyond the others while a template is rolled out.
    pub surge: u32,
    /// A pod whose worker does not join within this is replaced.
    pub startup_ms: u64,
    /// What its pods are made from.
    pub template: Template,
}

/// How a new template takes over from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// A few pods at a time.
    Rolling,
    /// All pods of the new one come before any of the old one is left; those stay as they are,
    /// empty, for a while.
    BlueGreen { bake_ms: u64 },
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
    #[serde(default = "default_strategy")]
    strategy: RawStrategy,
    #[serde(default = "default_surge")]
    surge: u32,
    #[serde(default = "default_startup_timeout_s")]
    startup_timeout_s: f64,
    #[serde(default = "default_bake_s")]
    bake_s: f64,
    resources: RawResources,
    template: Value,
}

#[derive(Clone, Copy, Deserialize)]
enum RawStrategy {
    #[serde(rename = "rolling")]
    Rolling,
    #[serde(rename = "blueGreen")]
    BlueGreen,
}

fn default_idle_timeout_s() -> f64 {
    60.0
}

fn default_strategy() -> RawStrategy {
    RawStrategy::Rolling
}

fn default_surge() -> u32 {
    1
}

/// Pulling a large image and starting takes minutes.
fn default_startup_timeout_s() -> f64 {
    600.0
}

fn default_bake_s() -> f64 {
    300.0
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
    if raw.surge == 0 || raw.surge > raw.max {
        return Err(format!(
            "surge: {}, allowed are 1 to max ({})",
            raw.surge, raw.max
        ));
    }
    let idle_timeout_ms = ms("idle_timeout_s", raw.idle_timeout_s, 0.0)?;
    let startup_ms = ms("startup_timeout_s", raw.startup_timeout_s, 1.0)?;
    let bake_ms = ms("bake_s", raw.bake_s, 0.0)?;
    let strategy = match raw.strategy {
        RawStrategy::Rolling => Strategy::Rolling,
        RawStrategy::BlueGreen => Strategy::BlueGreen { bake_ms },
    };
    Ok(Group {
        name: raw.name,
        min: raw.min,
        max: raw.max,
        priority: raw.priority,
        idle_timeout_ms,
        headroom: raw.headroom,
        strategy,
        surge: raw.surge,
        startup_ms,
        template: Template::of(&raw.resources, raw.template)?,
    })
}

fn ms(field: &str, seconds: f64, min: f64) -> Result<u64, String> {
    if !(min..=SECONDS_MAX).contains(&seconds) {
        return Err(format!(
            "{field}: {seconds}, allowed are {min} to {SECONDS_MAX}"
        ));
    }
    Ok((seconds * 1_000.0) as u64)
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
        assert_eq!((group.idle_timeout_ms, group.startup_ms), (60_000, 600_000));
        assert_eq!((group.strategy, group.surge), (Strategy::Rolling, 1));
        assert_eq!(group.template.grace_ms, 60_000);
        let spec = &group.template.pod["spec"];
        assert_eq!(spec["restartPolicy"], "OnFailure");
        assert_eq!(spec["terminationGracePeriodSeconds"], 60);
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
            (
                "max: 2",
                "max: 2\n    surge: 3",
                "surge: 3, allowed are 1 to max (2)",
            ),
            (
                "max: 2",
                "max: 2\n    startup_timeout_s: 0",
                "startup_timeout_s: 0, allowed are 1 to 604800",
            ),
            (
                "max: 2",
                "max: 2\n    strategy: canary",
                "unknown variant `canary`, expected one of rolling, blueGreen",
            ),
            ("cpus: 1", "cpus: 0", "resources.cpus: 0, must be above 0"),
            (
                "cpus: 1",
                "cpus: 1, custom: {ssd: 0}",
                "resources.custom.ssd: 0, must be above 0",
            ),
            (
                "cpus: 1",
                "cpus: 1, custom: {GPU: 1}",
                "resources.custom: 'GPU' cannot be the name",
            ),
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
