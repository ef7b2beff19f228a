//! `mobula import`: a KubeRay RayService becomes values of the Helm chart and a Serve config, and
//! a list of what has no equivalent here.
//!
//! Reading and writing files is here; `rayservice` translates, and does nothing else.

mod deployments;
mod env;
mod fields;
mod groups;
mod pod;
mod rayservice;
mod serve;
#[cfg(test)]
mod tests;

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use self::rayservice::{Imported, translate};
use crate::args::ImportArgs;

/// The limits of one document hold for each of a file; this many are looked at.
const DOCUMENTS_MAX: usize = 1_000;

/// Translates the RayService of a file.
pub fn import(args: &ImportArgs) -> Result<()> {
    let file = args.manifest.display();
    let text =
        std::fs::read_to_string(&args.manifest).with_context(|| format!("cannot read {file}"))?;
    let manifest = rayservice_of(&text, args.name.as_deref()).with_context(|| file.to_string())?;
    let imported = translate(manifest).with_context(|| file.to_string())?;
    let (values, serve) = texts(&imported)?;
    match &args.output_dir {
        Some(dir) => write(dir, &values, &serve)?,
        None => print!("{values}---\n{serve}"),
    }
    for note in &imported.notes {
        eprintln!("note: {note}");
    }
    eprintln!("{} note(s). Deploy with:", imported.notes.len());
    eprintln!("  mobula validate serve.yaml");
    eprintln!(
        "  helm install NAME deploy/k8s/chart -f values.yaml --set-file serveConfig=serve.yaml"
    );
    Ok(())
}

/// The two files.
fn texts(imported: &Imported) -> Result<(String, String)> {
    let yaml = |value: &Value| serde_saphyr::to_string(value).context("cannot be written as YAML");
    Ok((
        format!(
            "# values.yaml of the Mobula chart\n{}",
            yaml(&imported.values)?
        ),
        format!("# serve.yaml, the Serve config\n{}", yaml(&imported.serve)?),
    ))
}

/// The one RayService among the documents of a file.
fn rayservice_of(text: &str, name: Option<&str>) -> Result<Value> {
    let mut found = Vec::new();
    let documents = documents(text);
    if documents.len() > DOCUMENTS_MAX {
        let count = documents.len();
        bail!("there are {count} documents, allowed are {DOCUMENTS_MAX}");
    }
    for (index, document) in documents.iter().enumerate() {
        let value = mobula_spec::yaml_to_json(document)
            .with_context(|| format!("document {}", index + 1))?;
        let own = value["metadata"]["name"].as_str();
        if value["kind"] == "RayService" && (name.is_none() || name == own) {
            found.push(value);
        }
    }
    let names = |found: &[Value]| {
        let names = found
            .iter()
            .filter_map(|item| item["metadata"]["name"].as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    match (found.len(), name) {
        (1, _) => Ok(found.remove(0)),
        (0, Some(name)) => bail!("no document is a RayService named '{name}'"),
        (0, None) => bail!("no document is a RayService (`kind: RayService`)"),
        _ => bail!(
            "several documents are a RayService; choose with --name: {}",
            names(&found)
        ),
    }
}

/// The documents of a YAML stream that are not empty. `---` at the start of a line begins a
/// document wherever it stands, so no parser is needed to find it.
fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        if line == "---" || line.starts_with("--- ") {
            documents.push(String::new());
        } else if let Some(last) = documents.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    documents.retain(|document| !document.lines().all(blank));
    documents
}

fn write(dir: &Path, values: &str, serve: &str) -> Result<()> {
    let files = [
        (dir.join("values.yaml"), values),
        (dir.join("serve.yaml"), serve),
    ];
    for (path, _) in &files {
        if path.exists() {
            bail!(
                "{} is there already; choose another --output-dir",
                path.display()
            );
        }
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for (path, text) in files {
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
