//! From serveConfigV2 to a Serve config that runs here. The schema is the same; what differs is
//! the code behind an import path.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::deployments;
use super::fields::{Fields, Notes};

/// Keys of a `runtime_env` that bring Python code and packages.
const NO_PYTHON: &str = "was left out: no Python runs here, only env_vars of a runtime_env act";

/// The config, with built-in applications in place of those that are evidently the same.
pub fn translate(text: &str, notes: &mut Notes) -> Result<Value> {
    let document = mobula_spec::yaml_to_json(text).context("spec.serveConfigV2")?;
    let mut config = Fields::new("serveConfigV2", document)?;
    let count = config
        .take("applications")
        .map_or(Vec::new(), |list| match list {
            Value::Array(items) => items,
            other => vec![other],
        });
    let alone = count.len() == 1;
    let mut applications = Vec::new();
    for (index, item) in count.into_iter().enumerate() {
        let fields = Fields::new(format!("serveConfigV2.applications[{index}]"), item)?;
        applications.push(Value::Object(application(fields, alone, notes)?));
    }
    let mut serve = config.into_map();
    serve.insert("applications".to_owned(), Value::Array(applications));
    let serve = Value::Object(serve);
    check(&serve, notes);
    Ok(serve)
}

fn application(mut fields: Fields, alone: bool, notes: &mut Notes) -> Result<Map<String, Value>> {
    let mut out = Map::new();
    let path = fields.path("import_path");
    let import_path = fields.text("import_path")?.unwrap_or_default();
    let list = fields.objects("deployments")?;
    runtime_env(&mut fields, &mut out, notes)?;
    let kinds = deployments::kinds(&import_path, &list);
    let ours = if import_path.starts_with("mobula.apps:") {
        None
    } else {
        deployments::application(&kinds)
    };
    if let Some(ours) = ours {
        notes.add(path, format!("'{import_path}' became '{ours}'; its paths and JSON are in README.md, `mobula validate` and docs/models.md say how to choose models"));
        out.insert("import_path".to_owned(), json!(ours));
        let prefix = fields
            .text("route_prefix")?
            .unwrap_or_else(|| "/".to_owned());
        let prefix_path = fields.path("route_prefix");
        let prefix = deployments::route_prefix(&prefix, &kinds, alone, &prefix_path, notes);
        out.insert("route_prefix".to_owned(), json!(prefix));
        fields.replace("args", notes, "was left out: the arguments of another program; those of this one are in docs/models.md");
    } else {
        if !import_path.starts_with("mobula.apps:") {
            notes.add(path, format!("'{import_path}' is Python code, which cannot run here. If it serves an ONNX model of the BERT family, choose mobula.apps:embedder, :reranker, :classifier or :rag; else write it against the crate mobula-app"));
        }
        out.insert("import_path".to_owned(), json!(import_path));
    }
    let translated =
        deployments::translate(list, ours.is_some().then_some(kinds.as_slice()), notes)?;
    if !translated.is_empty() {
        out.insert("deployments".to_owned(), Value::Array(translated));
    }
    // Everything else has the same meaning; the check below says what does not act.
    out.extend(fields.into_map());
    Ok(out)
}

/// Keeps the variables.
pub fn runtime_env(
    fields: &mut Fields,
    out: &mut Map<String, Value>,
    notes: &mut Notes,
) -> Result<()> {
    let mut runtime = fields.object("runtime_env")?;
    let variables = runtime.take("env_vars");
    runtime.finish(notes, NO_PYTHON);
    if let Some(variables) = variables {
        out.insert("runtime_env".to_owned(), json!({"env_vars": variables}));
    }
    Ok(())
}

/// What `mobula validate` would say.
fn check(serve: &Value, notes: &mut Notes) {
    match mobula_spec::ServeConfig::from_json(serve.to_string().as_bytes()) {
        Ok(checked) => {
            for warning in &checked.warnings {
                notes.add(
                    format!("serve.yaml: {}", warning.path),
                    warning.message.clone(),
                );
            }
        }
        Err(errors) => {
            for problem in errors.problems() {
                notes.add(
                    format!("serve.yaml: {}", problem.path),
                    format!("must be mended: {}", problem.message),
                );
            }
        }
    }
}
