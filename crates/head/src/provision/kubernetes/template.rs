//! What the pods of a group are made from, and what one of them offers. Pure; every mistake is told
//! with the field, what is wrong and what is allowed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::manifest::generation_of;
use super::quantity;
use crate::world::Resources;
use crate::world::resources::{CPU, GPU, MEMORY};

/// The container that runs the worker.
pub const WORKER_CONTAINER: &str = "worker";

/// What a pod gets to end when the template does not say.
pub const GRACE_SECONDS: u64 = 60;

/// Less would not let a worker hand its replicas over.
pub const GRACE_SECONDS_MIN: u64 = 15;

/// As JSON. A pod carries its template along, and Kubernetes takes 256 KiB of annotations.
pub const TEMPLATE_BYTES_MAX: usize = 128 << 10;

/// What pods are made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// A PodTemplateSpec, kept as it was given: fields that we do not know are passed on.
    pub pod: Value,
    /// What one pod offers.
    pub resources: Resources,
    /// Bytes; 0: not limited.
    pub memory_bytes: u64,
    /// Changes with the template and what it offers.
    pub generation: String,
    /// What a pod gets to end.
    pub grace_ms: u64,
}

/// What one pod offers, as it is written.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawResources {
    cpus: f64,
    #[serde(default)]
    gpus: f64,
    #[serde(default)]
    memory: Value,
    /// What replicas may ask for as `resources`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    custom: BTreeMap<String, f64>,
}

/// How a pod carries its template along.
#[derive(Deserialize, Serialize)]
struct Carried {
    resources: RawResources,
    template: Value,
}

// === impl Template ===

impl Template {
    /// Checks what the file says.
    pub fn of(raw: &RawResources, pod: Value) -> Result<Template, String> {
        let memory_bytes = memory(&raw.memory)?;
        let resources = resources(raw, memory_bytes)?;
        let (pod, grace_s) = check_template(pod)?;
        let bytes = pod.to_string().len();
        if bytes > TEMPLATE_BYTES_MAX {
            return Err(format!(
                "template: {bytes} bytes as JSON, allowed are {TEMPLATE_BYTES_MAX}"
            ));
        }
        let generation = generation_of(&pod, &resources);
        Ok(Template {
            pod,
            resources,
            memory_bytes,
            generation,
            grace_ms: grace_s * 1_000,
        })
    }

    /// What a pod of it carries along, for heads that know only a later one.
    pub fn carried(&self) -> String {
        let carried = Carried {
            resources: RawResources {
                cpus: self.resources.units(CPU),
                gpus: self.resources.units(GPU),
                memory: self.memory_bytes.into(),
                custom: custom(&self.resources)
                    .map(|(name, units)| (name.to_owned(), units))
                    .collect(),
            },
            template: self.pod.clone(),
        };
        // Maps with text as keys cannot fail to become JSON.
        serde_json::to_string(&carried).unwrap_or_default()
    }

    /// The template that a pod of that generation carries; None: it is none that we wrote.
    pub fn from_carried(text: &str, generation: &str) -> Option<Template> {
        let carried: Carried = serde_json::from_str(text).ok()?;
        let template = Template::of(&carried.resources, carried.template).ok()?;
        // What a release hashes may change; the name that its pods have counts.
        Some(Template {
            generation: generation.to_owned(),
            ..template
        })
    }
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
    let named = [
        (CPU, raw.cpus),
        (GPU, raw.gpus),
        (MEMORY, memory_bytes as f64),
    ];
    for (name, amount) in &raw.custom {
        if named.iter().any(|(reserved, _)| reserved == name) || name.contains(['=', ',']) {
            return Err(format!(
                "resources.custom: '{name}' cannot be the name of a resource of its own"
            ));
        }
        if !(amount.is_finite() && *amount > 0.0) {
            return Err(format!(
                "resources.custom.{name}: {amount}, must be above 0"
            ));
        }
    }
    let custom = raw.custom.iter();
    let custom = custom.map(|(name, amount)| (name.as_str(), *amount));
    Ok(Resources::from_units(named.into_iter().chain(custom)))
}

/// The resources that have no name of their own in the file.
pub fn custom(resources: &Resources) -> impl Iterator<Item = (&str, f64)> {
    let named = [CPU, GPU, MEMORY];
    resources
        .iter()
        .filter(move |(name, _)| !named.contains(name))
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
        (
            "metadata.annotations",
            object
                .get("metadata")
                .and_then(|meta| meta.get("annotations")),
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
