//! The types of the schema, each with its fields, defaults, rules and reader in one file.

pub(crate) mod actor_options;
pub(crate) mod application;
pub(crate) mod autoscaling;
pub(crate) mod budget;
pub(crate) mod bundles;
pub(crate) mod deployment;
pub(crate) mod deployment_rules;
pub(crate) mod label_selector;
pub(crate) mod logging;
pub(crate) mod options;
pub(crate) mod placement;
pub(crate) mod queueing;
pub(crate) mod request_router;
pub(crate) mod runtime_env;
pub(crate) mod scaling;
pub(crate) mod traffic;

use serde_json::{Map, Value};

use crate::decode::{At, boolean, entries};
use crate::error::{Findings, LateError};
use crate::node::Node;
use crate::schema::budget::Budget;
use crate::schema::placement::CompactionMode;
use crate::schema::queueing::Queueing;
use crate::schema::scaling::Scaling;
use crate::schema::traffic::Traffic;

/// The block under the key `mobula`: what Ray does not have. Ray ignores the key, so a file
/// with it stays loadable there.
pub(crate) type Extension = Map<String, Value>;

/// What a warning says of a value that is refused only after the config was accepted.
pub(crate) const WILL_FAIL: &str = "the application will fail to deploy";

/// Whether a rollout that fails is taken back by itself.
const ROLLBACK: &str = "rollback";

/// How a new version takes over the requests.
pub(crate) const TRAFFIC: &str = "traffic";

/// What Ray's `autoscaling_config` has no words for.
pub(crate) const AUTOSCALING: &str = "autoscaling";

/// In which order requests that wait are started.
pub(crate) const QUEUEING: &str = "queueing";

/// Whether workers are emptied so that they can go.
const COMPACTION: &str = "compaction";

/// Where an extension block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Top,
    Application,
    Deployment,
}

/// Unlike everywhere else an unknown key is a problem: the block is ours, so it is a typing
/// error or belongs to a newer release.
pub(crate) fn extension(findings: &mut Findings, at: &At<'_>, level: Level) -> Option<Extension> {
    let known = level.keys();
    let mut extension = Extension::new();
    for entry in entries(findings, at)? {
        let field = at.entry(entry);
        if !known.contains(&entry.key.as_str()) {
            let allowed = known.join(", ");
            field.problem(
                findings,
                format!("the key is not known here, allowed: {allowed}"),
            );
        } else if let Some(value) = extension_value(findings, &field, level, &entry.key) {
            extension.insert(entry.key.clone(), value);
        }
    }
    Some(extension)
}

fn extension_value(
    findings: &mut Findings,
    field: &At<'_>,
    level: Level,
    key: &str,
) -> Option<Value> {
    if key == AUTOSCALING && level == Level::Application {
        let budget = Budget::read(findings, field)?;
        return serde_json::to_value(budget).ok();
    }
    if key == AUTOSCALING {
        let scaling = Scaling::read(findings, field)?;
        return serde_json::to_value(scaling).ok();
    }
    if key == QUEUEING {
        let queueing = Queueing::read(findings, field)?;
        return serde_json::to_value(queueing).ok();
    }
    if key == COMPACTION {
        return CompactionMode::read(findings, field).map(|mode| mode.name().into());
    }
    if key != TRAFFIC {
        return boolean(findings, field).map(Value::Bool);
    }
    if field.node.is_null() {
        return Some(Value::Null);
    }
    let traffic = Traffic::read(findings, field)?;
    serde_json::to_value(traffic).ok()
}

// === impl Level ===

impl Level {
    /// The keys that a block of this level may have: a rollback takes back whole applications.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Level::Top => &[ROLLBACK, COMPACTION],
            Level::Application => &[AUTOSCALING, ROLLBACK, TRAFFIC],
            Level::Deployment => &[AUTOSCALING, QUEUEING, TRAFFIC],
        }
    }
}

/// What a block says about taking back failed rollouts, if anything.
pub(crate) fn rollback(extension: Option<&Extension>) -> Option<bool> {
    extension?.get(ROLLBACK)?.as_bool()
}

/// What the block at the top says about emptying workers.
pub(crate) fn compaction(extension: Option<&Extension>) -> Option<CompactionMode> {
    CompactionMode::of(extension?.get(COMPACTION)?.as_str()?)
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

#[cfg(test)]
mod tests {
    use crate::{CompactionMode, ServeConfig};

    fn rolls_back(top: &str, application: &str) -> bool {
        let text = format!("{top}\napplications: [{{import_path: 'a:b', {application}}}]");
        let config = ServeConfig::from_yaml(&text).unwrap().config;
        // What is stored says the same.
        let stored = config.to_json().to_string();
        let again = ServeConfig::from_json(stored.as_bytes()).unwrap().config;
        let said = again.rolls_back(&again.applications[0]);
        assert_eq!(config.rolls_back(&config.applications[0]), said);
        said
    }

    #[test]
    fn whether_workers_are_emptied_is_said_at_the_top_and_survives_being_stored() {
        for (block, mode) in [
            ("{}", CompactionMode::Auto),
            ("{compaction: always}", CompactionMode::Always),
            ("{compaction: never}", CompactionMode::Never),
        ] {
            let text = format!("applications: []\nmobula: {block}");
            let config = ServeConfig::from_yaml(&text).unwrap().config;
            let stored = config.to_json().to_string();
            let again = ServeConfig::from_json(stored.as_bytes()).unwrap().config;
            assert_eq!(
                [config.compaction(), again.compaction()],
                [mode; 2],
                "{text}"
            );
        }
    }

    #[test]
    fn an_application_says_whether_it_rolls_back_before_the_top_does() {
        assert!(rolls_back("", ""));
        assert!(!rolls_back("mobula: {rollback: false}", ""));
        assert!(!rolls_back("", "mobula: {rollback: no}"));
        assert!(rolls_back(
            "mobula: {rollback: false}",
            "mobula: {rollback: true}"
        ));
        assert!(rolls_back("mobula: {}", "mobula: null"));
    }

    #[test]
    fn unknown_keys_and_wrong_values_of_our_block_are_refused() {
        for (text, named) in [
            (
                "applications: []\nmobula: {rolback: true}",
                "mobula.rolback: the key is not known here, allowed: rollback, compaction",
            ),
            (
                "applications: []\nmobula: {compaction: sometimes}",
                "mobula.compaction: must be one of auto, always, never",
            ),
            (
                "applications: []\nmobula: {rollback: maybe}",
                "mobula.rollback: must be true or false",
            ),
            (
                "applications: [{import_path: 'a:b', deployments: \
                 [{name: D, mobula: {rollback: true}}]}]",
                "mobula.rollback: the key is not known here, allowed: autoscaling, queueing, \
                 traffic",
            ),
        ] {
            let errors = ServeConfig::from_yaml(text).unwrap_err().to_string();
            let plain = errors.replace(" (line 1)", "").replace(" (line 2)", "");
            assert!(plain.contains(named), "{errors}");
        }
    }
}
