//! What a pod's object says, as far as plans are made from it. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use super::manifest::{GENERATION_LABEL, GROUP_LABEL};

/// The pods of the cluster, by uid.
pub type Pods = BTreeMap<String, PodView>;

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    pub name: String,
    pub group: String,
    pub generation: String,
    pub stage: Stage,
    /// The node that it runs on; empty before there is one.
    pub node: String,
    /// The node takes no more pods, because it is about to be drained.
    pub cordoned: bool,
    /// Somebody decided that it goes: it was evicted, preempted or deleted.
    pub terminating: bool,
}

/// How far a pod has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The scheduler found no node for it.
    Unschedulable,
    /// Not running yet.
    Pending,
    /// Its containers run.
    Running,
    /// Its containers have ended for good.
    Ended,
}

/// The pod's uid and what is seen of it; None: it is not one of ours.
pub fn view(pod: &Pod) -> Option<(String, PodView)> {
    let labels = pod.metadata.labels.as_ref()?;
    let status = pod.status.as_ref();
    let is_true = |kind: &str| condition(pod, kind).is_some_and(|(is, _)| is == "True");
    let stage = match status.and_then(|status| status.phase.as_deref()) {
        Some("Succeeded" | "Failed") => Stage::Ended,
        Some("Running") => Stage::Running,
        _ if condition(pod, "PodScheduled") == Some(("False", "Unschedulable")) => {
            Stage::Unschedulable
        }
        _ => Stage::Pending,
    };
    let view = PodView {
        name: pod.metadata.name.clone()?,
        group: labels.get(GROUP_LABEL)?.clone(),
        generation: labels.get(GENERATION_LABEL).cloned().unwrap_or_default(),
        stage,
        node: pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
            .unwrap_or_default(),
        cordoned: false,
        // An eviction sets both; the condition alone comes with preemption and taints.
        terminating: pod.metadata.deletion_timestamp.is_some() || is_true("DisruptionTarget"),
    };
    Some((pod.metadata.uid.clone()?, view))
}

/// Status and reason of a condition.
fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<(&'a str, &'a str)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions
        .iter()
        .find(|condition| condition.type_ == kind)?;
    Some((&found.status, found.reason.as_deref().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn seen(status: Value, deleted: bool) -> PodView {
        let mut pod = json!({
            "metadata": {
                "name": "p", "uid": "u",
                "labels": {GROUP_LABEL: "g", GENERATION_LABEL: "1"},
            },
            "status": status,
        });
        if deleted {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        view(&serde_json::from_value(pod).unwrap()).unwrap().1
    }

    #[test]
    fn a_pod_without_a_node_is_unschedulable_and_without_a_verdict_pending() {
        let conditions = json!([
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        ]);
        let status = json!({"phase": "Pending", "conditions": conditions});
        assert_eq!(seen(status, false).stage, Stage::Unschedulable);
        assert_eq!(
            seen(json!({"phase": "Pending"}), false).stage,
            Stage::Pending
        );
        assert_eq!(seen(json!({}), false).stage, Stage::Pending);
        assert_eq!(seen(json!({"phase": "Failed"}), false).stage, Stage::Ended);
    }

    #[test]
    fn a_pod_terminates_once_it_is_deleted_or_a_disruption_is_announced() {
        let running = json!({"phase": "Running"});
        assert!(!seen(running.clone(), false).terminating);
        assert!(seen(running, true).terminating);
        let conditions = json!([{"type": "DisruptionTarget", "status": "True"}]);
        let disrupted = json!({"phase": "Running", "conditions": conditions});
        assert!(seen(disrupted, false).terminating);
    }
}
