//! From a pod template of KubeRay's to the chart's keys for a pod.

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::fields::{Fields, Notes, set};

/// The head kills what takes longer; the provisioner refuses less.
const GRACE_SECONDS_MIN: u64 = 15;

const NO_VALUE: &str = "has no value in the chart and was left out";

/// Whose pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Head,
    Worker,
}

/// What a template holds, by the chart's keys.
#[derive(Debug, Default)]
pub struct Pod {
    pub values: Map<String, Value>,
    pub env: Vec<Value>,
    pub env_from: Vec<Value>,
}

pub fn translate(
    mut template: Fields,
    role: Role,
    values: &mut Map<String, Value>,
    notes: &mut Notes,
) -> Result<Pod> {
    let mut pod = Pod::default();
    let mut meta = template.object("metadata")?;
    for (from, to) in [("labels", "podLabels"), ("annotations", "podAnnotations")] {
        let mut map = meta.object(from)?;
        let path = map.path("ray.io/*");
        if !map.take_starting("ray.io/").is_empty() {
            notes.add(path, "was left out: it speaks to KubeRay's operator");
        }
        map.take_starting("app.kubernetes.io/");
        let map = map.into_map();
        if !map.is_empty() {
            pod.values.insert(to.to_owned(), Value::Object(map));
        }
    }
    meta.ignore(&["name", "creationTimestamp"]);
    meta.finish(notes, NO_VALUE);
    spec(template.object("spec")?, role, values, &mut pod, notes)?;
    template.finish(notes, NO_VALUE);
    Ok(pod)
}

fn spec(
    mut spec: Fields,
    role: Role,
    values: &mut Map<String, Value>,
    pod: &mut Pod,
    notes: &mut Notes,
) -> Result<()> {
    let placement = [
        "nodeSelector",
        "tolerations",
        "affinity",
        "topologySpreadConstraints",
        "priorityClassName",
    ];
    spec.keep(&placement, &mut pod.values);
    for key in ["affinity", "topologySpreadConstraints"] {
        if pod
            .values
            .get(key)
            .is_some_and(|value| value.to_string().contains("ray.io/"))
        {
            notes.add(
                spec.path(key),
                "selects by KubeRay's labels: use app.kubernetes.io/component and mobula.dev/group",
            );
        }
    }
    if role == Role::Worker {
        let more = [
            "runtimeClassName",
            "schedulerName",
            "resourceClaims",
            "serviceAccountName",
        ];
        spec.keep(&more, &mut pod.values);
        if let Some(seconds) = spec.count("terminationGracePeriodSeconds")? {
            if seconds < GRACE_SECONDS_MIN {
                let text = format!(
                    "is less than {GRACE_SECONDS_MIN}, the least that lets a worker drain; the chart's 60 is used"
                );
                notes.add(spec.path("terminationGracePeriodSeconds"), text);
            } else {
                pod.values
                    .insert("terminationGracePeriodSeconds".to_owned(), json!(seconds));
            }
        }
    }
    if let Some(secrets) = spec.take("imagePullSecrets") {
        set(values, &["global", "imagePullSecrets"], secrets);
    }
    spec.replace(
        "securityContext",
        notes,
        "was left out: pods run as podSecurityContext says, non-root",
    );
    spec.replace(
        "restartPolicy",
        notes,
        "was left out: the head decides about its workers",
    );
    let mut init = spec.list("initContainers")?;
    // KubeRay's own, which waits for Ray's head.
    init.retain(|container| container["name"] != "wait-gcs-ready");
    beside(
        &spec.path("initContainers"),
        "initContainers",
        init,
        pod,
        notes,
    );
    let mut containers = spec.objects("containers")?;
    if containers.is_empty() {
        bail!("{} must hold the container of Ray", spec.path("containers"));
    }
    let main = containers.remove(0);
    let sidecars = containers
        .into_iter()
        .map(|sidecar| Value::Object(sidecar.into_map()));
    beside(
        &spec.path("containers"),
        "extraContainers",
        sidecars.collect(),
        pod,
        notes,
    );
    let kept = container(main, role, pod, notes)?;
    volumes(&mut spec, kept, pod, notes)?;
    spec.finish(notes, NO_VALUE);
    Ok(())
}

/// Containers that are carried over as they are.
fn beside(path: &str, key: &str, containers: Vec<Value>, pod: &mut Pod, notes: &mut Notes) {
    if !containers.is_empty() {
        notes.add(
            path,
            format!("became {key} as they are: check that they need nothing of Ray"),
        );
        pod.values.insert(key.to_owned(), Value::Array(containers));
    }
}

/// The container of Ray. Answers with the mounts that are still needed.
fn container(mut main: Fields, role: Role, pod: &mut Pod, notes: &mut Notes) -> Result<Vec<Value>> {
    main.ignore(&[
        "name",
        "ports",
        "imagePullPolicy",
        "terminationMessagePath",
        "terminationMessagePolicy",
    ]);
    main.replace("image", notes, "was left out: Mobula's image takes its place (`image.*`); models that were in it must come from the hub, a volume, or your build of Mobula's image");
    pod.env = main.list("env")?;
    pod.env_from = main.list("envFrom")?;
    match role {
        Role::Worker => main.keep(&["resources"], &mut pod.values),
        Role::Head => main.replace(
            "resources",
            notes,
            "was left out: a head without Python needs little (head.resources)",
        ),
    }
    for key in ["command", "args"] {
        main.replace(
            key,
            notes,
            "was left out: the image knows what to start; see extraArgs",
        );
    }
    main.replace(
        "lifecycle",
        notes,
        "was left out: on SIGTERM a worker finishes its requests by itself",
    );
    for key in ["startupProbe", "readinessProbe", "livenessProbe"] {
        main.replace(
            key,
            notes,
            "was left out: the chart asks the process itself; timings are in `probes`",
        );
    }
    main.replace(
        "securityContext",
        notes,
        "was left out: containers run as containerSecurityContext says",
    );
    let mut mounts = main.list("volumeMounts")?;
    mounts.retain(|mount| !is_of_ray(mount["mountPath"].as_str().unwrap_or_default()));
    main.finish(notes, NO_VALUE);
    Ok(mounts)
}

/// Directories of Ray's logs and of its object store.
fn is_of_ray(path: &str) -> bool {
    path == "/dev/shm" || path == "/tmp/ray" || path.starts_with("/tmp/ray/")
}

/// The volumes that something still mounts.
fn volumes(spec: &mut Fields, mounts: Vec<Value>, pod: &mut Pod, notes: &mut Notes) -> Result<()> {
    let path = spec.path("volumes");
    let others = [
        pod.values.get("initContainers"),
        pod.values.get("extraContainers"),
    ];
    let others = others
        .into_iter()
        .flatten()
        .filter_map(Value::as_array)
        .flatten();
    let of_others = others
        .filter_map(|container| container["volumeMounts"].as_array())
        .flatten();
    let mounted: Vec<String> = mounts
        .iter()
        .chain(of_others)
        .filter_map(|mount| mount["name"].as_str().map(str::to_owned))
        .collect();
    let (kept, left): (Vec<Value>, Vec<Value>) =
        spec.list("volumes")?.into_iter().partition(|volume| {
            volume["name"]
                .as_str()
                .is_some_and(|name| mounted.iter().any(|own| own == name))
        });
    for volume in left {
        let name = volume["name"].as_str().unwrap_or_default();
        notes.add(
            format!("{path}.{name}"),
            "was left out: it was for Ray's logs or object store, or nothing mounts it",
        );
    }
    for (key, list) in [("extraVolumes", kept), ("extraVolumeMounts", mounts)] {
        if !list.is_empty() {
            pod.values.insert(key.to_owned(), Value::Array(list));
        }
    }
    Ok(())
}
