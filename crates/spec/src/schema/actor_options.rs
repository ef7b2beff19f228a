//! `ray_actor_options`: what one replica needs of its machine.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::acting::Place;
use crate::decode::{At, Fields, NON_NEGATIVE, Unknown, float_in, list, object, string, values};
use crate::error::Findings;
use crate::schema::{label_selector, runtime_env};

/// CPUs of a replica whose options name none.
pub const NUM_CPUS_DEFAULT: f64 = 1.0;

/// `None` and empty mean: not asked for. `Serialize` gives the object of the status document.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RayActorOptions {
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub runtime_env: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_cpus: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_gpus: Option<f64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<f64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accelerator_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_strategy: Option<Vec<Map<String, Value>>>,
}

// === impl RayActorOptions ===

impl RayActorOptions {
    pub(crate) fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let mut fields = Fields::open(findings, at, Place::RayActorOptions)?;
        let amount = || float_in(NON_NEGATIVE);
        let options = Self {
            runtime_env: fields
                .get(findings, "runtime_env", runtime_env::read)
                .unwrap_or_default(),
            num_cpus: fields.optional(findings, "num_cpus", amount()),
            num_gpus: fields.optional(findings, "num_gpus", amount()),
            memory: fields.optional(findings, "memory", amount()),
            // Ray takes any object here and fails when it starts the replica.
            resources: fields
                .get(findings, "resources", |findings, at| {
                    values(findings, at, amount())
                })
                .unwrap_or_default(),
            accelerator_type: fields.optional(findings, "accelerator_type", string),
            label_selector: fields.optional(findings, "label_selector", label_selector::read),
            fallback_strategy: fields.optional(findings, "fallback_strategy", |findings, at| {
                list(findings, at, object)
            }),
        };
        fields.close(findings, Unknown::Warn);
        Some(options)
    }

    /// CPUs that a replica takes from its worker.
    pub fn cpus(&self) -> f64 {
        self.num_cpus.unwrap_or(NUM_CPUS_DEFAULT)
    }

    /// What a replica takes from its worker, by Ray's names: the `required_resources` of the
    /// status document. Nothing is named that is zero.
    pub fn required_resources(&self) -> BTreeMap<String, f64> {
        let mut required = self.resources.clone();
        required.insert("CPU".to_owned(), self.cpus());
        required.extend(self.num_gpus.map(|gpus| ("GPU".to_owned(), gpus)));
        required.extend(self.memory.map(|bytes| ("memory".to_owned(), bytes)));
        required.retain(|_, amount| *amount > 0.0);
        required
    }
}
