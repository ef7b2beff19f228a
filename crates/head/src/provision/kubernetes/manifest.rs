//! From a group to the pod that is created. Pure.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::groups::Group;
use super::template::{WORKER_CONTAINER, custom};
use crate::world::Resources;
use crate::world::resources::{CPU, GPU};

/// Whose pod it is.
pub const CLUSTER_LABEL: &str = "mobula.dev/cluster";
/// Which group it is of.
pub const GROUP_LABEL: &str = "mobula.dev/group";
/// Which template it was made from.
pub const GENERATION_LABEL: &str = "mobula.dev/generation";
/// The template itself, so that whoever finds the pod can make another one like it.
pub const TEMPLATE_ANNOTATION: &str = "mobula.dev/template";
/// Of the owner: begins the names under which roll-outs that were ended are kept, by group.
pub const VERDICT_ANNOTATION_PREFIX: &str = "rollout.mobula.dev/";
/// The label by which others see who manages an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Its value.
pub const MANAGED_BY: &str = "mobula-head";

/// Hex digits of a generation.
const GENERATION_DIGITS: usize = 12;

/// The object that owns all pods: with it goes the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub name: String,
    pub uid: String,
}

/// A name for the template: the same template, the same name.
pub fn generation_of(template: &Value, resources: &Resources) -> String {
    let mut hash = Sha256::new();
    // Keys of a JSON object are sorted, so the order in the file does not count.
    hash.update(template.to_string());
    hash.update(resources.to_string());
    let digest = hash.finalize();
    let mut digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.truncate(GENERATION_DIGITS);
    digits
}

/// The owner's name.
pub fn owner_name(cluster: &str) -> String {
    format!("{cluster}-cluster")
}

/// How an object says that it goes with the owner. A controller: whoever drains a node then
/// knows that somebody makes up for the pod.
pub fn owner_reference(owner: &Owner) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": owner.name,
        "uid": owner.uid,
        "controller": true,
    })
}

/// The pod to create.
pub fn pod(group: &Group, cluster: &str, owner: &Owner, name: &str) -> Value {
    let mut pod = group.template.pod.clone();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    let mut metadata = object(pod.get("metadata"));
    let mut labels = object(metadata.get("labels"));
    for (key, value) in [
        (CLUSTER_LABEL, cluster),
        (GROUP_LABEL, &group.name),
        (GENERATION_LABEL, &group.template.generation),
        (MANAGED_BY_LABEL, MANAGED_BY),
    ] {
        labels.insert(key.to_owned(), value.into());
    }
    let mut annotations = object(metadata.get("annotations"));
    annotations.insert(
        TEMPLATE_ANNOTATION.to_owned(),
        group.template.carried().into(),
    );
    metadata.insert("name".to_owned(), name.into());
    metadata.insert("annotations".to_owned(), annotations.into());
    metadata.insert("labels".to_owned(), labels.into());
    metadata.insert(
        "ownerReferences".to_owned(),
        json!([owner_reference(owner)]),
    );
    pod["metadata"] = metadata.into();
    let containers = pod["spec"]["containers"].as_array_mut();
    for container in containers.into_iter().flatten() {
        if container["name"] == WORKER_CONTAINER {
            add_env(container, group);
        }
    }
    pod
}

/// What the worker learns about its pod; names that the template sets stay as they are.
fn add_env(container: &mut Value, group: &Group) {
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let facts = [
        ("MOBULA_POD_UID", field("metadata.uid")),
        ("MOBULA_POD_NAME", field("metadata.name")),
        ("MOBULA_POD_IP", field("status.podIP")),
        ("MOBULA_NODE_NAME", field("spec.nodeName")),
    ];
    let offers = [
        (
            "MOBULA_CPUS",
            group.template.resources.units(CPU).to_string(),
        ),
        (
            "MOBULA_GPUS",
            group.template.resources.units(GPU).to_string(),
        ),
        ("MOBULA_MEMORY", group.template.memory_bytes.to_string()),
        (
            "MOBULA_RESOURCES",
            custom_resources(&group.template.resources),
        ),
    ];
    let offers = offers.into_iter().filter(|(_, value)| !value.is_empty());
    let given = container["env"].as_array().cloned().unwrap_or_default();
    let is_given = |name: &str| given.iter().any(|entry| entry["name"] == name);
    let facts = facts
        .into_iter()
        .map(|(name, source)| (name, json!({"name": name, "valueFrom": source})));
    let offers = offers.map(|(name, value)| (name, json!({"name": name, "value": value})));
    let mut env: Vec<Value> = facts
        .chain(offers)
        .filter(|(name, _)| !is_given(name))
        .map(|(_, entry)| entry)
        .collect();
    env.extend(given.iter().cloned());
    container["env"] = env.into();
}

/// As `mobula worker --resources` reads them.
fn custom_resources(resources: &Resources) -> String {
    let pairs: Vec<String> = custom(resources)
        .map(|(name, units)| format!("{name}={units}"))
        .collect();
    pairs.join(",")
}

fn object(value: Option<&Value>) -> Map<String, Value> {
    value
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provision::kubernetes::groups::parse;
    use crate::provision::kubernetes::template::Template;

    const FILE: &str = r#"
workerGroups:
  - name: small
    max: 2
    resources: {cpus: 1.5, memory: 1Gi}
    template:
      metadata: {labels: {team: search}}
      spec:
        newField: {of: [a, later, release]}
        containers:
          - name: side
          - {name: worker, image: i, env: [{name: MOBULA_CPUS, value: "1"}]}
"#;

    #[test]
    fn a_pod_is_the_template_with_owner_labels_and_facts() {
        let group = &parse(FILE).unwrap()[0];
        let owner = Owner {
            name: "c-cluster".to_owned(),
            uid: "u1".to_owned(),
        };
        let pod = pod(group, "c", &owner, "c-small-x");
        assert_eq!(pod["metadata"]["labels"]["team"], "search");
        assert_eq!(pod["metadata"]["labels"][GROUP_LABEL], "small");
        assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "u1");
        let carried = pod["metadata"]["annotations"][TEMPLATE_ANNOTATION].as_str();
        assert_eq!(
            Template::from_carried(carried.unwrap(), &group.template.generation).as_ref(),
            Some(&group.template),
            "whoever finds the pod can make another one like it"
        );
        assert_eq!(pod["spec"]["newField"]["of"][2], "release");
        assert_eq!(pod["spec"]["containers"][0], json!({"name": "side"}));
        let env = pod["spec"]["containers"][1]["env"].as_array().unwrap();
        let value = |name: &str| {
            let mut found = env.iter().filter(|entry| entry["name"] == name);
            let value = found.next().map(|entry| entry["value"].clone());
            assert!(found.next().is_none(), "{name} is there twice");
            value
        };
        assert_eq!(value("MOBULA_CPUS"), Some("1".into()), "the template's own");
        assert_eq!(
            value("MOBULA_MEMORY"),
            Some((1u64 << 30).to_string().into())
        );
        assert_eq!(value("MOBULA_POD_UID"), Some(Value::Null));
        assert_eq!(value("MOBULA_RESOURCES"), None);
    }

    #[test]
    fn a_worker_is_told_of_the_custom_resources_of_its_group() {
        let file = FILE.replace("cpus: 1.5", "cpus: 1.5, custom: {ssd: 2, license: 0.5}");
        let group = &parse(&file).unwrap()[0];
        assert_eq!(
            custom_resources(&group.template.resources),
            "license=0.5,ssd=2"
        );
        let plain = &parse(FILE).unwrap()[0].template;
        assert_ne!(group.template.generation, plain.generation);
        let carried = Template::from_carried(&group.template.carried(), "g").unwrap();
        assert_eq!(carried.resources, group.template.resources);
    }

    #[test]
    fn only_the_template_and_what_it_offers_make_a_generation() {
        let generation = |file: &str| parse(file).unwrap()[0].template.generation.clone();
        let one = generation(FILE);
        assert_eq!(
            one,
            generation(&FILE.replace("max: 2", "max: 5\n    min: 1"))
        );
        assert_ne!(one, generation(&FILE.replace("image: i", "image: j")));
        assert_ne!(one, generation(&FILE.replace("cpus: 1.5", "cpus: 2")));
    }
}
