//! Environment variables: what all pods agree on becomes `env` of the chart, the rest stays with
//! its worker group.
//!
//! The head reads the variables that choose models as well, so what is the same everywhere it is
//! given is set for all.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::fields::{Notes, set};

/// Names under which a hub token is given.
const HUB_TOKENS: &[&str] = &[
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HUGGINGFACEHUB_API_TOKEN",
];

/// Variables of Ray and of Python.
const NOT_NEEDED: &[&str] = &["RAY_", "PYTHON", "PIP_", "VIRTUAL_ENV", "CONDA_"];

/// Everything that was given, and by whom: a worker group by its index, the head by none.
#[derive(Debug, Default)]
pub struct Env {
    given: Vec<(Option<usize>, Vec<Value>, Vec<Value>)>,
}

impl Env {
    pub fn add(&mut self, group: Option<usize>, env: Vec<Value>, from: Vec<Value>) {
        self.given.push((group, env, from));
    }

    /// Takes hub tokens and what only Ray reads out of the lists, with notes.
    pub fn clean(&mut self, values: &mut Map<String, Value>, notes: &mut Notes) {
        for (group, env, _) in &mut self.given {
            let path = match group {
                Some(index) => format!("spec.rayClusterConfig.workerGroupSpecs[{index}] env"),
                None => "spec.rayClusterConfig.headGroupSpec env".to_owned(),
            };
            env.retain(|variable| keeps(variable, &path, values, notes));
        }
    }

    /// Puts every variable into its place.
    pub fn spread(self, values: &mut Map<String, Value>, groups: &mut [Map<String, Value>]) {
        let mut texts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (_, env, _) in &self.given {
            for (name, text) in env.iter().filter_map(literal) {
                texts.entry(name).or_default().push(text);
            }
        }
        let mut common = Map::new();
        for (name, texts) in &texts {
            if let Some((first, rest)) = texts.split_first()
                && rest.iter().all(|text| text == first)
            {
                common.insert((*name).to_owned(), json!(first));
            }
        }
        for (group, env, from) in &self.given {
            let target = match group {
                Some(index) => groups.get_mut(*index),
                None => values.get_mut("head").and_then(Value::as_object_mut),
            };
            if let Some(target) = target {
                place(group.is_some(), env, from, &common, target);
            }
        }
        if !common.is_empty() {
            set(values, &["env"], Value::Object(common));
        }
    }
}

/// A variable whose value is written out.
fn literal(variable: &Value) -> Option<(&str, &str)> {
    let value = variable.get("value").map_or(Some(""), Value::as_str)?;
    if variable.get("valueFrom").is_some() {
        return None;
    }
    Some((variable["name"].as_str()?, value))
}

/// What of one pod is not common to all. Only worker groups have a map and an `extraEnvFrom`.
fn place(
    is_group: bool,
    env: &[Value],
    from: &[Value],
    common: &Map<String, Value>,
    target: &mut Map<String, Value>,
) {
    let mut own = Map::new();
    let mut list = Vec::new();
    for variable in env {
        match literal(variable) {
            Some((name, _)) if common.contains_key(name) => {}
            Some((name, text)) if is_group => {
                own.insert(name.to_owned(), json!(text));
            }
            _ => list.push(variable.clone()),
        }
    }
    if !own.is_empty() {
        target.insert("env".to_owned(), Value::Object(own));
    }
    if !list.is_empty() {
        target.insert("extraEnv".to_owned(), Value::Array(list));
    }
    if is_group && !from.is_empty() {
        target.insert("extraEnvFrom".to_owned(), Value::Array(from.to_vec()));
    }
}

/// Whether a variable is carried over as it is.
fn keeps(variable: &Value, path: &str, values: &mut Map<String, Value>, notes: &mut Notes) -> bool {
    let name = variable["name"].as_str().unwrap_or_default();
    let path = format!("{path} {name}");
    if HUB_TOKENS.contains(&name) {
        let reference = &variable["valueFrom"]["secretKeyRef"];
        let secret = (reference["name"].as_str(), reference["key"].as_str());
        let (Some(secret), Some(key)) = secret else {
            notes.add(path, "was left out, as a token does not belong into a file: `kubectl create secret generic NAME --from-literal=hf_token=…`, and secrets.hfTokenSecretName: NAME");
            return false;
        };
        set(values, &["secrets", "hfTokenSecretName"], json!(secret));
        set(values, &["secrets", "hfTokenSecretKey"], json!(key));
        return false;
    }
    if NOT_NEEDED.iter().any(|prefix| name.starts_with(prefix)) {
        notes.add(path, "was left out: only Ray and Python read it");
        return false;
    }
    true
}
