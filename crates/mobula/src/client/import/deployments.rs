//! Which of our deployments a deployment of Python code evidently is, and its settings.

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::fields::{Fields, Notes};
use super::serve::runtime_env;

/// A built-in deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Embedder,
    Reranker,
    Classifier,
}

/// Names of today for names of older releases.
const RENAMED: &[(&str, &str)] = &[
    ("max_concurrent_queries", "max_ongoing_requests"),
    (
        "target_num_ongoing_requests_per_replica",
        "target_ongoing_requests",
    ),
];

/// Options of the built-in deployments: `user_config` and `args` take no others.
const OPTIONS: &[&str] = &[
    "model",
    "onnx_path",
    "num_threads",
    "max_batch_size",
    "max_batch_tokens",
    "batch_wait_timeout_s",
    "max_client_batch_size",
    "auto_truncate",
    "served_model_names",
];

impl Kind {
    const ALL: [Kind; 3] = [Kind::Embedder, Kind::Reranker, Kind::Classifier];

    fn name(self) -> &'static str {
        match self {
            Kind::Embedder => "Embedder",
            Kind::Reranker => "Reranker",
            Kind::Classifier => "Classifier",
        }
    }

    fn import_path(self) -> &'static str {
        match self {
            Kind::Embedder => "mobula.apps:embedder",
            Kind::Reranker => "mobula.apps:reranker",
            Kind::Classifier => "mobula.apps:classifier",
        }
    }

    /// Words by which a name shows that it is of this kind.
    fn words(self) -> &'static [&'static str] {
        match self {
            Kind::Embedder => &["embed"],
            Kind::Reranker => &["rerank", "crossencoder", "cross_encoder"],
            Kind::Classifier => &["classif", "sentiment"],
        }
    }

    /// Paths at which this kind answers, and which users took for prefixes.
    fn paths(self) -> &'static [&'static str] {
        match self {
            Kind::Embedder => &["/embed", "/v1/embeddings"],
            Kind::Reranker => &["/rerank", "/v1/rerank", "/v2/rerank"],
            Kind::Classifier => &["/infer", "/predict"],
        }
    }

    fn is_in(self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.words().iter().any(|word| name.contains(word))
    }
}

/// The kinds that an application's deployments and import path name.
pub fn kinds(import_path: &str, list: &[Fields]) -> Vec<Kind> {
    let names: Vec<&str> = list.iter().filter_map(Fields::name).collect();
    let named = |kind: &Kind| names.iter().any(|name| kind.is_in(name));
    let found: Vec<Kind> = Kind::ALL.into_iter().filter(named).collect();
    if !found.is_empty() {
        return found;
    }
    let in_path = |kind: &Kind| kind.is_in(import_path);
    Kind::ALL.into_iter().filter(in_path).collect()
}

/// The built-in application with these kinds.
pub fn application(kinds: &[Kind]) -> Option<&'static str> {
    match kinds {
        [] => None,
        [kind] => Some(kind.import_path()),
        _ => Some("mobula.apps:rag"),
    }
}

/// Our applications answer at `/infer` and so on below their prefix, so a prefix of that name
/// goes away, if nobody else needs `/`.
pub fn route_prefix(
    prefix: &str,
    kinds: &[Kind],
    alone: bool,
    path: &str,
    notes: &mut Notes,
) -> String {
    let is_path = kinds.iter().any(|kind| kind.paths().contains(&prefix));
    if is_path && alone {
        notes.add(path, format!("became '/': the application itself answers at {prefix}, so clients see no difference"));
        return "/".to_owned();
    }
    if is_path {
        notes.add(path, format!("requests go to {prefix}{prefix} now: the application answers at {prefix} below its prefix. With one application at '/' clients see no difference"));
    }
    prefix.to_owned()
}

/// The deployments of an application; of a built-in one those that it has.
pub fn translate(
    list: Vec<Fields>,
    kinds: Option<&[Kind]>,
    notes: &mut Notes,
) -> Result<Vec<Value>> {
    let mut out = Vec::new();
    let mut seen = Vec::new();
    let alone = list.len() == 1;
    for mut fields in list {
        let path = fields.path("name");
        let name = fields.text("name")?.unwrap_or_default();
        let mut ours = settings(&mut fields, kinds.is_some(), notes)?;
        let Some(kinds) = kinds else {
            ours.insert("name".to_owned(), json!(name));
            ours.extend(fields.into_map());
            out.push(Value::Object(ours));
            continue;
        };
        let kind = match kinds {
            // One deployment of an application of one kind, whatever its name.
            [kind] if alone => Some(*kind),
            _ => kinds.iter().copied().find(|kind| kind.is_in(&name)),
        };
        let Some(kind) = kind.filter(|kind| !seen.contains(kind)) else {
            notes.add(
                path,
                format!(
                    "'{name}' was left out: the router sends each path to its deployment by itself"
                ),
            );
            continue;
        };
        if kind.name() != name {
            notes.add(path, format!("'{name}' became '{}'", kind.name()));
        }
        seen.push(kind);
        ours.insert("name".to_owned(), json!(kind.name()));
        ours.extend(fields.into_map());
        out.push(Value::Object(ours));
    }
    if kinds.is_some_and(|kinds| kinds.len() > 1) {
        out.extend(
            Kind::ALL
                .into_iter()
                .filter(|kind| !seen.contains(kind))
                .map(|kind| asleep(kind, notes)),
        );
    }
    Ok(out)
}

/// A deployment that `mobula.apps:rag` has and the source had not: no replica until it is asked.
fn asleep(kind: Kind, notes: &mut Notes) -> Value {
    let name = kind.name();
    notes.add(
        "serve.yaml",
        format!("mobula.apps:rag has {name} too; it has no replica until it is asked"),
    );
    json!({
        "name": name,
        "autoscaling_config": {"min_replicas": 0, "initial_replicas": 0, "max_replicas": 1},
    })
}

/// What needs more than being copied.
fn settings(fields: &mut Fields, is_ours: bool, notes: &mut Notes) -> Result<Map<String, Value>> {
    let mut out = Map::new();
    rename(fields, &mut out, notes);
    if fields.has("autoscaling_config") {
        let mut config = fields.object("autoscaling_config")?;
        let mut renamed = Map::new();
        rename(&mut config, &mut renamed, notes);
        renamed.extend(config.into_map());
        out.insert("autoscaling_config".to_owned(), Value::Object(renamed));
    }
    if fields.has("ray_actor_options") {
        let mut options = fields.object("ray_actor_options")?;
        let mut kept = Map::new();
        runtime_env(&mut options, &mut kept, notes)?;
        options.replace(
            "resources",
            notes,
            "was left out: workers have no custom resources",
        );
        if options.has("num_gpus") {
            notes.add(options.path("num_gpus"), "is kept: the replica computes on a GPU of its worker, which needs the image's GPU variant (`workerGroups[].image`, docs/models.md) and a float graph");
        }
        kept.extend(options.into_map());
        out.insert("ray_actor_options".to_owned(), Value::Object(kept));
    }
    if is_ours {
        let mut config = fields.object("user_config")?;
        let mut kept = Map::new();
        config.keep(OPTIONS, &mut kept);
        config.finish(
            notes,
            "was left out: an option of another program; those of this one are in docs/models.md",
        );
        if !kept.is_empty() {
            out.insert("user_config".to_owned(), Value::Object(kept));
        }
    }
    Ok(out)
}

fn rename(fields: &mut Fields, out: &mut Map<String, Value>, notes: &mut Notes) {
    for (old, today) in RENAMED {
        if fields.has(today) {
            continue;
        }
        if let Some(value) = fields.take(old) {
            notes.add(
                fields.path(old),
                format!("became {today}, its name of today"),
            );
            out.insert((*today).to_owned(), value);
        }
    }
}
