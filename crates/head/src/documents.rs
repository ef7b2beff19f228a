//! What the head keeps in the store, as versioned JSON. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::world::{DeploymentId, WorkerId, World};

/// The accepted config.
pub const CONFIG_KEY: &str = "serve/config";

/// What the head decided.
pub const INTENT_KEY: &str = "serve/intent";

/// The format that this release writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// The accepted config, whole, and when that was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredConfig {
    format: u32,
    pub deployed_time_s: f64,
    pub config: Value,
}

/// What a restarted head has to know before it acts: whom to wait for, and which counts the
/// scale route set. Everything else is reported again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StoredIntent {
    format: u32,
    /// Workers that have replicas.
    pub workers: BTreeSet<WorkerId>,
    /// (application, deployment, count) where it is not the config's.
    pub scaled: Vec<(String, String, u32)>,
}

// === impl StoredConfig ===

impl StoredConfig {
    /// A config as it is stored.
    pub fn new(config: Value, deployed_time_s: f64) -> StoredConfig {
        StoredConfig {
            format: FORMAT,
            deployed_time_s,
            config,
        }
    }

    /// The bytes to store.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A value made of JSON always has a text.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what was stored.
    pub fn from_bytes(bytes: &[u8]) -> Result<StoredConfig, String> {
        let stored: StoredConfig =
            serde_json::from_slice(bytes).map_err(|error| format!("{CONFIG_KEY}: {error}"))?;
        check_format(CONFIG_KEY, stored.format).map(|()| stored)
    }
}

// === impl StoredIntent ===

impl StoredIntent {
    /// What of the world has to survive.
    pub fn of(world: &World) -> StoredIntent {
        let workers = world
            .deployments()
            .flat_map(|(_, deployment)| deployment.replicas.values())
            .map(|replica| replica.worker.clone())
            .collect();
        let scaled = world
            .deployments()
            .filter(|(_, deployment)| deployment.target != deployment.spec.target)
            .map(|(id, deployment)| (id.application, id.deployment, deployment.target))
            .collect();
        StoredIntent {
            format: FORMAT,
            workers,
            scaled,
        }
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
            StoredConfig::from_bytes(&stored.to_bytes()),
            Ok(stored.clone())
        );
        let newer = StoredConfig {
            format: 2,
            ..stored
        };
        let error = StoredConfig::from_bytes(&newer.to_bytes()).unwrap_err();
        assert_eq!(
            error,
            "serve/config: format 2 is not known here, this release reads 1"
        );
    }
}
