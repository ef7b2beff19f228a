//! From a RayService to values and a Serve config. Pure.

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::env::Env;
use super::fields::{Fields, Note, Notes, set};
use super::groups::{self, Autoscaler};
use super::pod::{self, Role};
use super::serve;

/// Longer names leave no room for what the chart appends.
const FULLNAME_CHARS_MAX: usize = 40;

const NO_VALUE: &str = "has no equivalent in the chart and was left out";

/// What came of a RayService.
#[derive(Debug)]
pub struct Imported {
    pub values: Value,
    pub serve: Value,
    pub notes: Vec<Note>,
}

pub fn translate(manifest: Value) -> Result<Imported> {
    let mut notes = Notes::default();
    let mut values = Map::new();
    let mut root = Fields::new("", manifest)?;
    root.ignore(&["apiVersion", "kind", "status"]);
    metadata(root.object("metadata")?, &mut values, &mut notes)?;
    let mut spec = root.object("spec")?;
    root.finish(&mut notes, NO_VALUE);

    let Some(config) = spec.text("serveConfigV2")? else {
        bail!("spec.serveConfigV2 is missing: there is no Serve config to import");
    };
    let serve = serve::translate(&config, &mut notes)?;
    cluster(spec.object("rayClusterConfig")?, &mut values, &mut notes)?;
    upgrades(spec.object("upgradeStrategy")?, &mut notes)?;
    service(spec.object("serveService")?, &mut values, &mut notes)?;
    lifecycle(&mut spec, &mut notes);
    spec.finish(&mut notes, NO_VALUE);
    Ok(Imported {
        values: Value::Object(values),
        serve,
        notes: notes.into_vec(),
    })
}

fn metadata(mut meta: Fields, values: &mut Map<String, Value>, notes: &mut Notes) -> Result<()> {
    meta.ignore(&[
        "namespace",
        "creationTimestamp",
        "generation",
        "resourceVersion",
        "uid",
    ]);
    meta.ignore(&["managedFields", "finalizers", "ownerReferences"]);
    let Some(name) = meta.text("name")? else {
        bail!("metadata.name is missing");
    };
    if name.len() <= FULLNAME_CHARS_MAX {
        set(values, &["fullnameOverride"], json!(name));
    } else {
        let text = format!(
            "is longer than {FULLNAME_CHARS_MAX} characters; objects are named after the release"
        );
        notes.add("metadata.name", text);
    }
    // Clients that know KubeRay's Services find these.
    set(
        values,
        &["head", "service", "name"],
        json!(format!("{name}-head-svc")),
    );
    set(
        values,
        &["router", "service", "name"],
        json!(format!("{name}-serve-svc")),
    );
    notes.add(
        "metadata.name",
        "the Services keep KubeRay's names, so install into another namespace or delete the RayService first",
    );
    let mut labels = meta.object("labels")?;
    // The chart sets its own.
    labels.take_starting("app.kubernetes.io/");
    labels.take_starting("helm.sh/");
    let labels = labels.into_map();
    if !labels.is_empty() {
        set(values, &["commonLabels"], Value::Object(labels));
    }
    let mut annotations = meta.object("annotations")?;
    annotations.take_starting("kubectl.kubernetes.io/");
    annotations.take_starting("meta.helm.sh/");
    annotations.finish(
        notes,
        "was left out; commonAnnotations sets annotations for every object",
    );
    meta.finish(notes, NO_VALUE);
    Ok(())
}

fn cluster(mut config: Fields, values: &mut Map<String, Value>, notes: &mut Notes) -> Result<()> {
    if let Some(version) = config.text("rayVersion")? {
        ray_version(&config.path("rayVersion"), &version, values, notes);
    }
    let mut env = Env::default();
    head(config.object("headGroupSpec")?, values, &mut env, notes)?;
    let autoscaling = config.flag("enableInTreeAutoscaling")?;
    let autoscaler = autoscaler(config.object("autoscalerOptions")?, autoscaling, notes)?;
    let mut groups = Vec::new();
    for (index, group) in config.objects("workerGroupSpecs")?.into_iter().enumerate() {
        groups.push(groups::translate(
            group,
            &autoscaler,
            index,
            values,
            &mut env,
            notes,
        )?);
    }
    env.clean(values, notes);
    if groups.is_empty() {
        let path = config.path("workerGroupSpecs");
        notes.add(
            path,
            "there is none: the chart's default group `cpu` is used; a head hosts no replicas",
        );
    } else {
        groups::unique_names(&mut groups, notes);
    }
    env.spread(values, &mut groups);
    if !groups.is_empty() {
        set(
            values,
            &["workerGroups"],
            Value::Array(groups.into_iter().map(Value::Object).collect()),
        );
    }
    if let Some(annotations) = config.take("headServiceAnnotations") {
        set(values, &["head", "service", "annotations"], annotations);
    }
    let fault_tolerance =
        "is not needed: heads keep their state in etcd (`etcd.*`), two of them by default";
    config.replace("gcsFaultToleranceOptions", notes, fault_tolerance);
    let tokens = "is not needed: tokens are always on (`auth.*`)";
    config.replace("authOptions", notes, tokens);
    config.replace(
        "networkPolicy",
        notes,
        "was left out: see `networkPolicy.*`, on by default",
    );
    config.finish(notes, NO_VALUE);
    Ok(())
}

fn ray_version(path: &str, version: &str, values: &mut Map<String, Value>, notes: &mut Notes) {
    if crate::ray_version::is_known(version) {
        set(values, &["head", "rayVersion"], json!(version));
        notes.add(
            path,
            "became head.rayVersion: the release that the admin API speaks as; no Ray is installed",
        );
    } else {
        notes.add(
            path,
            "is not 2.40.0 to 2.60.x: the admin API speaks as the chart's default release",
        );
    }
}

fn head(
    mut group: Fields,
    values: &mut Map<String, Value>,
    env: &mut Env,
    notes: &mut Notes,
) -> Result<()> {
    if let Some(kind) = group.text("serviceType")? {
        set(values, &["head", "service", "type"], json!(kind));
    }
    group.replace("headService", notes, "was left out: see head.service");
    group.replace("enableIngress", notes, "was left out: the admin API is not for the outside; see ingress and httpRoute for requests");
    let mut params = group.object("rayStartParams")?;
    let hosts_replicas = params.text("num-cpus")?.is_none_or(|cpus| cpus != "0");
    if hosts_replicas {
        let text = "the head hosted replicas too; here only workers do, so give their room to a worker group";
        notes.add(group.path("rayStartParams"), text);
    }
    params.ignore(&["dashboard-host", "num-gpus", "port", "block"]);
    params.finish(notes, groups::NO_START_PARAMETER);
    let pod = pod::translate(group.object("template")?, Role::Head, values, notes)?;
    env.add(None, pod.env, pod.env_from);
    if let Some(Value::Object(head)) = values.get_mut("head") {
        head.extend(pod.values);
    }
    group.finish(notes, NO_VALUE);
    Ok(())
}

fn autoscaler(mut options: Fields, on: bool, notes: &mut Notes) -> Result<Autoscaler> {
    let idle_seconds = options.count("idleTimeoutSeconds")?;
    let none = "is not needed: the head itself makes pods as soon as replicas have no room";
    options.finish(notes, none);
    Ok(Autoscaler { on, idle_seconds })
}

fn upgrades(mut strategy: Fields, notes: &mut Notes) -> Result<()> {
    let path = strategy.path("type");
    if let Some(kind) = strategy.text("type")? {
        let text = match kind.as_str() {
            "NewCluster" => {
                "a new cluster is not needed: replicas and workers are replaced in place, new ones first, and a version that fails is taken back (docs/rollouts.md)"
            }
            "NewClusterWithIncrementalUpgrade" => {
                "a new cluster is not needed: replicas are replaced in place by waves; set max_surge_percent and rolling_update_percentage in serve.yaml (docs/rollouts.md)"
            }
            _ => "has no equivalent: a changed config is always rolled out (docs/rollouts.md)",
        };
        notes.add(path, text);
    }
    let steps =
        "has no equivalent: see max_surge_percent and rolling_update_percentage (docs/rollouts.md)";
    strategy.finish(notes, steps);
    Ok(())
}

fn service(mut service: Fields, values: &mut Map<String, Value>, notes: &mut Notes) -> Result<()> {
    let mut meta = service.object("metadata")?;
    if let Some(name) = meta.text("name")? {
        set(values, &["router", "service", "name"], json!(name));
    }
    if let Some(annotations) = meta.take("annotations") {
        set(values, &["router", "service", "annotations"], annotations);
    }
    meta.ignore(&["namespace"]);
    meta.finish(notes, "was left out: the Service has the chart's own");
    let mut spec = service.object("spec")?;
    if let Some(kind) = spec.text("type")? {
        set(values, &["router", "service", "type"], json!(kind));
    }
    if let Some(policy) = spec.text("externalTrafficPolicy")? {
        set(
            values,
            &["router", "service", "externalTrafficPolicy"],
            json!(policy),
        );
    }
    spec.ignore(&["selector"]);
    let ports = spec.path("ports");
    for mut port in spec.objects("ports")? {
        let number = port.count("port")?;
        let to_http = port
            .take("targetPort")
            .is_none_or(|target| target == "serve" || target == 8000);
        match number {
            Some(number) if to_http => {
                set(values, &["router", "service", "httpPort"], json!(number))
            }
            _ => notes.add(
                &ports,
                "only the port for requests was carried over (router.service.httpPort, grpcPort)",
            ),
        }
    }
    spec.finish(notes, "has no equivalent in router.service");
    service.ignore(&["apiVersion", "kind"]);
    service.finish(notes, NO_VALUE);
    Ok(())
}

fn lifecycle(spec: &mut Fields, notes: &mut Notes) {
    for key in [
        "serviceUnhealthySecondThreshold",
        "deploymentUnhealthySecondThreshold",
    ] {
        spec.replace(
            key,
            notes,
            "is not needed, and KubeRay does not use it either",
        );
    }
    spec.replace(
        "rayClusterDeletionDelaySeconds",
        notes,
        "is not needed: there is no second cluster",
    );
    spec.replace("suspend", notes, "has no equivalent: `helm uninstall`, or min_replicas: 0 in serve.yaml and minReplicas: 0 in workerDefaults");
    spec.replace("managedBy", notes, "has no equivalent");
    // Heads serve no requests.
    spec.ignore(&["excludeHeadPodFromServeSvc"]);
}
