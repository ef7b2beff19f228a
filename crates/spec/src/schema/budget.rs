//! `mobula.autoscaling` of an application: what all its deployments may have together, and who
//! comes first when that is not enough. Ray has an `autoscaling_policy` in Python for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::acting::Place;
use crate::decode::{At, Fields, POSITIVE, Unknown, count, entries, float_in, integer_in};
use crate::error::Findings;
use crate::schema::{AUTOSCALING, Extension};

/// A priority is an order, not an amount: more steps than anybody has deployments.
const PRIORITY_MAX: i64 = 1_000_000;

/// Bounds that the deployments of one application share.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    pub max_replicas: Option<u32>,
    /// Of `ray_actor_options.num_cpus`.
    pub max_cpus: Option<f64>,
    /// As `max_cpus`.
    pub max_gpus: Option<f64>,
    /// By deployment, the higher first; 0 where none is given.
    pub priorities: BTreeMap<String, i64>,
}

// === impl Budget ===

impl Budget {
    pub(crate) fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let mut fields = Fields::open(findings, at, Place::Budget)?;
        let budget = Self {
            max_replicas: fields.optional(findings, "max_replicas", count(1)),
            max_cpus: fields.optional(findings, "max_cpus", float_in(POSITIVE)),
            max_gpus: fields.optional(findings, "max_gpus", float_in(POSITIVE)),
            priorities: fields
                .get(findings, "priorities", priorities)
                .unwrap_or_default(),
        };
        let given = ["max_replicas", "max_cpus", "max_gpus"]
            .map(|key| fields.at(key).is_some_and(|given| !given.node.is_null()));
        if given == [false; 3] {
            at.problem(
                findings,
                "at least one of max_replicas, max_cpus, max_gpus is required: without a bound \
                 there is nothing to share",
            );
        }
        fields.close(findings, Unknown::Reject);
        Some(budget)
    }

    /// What a block says, if anything.
    pub(crate) fn of(extension: Option<&Extension>) -> Option<Self> {
        // What is kept has been read before, so it can be read again.
        Self::deserialize(extension?.get(AUTOSCALING)?).ok()
    }
}

fn priorities(findings: &mut Findings, at: &At<'_>) -> Option<BTreeMap<String, i64>> {
    let read = integer_in(-PRIORITY_MAX, PRIORITY_MAX);
    let mut priorities = BTreeMap::new();
    for entry in entries(findings, at)? {
        if let Some(priority) = read(findings, &at.entry(entry)) {
            priorities.insert(entry.key.clone(), priority);
        }
    }
    Some(priorities)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ServeConfig;

    fn of(budget: &str) -> Result<Option<Budget>, String> {
        let text =
            format!("applications: [{{import_path: 'a:b', mobula: {{autoscaling: {budget}}}}}]");
        let checked = ServeConfig::from_yaml(&text).map_err(|errors| errors.to_string())?;
        let stored = checked.config.to_json().to_string();
        let again = ServeConfig::from_json(stored.as_bytes()).map_err(|e| e.to_string())?;
        assert_eq!(again.config, checked.config, "what is stored says the same");
        Ok(checked.config.applications[0].budget())
    }

    #[test]
    fn an_application_says_what_its_deployments_share() {
        let budget = of("{max_gpus: 2, max_replicas: 7, priorities: {Embedder: 10, Reranker: -1}}");
        let budget = budget.unwrap().unwrap();
        assert_eq!((budget.max_replicas, budget.max_cpus), (Some(7), None));
        assert_eq!(budget.max_gpus, Some(2.0));
        assert_eq!(budget.priorities["Embedder"], 10);
        assert_eq!(budget.priorities["Reranker"], -1);
    }

    #[test]
    fn wrong_values_say_what_is_allowed() {
        for (budget, named) in [
            (
                "{priorities: {A: 1}}",
                "autoscaling: at least one of max_replicas, max_cpus, max_gpus is required",
            ),
            (
                "{max_replicas: 0}",
                "max_replicas: must be an integer of at least 1, got 0",
            ),
            ("{max_cpus: -1}", "max_cpus: must be "),
            (
                "{max_cpus: 1, priorities: {A: high}}",
                "priorities.A: must be an integer",
            ),
            (
                "{max_cpus: 1, policy: reactive}",
                "policy: the key is not known here, allowed: max_replicas, max_cpus, max_gpus, priorities",
            ),
        ] {
            let errors = of(budget).unwrap_err().replace(" (line 1)", "");
            assert!(errors.contains(named), "{errors}\nis not\n{named}");
        }
    }

    #[test]
    fn policies_in_python_are_answered_with_what_exists() {
        let text = "applications: [{import_path: 'a:b', \
             autoscaling_policy: {policy_function: 'mine:of_all'}, \
             deployments: [{name: D, autoscaling_config: {max_replicas: 2, \
             policy: {policy_function: 'mine:of_one'}}}]}]";
        let warnings = ServeConfig::from_yaml(text).unwrap().warnings;
        let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        let all = warnings.join("\n");
        assert_eq!(warnings.len(), 2, "{all}");
        let of = |key: &str| {
            let found = warnings.iter().find(|text| text.contains(key));
            found.unwrap_or_else(|| panic!("{key} is not in {all}"))
        };
        let application = of("autoscaling_policy (line 1): has no effect: Python code cannot run");
        assert!(
            application.contains("max_replicas, max_cpus, max_gpus"),
            "{application}"
        );
        let deployment = of("autoscaling_config.policy (line 1): Python code cannot run here");
        assert!(deployment.contains("reactive"), "{deployment}");
    }
}
