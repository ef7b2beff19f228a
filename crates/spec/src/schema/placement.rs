//! Where replicas stand and what stands beside them: gangs and deployment actors.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::acting::Place;
use crate::decode::{At, Fields, Unknown, count, list, object, string, word_of};
use crate::error::Findings;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum GangPlacement {
    #[default]
    Pack,
    Spread,
}

/// What happens when one replica of a gang dies. Ray names a second one, `RESTART_REPLICA`,
/// and refuses it as not implemented.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GangFailure {
    #[default]
    RestartGang,
}

/// Whether replicas move so that workers with few of them can go (`mobula.compaction`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum CompactionMode {
    /// Where a provisioner would take the worker away.
    #[default]
    Auto,
    /// Wherever it is possible.
    Always,
    Never,
}

/// Replicas that are placed and restarted together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GangSchedulingConfig {
    pub gang_size: u32,
    pub gang_placement_strategy: GangPlacement,
    pub runtime_failure_policy: GangFailure,
}

/// An actor that the replicas of a deployment share.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeploymentActor {
    pub name: String,
    pub actor_class: String,
    pub init_args: Vec<Value>,
    pub init_kwargs: Map<String, Value>,
    pub actor_options: Map<String, Value>,
}

// === impl CompactionMode ===

impl CompactionMode {
    const WORDS: [(&'static str, Self); 3] = [
        ("auto", Self::Auto),
        ("always", Self::Always),
        ("never", Self::Never),
    ];

    pub(crate) fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        word_of(&Self::WORDS)(findings, at)
    }

    /// The mode of that name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let found = Self::WORDS.iter().find(|(word, _)| *word == name);
        found.map(|(_, mode)| *mode)
    }

    pub(crate) fn name(self) -> &'static str {
        let found = Self::WORDS.iter().find(|(_, mode)| *mode == self);
        found.map_or("auto", |(word, _)| word)
    }
}

// === impl GangSchedulingConfig ===

impl GangSchedulingConfig {
    pub(crate) fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let mut fields = Fields::open(findings, at, Place::GangSchedulingConfig)?;
        let size = fields.require(findings, "gang_size", count(1));
        let placements = [
            ("PACK", GangPlacement::Pack),
            ("SPREAD", GangPlacement::Spread),
        ];
        let gang_placement_strategy = fields
            .get(findings, "gang_placement_strategy", word_of(&placements))
            .unwrap_or_default();
        let failures = [("RESTART_GANG", GangFailure::RestartGang)];
        let runtime_failure_policy = fields
            .get(findings, "runtime_failure_policy", word_of(&failures))
            .unwrap_or_default();
        fields.close(findings, Unknown::Warn);
        Some(Self {
            gang_size: size?,
            gang_placement_strategy,
            runtime_failure_policy,
        })
    }
}

// === impl DeploymentActor ===

impl DeploymentActor {
    pub(crate) fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let mut fields = Fields::open(findings, at, Place::DeploymentActor)?;
        let name = fields.require(findings, "name", string);
        let actor_class = fields.require(findings, "actor_class", string);
        let init_args = fields.get(findings, "init_args", |findings, at| {
            list(findings, at, |_, at| Some(at.node.to_json()))
        });
        let init_kwargs = fields.get(findings, "init_kwargs", object);
        let actor_options = fields.get(findings, "actor_options", object);
        fields.close(findings, Unknown::Warn);
        Some(Self {
            name: name?,
            actor_class: actor_class?,
            init_args: init_args.unwrap_or_default(),
            init_kwargs: init_kwargs.unwrap_or_default(),
            actor_options: actor_options.unwrap_or_default(),
        })
    }

    /// Checks a list that the config keeps as plain objects, in Ray's words where it has some.
    pub(crate) fn check_names(actors: &[Self]) -> Result<(), String> {
        let mut names: Vec<&str> = actors.iter().map(|actor| actor.name.as_str()).collect();
        names.sort_unstable();
        let mut twice: Vec<&str> = names
            .windows(2)
            .filter(|pair| pair[0] == pair[1])
            .map(|pair| pair[0])
            .collect();
        twice.dedup();
        if twice.is_empty() {
            return Ok(());
        }
        let twice: Vec<String> = twice.iter().map(|name| format!("'{name}'")).collect();
        let twice = twice.join(", ");
        Err(format!(
            "deployment_actors must have unique names. Duplicate name(s): [{twice}]"
        ))
    }
}
