//! `runtime_env` of an application or a deployment: an open object, in which the places that
//! code comes from must be addresses and not directories of the author's machine.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::acting::{NOT_YET, runtime_env_acts};
use crate::decode::{At, entries, list, string, values};
use crate::error::Findings;
use crate::node::{Data, entries_to_json};

/// Schemes that Ray downloads from or keeps packages under.
const SCHEMES: &[&str] = &[
    "gcs", "conda", "pip", "uv", "http", "https", "s3", "gs", "azure", "abfss", "file",
];

/// What Ray uploads as an archive; a `local://` directory is used in place and is none of it.
const ARCHIVES: &[&str] = &[".zip", ".whl", ".tar.gz", ".tgz", ".tar.xz"];

pub(crate) fn read(findings: &mut Findings, at: &At<'_>) -> Option<Map<String, Value>> {
    let entries = entries(findings, at)?;
    for entry in entries {
        let inner = at.entry(entry);
        match entry.key.as_str() {
            "working_dir" => address(findings, &inner),
            "py_modules" => {
                list(findings, &inner, |findings, at| {
                    address(findings, at);
                    Some(())
                });
            }
            // Ray finds this later, when it starts the process.
            "env_vars" => {
                values(findings, &inner, string);
            }
            _ => {}
        }
        if !runtime_env_acts(&entry.key) && inner.node.asks_for_something() {
            inner.warning(findings, NOT_YET);
        }
    }
    Some(entries_to_json(entries))
}

/// The variables of an environment that was read.
pub(crate) fn env_vars(env: &Map<String, Value>) -> BTreeMap<String, String> {
    let vars = env
        .get("env_vars")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    vars.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// The deployment's environment over the application's: its keys win, variables one by one.
pub(crate) fn merge(parent: &Map<String, Value>, child: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = parent.clone();
    merged.extend(child.clone());
    let both = [parent, child].map(|env| env.get("env_vars").and_then(Value::as_object));
    if let [Some(parent), Some(child)] = both {
        let mut env_vars = parent.clone();
        env_vars.extend(child.clone());
        merged.insert("env_vars".to_owned(), Value::Object(env_vars));
    }
    merged
}

/// The address is not repeated in the message: it may carry a password.
fn address(findings: &mut Findings, at: &At<'_>) {
    if at.node.is_null() {
        return;
    }
    let Data::Text(text) = &at.node.data else {
        at.wrong_kind(findings, "a remote or local:// URI");
        return;
    };
    let scheme = text
        .split_once(':')
        .map(|(scheme, _)| scheme.to_ascii_lowercase());
    let is_scheme = |scheme: &String| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    };
    match scheme.filter(is_scheme).as_deref() {
        None => at.problem(
            findings,
            "must be a remote URI, or a local:// URI of a directory that is on every node; \
             got a path",
        ),
        Some("local") => local_address(findings, at, text),
        Some(scheme) if SCHEMES.contains(&scheme) => {}
        Some(_) => {
            let allowed = SCHEMES.join(", ");
            let message = format!("has an unknown scheme, allowed are {allowed} and local");
            at.problem(findings, message);
        }
    }
}

fn local_address(findings: &mut Findings, at: &At<'_>, text: &str) {
    let prefix = "local://";
    let path = match text.get(..prefix.len()) {
        Some(start) if start.eq_ignore_ascii_case(prefix) => &text[prefix.len()..],
        _ => "",
    };
    let drive = matches!(path.as_bytes(), [d, b':', b'/' | b'\\', ..] if d.is_ascii_alphabetic());
    if !path.starts_with('/') && !drive {
        at.problem(
            findings,
            "must be an absolute path after local://, as in local:///srv/app",
        );
    } else if ARCHIVES.iter().any(|ending| path.ends_with(ending)) {
        at.problem(
            findings,
            "must be a directory after local://, not an archive",
        );
    }
}
