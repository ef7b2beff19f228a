//! The types of the schema, each with its fields, defaults, rules and reader in one file.

pub(crate) mod actor_options;
pub(crate) mod application;
pub(crate) mod autoscaling;
pub(crate) mod deployment;
pub(crate) mod deployment_rules;
pub(crate) mod label_selector;
pub(crate) mod logging;
pub(crate) mod options;
pub(crate) mod placement;
pub(crate) mod request_router;
pub(crate) mod runtime_env;

use serde_json::{Map, Value};

use crate::decode::{At, entries};
use crate::error::{Findings, LateError};
use crate::node::{Node, entries_to_json};

/// The block under the key `mobula`: what Ray does not have. Ray ignores the key, so a file
/// with it stays loadable there.
pub(crate) type Extension = Map<String, Value>;

/// What a warning says of a value that is refused only after the config was accepted.
pub(crate) const WILL_FAIL: &str = "the application will fail to deploy";

/// Keys of the extension block, at the top, in an application and in a deployment. None yet.
const EXTENSION_KNOWN: &[&str] = &[];

/// Unlike everywhere else an unknown key is a problem: the block is ours, so it is a typing
/// error or belongs to a newer release.
pub(crate) fn extension(findings: &mut Findings, at: &At<'_>) -> Option<Extension> {
    let entries = entries(findings, at)?;
    for entry in entries {
        if !EXTENSION_KNOWN.contains(&entry.key.as_str()) {
            at.entry(entry)
                .problem(findings, "the key is not known here, no keys are known yet");
        }
    }
    Some(entries_to_json(entries))
}

/// A tree made of JSON, read by a schema's reader: how values are checked that a config keeps
/// as plain objects until the application's code is known.
pub(crate) fn read_late<T>(
    map: &Map<String, Value>,
    path: &str,
    read: impl FnOnce(&mut Findings, &At<'_>) -> Option<T>,
) -> Result<T, LateError> {
    let node = Node::from_json(&Value::Object(map.clone()));
    let mut findings = Findings::default();
    let value = read(&mut findings, &At::named(&node, path));
    match (findings.finish(), value) {
        (Ok(_), Some(value)) => Ok(value),
        (Err(errors), _) => Err(LateError::new(errors.to_string())),
        // A reader that gives nothing has said why.
        (Ok(_), None) => Err(LateError::new(format!("{path} is not usable"))),
    }
}

/// Checks now what only counts later: a problem becomes a warning, because Ray answers 200
/// and lets the application fail.
pub(crate) fn warn_early<'n, T>(
    findings: &mut Findings,
    at: &At<'n>,
    read: impl FnOnce(&mut Findings, &At<'n>) -> Option<T>,
) {
    let mut scratch = Findings::default();
    read(&mut scratch, at);
    findings.warn_of(scratch, WILL_FAIL);
}
