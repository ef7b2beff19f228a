//! What the head keeps in the store, as versioned JSON. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::history::History;
use crate::world::canary::{Canary, Stage};
use crate::world::deployment_status::Direction;
use crate::world::group::{Gang, GangId, Remembered, Reservation};
use crate::world::{DeploymentId, ReplicaId, Resources, WorkerId, World};

/// The accepted configs: what became of each, and which one counts.
pub const HISTORY_KEY: &str = "serve/history/index";

/// Where releases without a history kept the one config.
pub const LEGACY_CONFIG_KEY: &str = "serve/config";

/// What the head decided.
pub const INTENT_KEY: &str = "serve/intent";

/// The format that this release writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// The config of one revision, and when it was accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredConfig {
    format: u32,
    pub deployed_time_s: f64,
    pub config: Value,
    /// Applications that this revision did not speak about, and when they were declared.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub earlier: BTreeMap<String, f64>,
    /// Applications that returned to this config when a newer one failed, and what failed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub taken_back: BTreeMap<String, String>,
}

/// The index of the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct StoredHistory {
    format: u32,
    #[serde(flatten)]
    history: History,
}

/// What a restarted head has to know before it acts: whom to wait for, and which counts the
/// scale route set. Everything else is reported again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StoredIntent {
    format: u32,
    /// Workers that have replicas.
    pub workers: BTreeSet<WorkerId>,
    /// The config that it was decided for; absent: an earlier release wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// (application, deployment, count) where it is not the config's.
    pub scaled: Vec<(String, String, u32)>,
    /// The newest revision with which each application was RUNNING.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub good: BTreeMap<String, u64>,
    /// What replicas hold beside the worker that they run in, and their gangs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<ReplicaId, StoredGroup>,
    /// Which way `target_capacity` went: "up" or "down".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_direction: Option<Direction>,
    /// Versions that prove themselves, or are being rolled out after they did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canaries: Vec<StoredCanary>,
    /// Applications whose newest config may still be taken back for what its replicas do.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub probations: BTreeMap<String, StoredProbation>,
}

/// What a replica's worker does not report of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredGroup {
    /// (worker, what is held there)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<(WorkerId, Resources)>,
    /// (id, size)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gang: Option<(GangId, u32)>,
}

/// Until when, and to where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredProbation {
    /// Unix time.
    pub until_s: f64,
    /// The revision of the config before.
    pub before: u64,
}

/// How far a canary has come. What was counted is not stored: after a restart a step is judged
/// by new answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StoredCanary {
    pub application: String,
    pub deployment: String,
    pub code_version: String,
    /// Counted from 0.
    #[serde(default)]
    pub step: usize,
    /// Unix time; absent: the step has not begun.
    #[serde(default)]
    pub since_s: Option<f64>,
    #[serde(default)]
    pub promoted: bool,
    /// Why it was given up, if it was.
    #[serde(default)]
    pub given_up: Option<String>,
}

/// The key of a revision's config; as many digits as a revision can have, so that they sort.
pub fn config_key(revision: u64) -> String {
    format!("serve/history/{revision:020}")
}

// === impl StoredConfig ===

impl StoredConfig {
    /// A config as it is stored.
    pub fn new(config: Value, deployed_time_s: f64) -> StoredConfig {
        StoredConfig {
            format: FORMAT,
            deployed_time_s,
            config,
            earlier: BTreeMap::new(),
            taken_back: BTreeMap::new(),
        }
    }

    /// When an application was declared.
    pub fn declared_at_s(&self, application: &str) -> f64 {
        self.earlier
            .get(application)
            .copied()
            .unwrap_or(self.deployed_time_s)
    }

    /// The bytes to store.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A value made of JSON always has a text.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what was stored.
    pub fn from_bytes(key: &str, bytes: &[u8]) -> Result<StoredConfig, String> {
        let stored: StoredConfig =
            serde_json::from_slice(bytes).map_err(|error| format!("{key}: {error}"))?;
        check_format(key, stored.format).map(|()| stored)
    }
}

// === impl StoredIntent ===

impl StoredIntent {
    /// What of the world has to survive.
    pub fn of(world: &World) -> StoredIntent {
        let workers = world
            .deployments()
            .flat_map(|(_, deployment)| deployment.replicas.values())
            .flat_map(|replica| replica.workers().cloned())
            // Those that an earlier head knew: the next one may come before they report.
            .chain(world.awaited_workers.iter().cloned())
            .collect();
        let scaled = world
            .deployments()
            .filter(|(_, deployment)| deployment.target != deployment.spec.target)
            .map(|(id, deployment)| (id.application, id.deployment, deployment.target))
            .collect();
        let good = world
            .applications
            .iter()
            .filter_map(|(name, application)| {
                let good = application.good.as_ref()?;
                Some((name.clone(), good.revision))
            })
            .collect();
        let probations = world
            .applications
            .iter()
            .filter_map(|(name, application)| {
                let probation = application.probation.as_ref()?;
                let stored = StoredProbation {
                    until_s: probation.until_s,
                    before: probation.before.revision,
                };
                Some((name.clone(), stored))
            })
            .collect();
        StoredIntent {
            format: FORMAT,
            workers,
            revision: Some(world.revision),
            scaled,
            good,
            groups: groups(world),
            capacity_direction: world.capacity.direction,
            canaries: world
                .deployments()
                .filter_map(|(id, deployment)| {
                    let canary = deployment.canary.as_ref()?;
                    Some(StoredCanary::of(id, canary))
                })
                .collect(),
            probations,
        }
    }

    /// The same, with another count of one deployment.
    #[must_use]
    pub fn with_count(mut self, id: &DeploymentId, count: u32) -> StoredIntent {
        let is_other = |(application, deployment, _): &(String, String, u32)| {
            *application != id.application || *deployment != id.deployment
        };
        self.scaled.retain(is_other);
        let (application, deployment) = (id.application.clone(), id.deployment.clone());
        self.scaled.push((application, deployment, count));
        self.scaled.sort();
        self
    }

    /// How far the canary of a deployment was, and of which version it is.
    pub fn canary(&self, id: &DeploymentId) -> Option<(&str, Stage)> {
        let of_it = |canary: &&StoredCanary| {
            canary.application == id.application && canary.deployment == id.deployment
        };
        let stored = self.canaries.iter().find(of_it)?;
        Some((&stored.code_version, stored.stage()))
    }

    /// The counts by deployment.
    pub fn counts(&self) -> BTreeMap<DeploymentId, u32> {
        self.scaled
            .iter()
            .map(|(application, deployment, count)| {
                let id = DeploymentId {
                    application: application.clone(),
                    deployment: deployment.clone(),
                };
                (id, *count)
            })
            .collect()
    }

    /// The bytes to store.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what was stored.
    pub fn from_bytes(bytes: &[u8]) -> Result<StoredIntent, String> {
        let stored: StoredIntent =
            serde_json::from_slice(bytes).map_err(|error| format!("{INTENT_KEY}: {error}"))?;
        check_format(INTENT_KEY, stored.format).map(|()| stored)
    }
}

/// Those of replicas that exist, and those that an earlier head knew: the next one may come
/// before their workers report.
fn groups(world: &World) -> BTreeMap<ReplicaId, StoredGroup> {
    let existing = world
        .deployments()
        .flat_map(|(_, deployment)| &deployment.replicas)
        .filter(|(_, replica)| !replica.reserved.is_empty() || replica.gang.is_some())
        .map(|(id, replica)| (id, &replica.reserved, &replica.gang));
    let remembered = world.remembered.iter();
    let remembered = remembered.map(|(id, known)| (id, &known.reserved, &known.gang));
    existing
        .chain(remembered)
        .map(|(id, reserved, gang)| (id.clone(), StoredGroup::of(reserved, gang.as_ref())))
        .collect()
}

// === impl StoredGroup ===

impl StoredGroup {
    fn of(reserved: &[Reservation], gang: Option<&Gang>) -> StoredGroup {
        let reserved = reserved.iter();
        StoredGroup {
            reserved: reserved
                .map(|reservation| (reservation.worker.clone(), reservation.resources.clone()))
                .collect(),
            gang: gang.map(|gang| (gang.id.clone(), gang.size)),
        }
    }

    /// What the world keeps until the replica is reported.
    pub fn remembered(self) -> Remembered {
        let reserved = self.reserved.into_iter();
        Remembered {
            reserved: reserved
                .map(|(worker, resources)| Reservation { worker, resources })
                .collect(),
            gang: self.gang.map(|(id, size)| Gang { id, size }),
        }
    }
}

// === impl StoredCanary ===

impl StoredCanary {
    fn of(id: DeploymentId, canary: &Canary) -> StoredCanary {
        let stored = StoredCanary {
            application: id.application,
            deployment: id.deployment,
            code_version: canary.version.clone(),
            ..StoredCanary::default()
        };
        match &canary.stage {
            Stage::Step { step, since_s } => StoredCanary {
                step: *step,
                since_s: *since_s,
                ..stored
            },
            Stage::Promoted => StoredCanary {
                promoted: true,
                ..stored
            },
            Stage::GivenUp(why) => StoredCanary {
                given_up: Some(why.clone()),
                ..stored
            },
        }
    }

    fn stage(&self) -> Stage {
        match &self.given_up {
            Some(why) => Stage::GivenUp(why.clone()),
            None if self.promoted => Stage::Promoted,
            None => Stage::Step {
                step: self.step,
                since_s: self.since_s,
            },
        }
    }
}

/// The bytes of the index.
pub fn history_to_bytes(history: &History) -> Vec<u8> {
    let stored = StoredHistory {
        format: FORMAT,
        history: history.clone(),
    };
    serde_json::to_vec(&stored).unwrap_or_default()
}

/// Reads the index.
pub fn history_from_bytes(bytes: &[u8]) -> Result<History, String> {
    let stored: StoredHistory =
        serde_json::from_slice(bytes).map_err(|error| format!("{HISTORY_KEY}: {error}"))?;
    check_format(HISTORY_KEY, stored.format).map(|()| stored.history)
}

fn check_format(key: &str, format: u32) -> Result<(), String> {
    if format == FORMAT {
        return Ok(());
    }
    Err(format!(
        "{key}: format {format} is not known here, this release reads {FORMAT}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_refused_and_not_guessed_at() {
        let stored = StoredConfig::new(serde_json::json!({"applications": []}), 1.5);
        assert_eq!(
            StoredConfig::from_bytes("k", &stored.to_bytes()),
            Ok(stored.clone())
        );
        let newer = StoredConfig {
            format: 2,
            ..stored
        };
        let error = StoredConfig::from_bytes("k", &newer.to_bytes()).unwrap_err();
        assert_eq!(error, "k: format 2 is not known here, this release reads 1");
    }
}
