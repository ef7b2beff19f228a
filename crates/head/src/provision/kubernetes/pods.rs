//! What a pod's object says, as far as plans are made from it. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::manifest::{GENERATION_LABEL, GROUP_LABEL};

/// Characters that are kept of what a container waits for.
const WAIT_CHARS_MAX: usize = 300;

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
    /// Of the container that was started again most often.
    pub restarts: u32,
    /// What a container waits for that does not come by itself.
    pub waits: Option<Wait>,
}

/// Why a container does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// "ErrImagePull: …", in the words of the kubelet.
    pub text: String,
    /// It has not even been started: an image or a part of its configuration is missing.
    pub is_stuck: bool,
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
        restarts: containers(pod)
            .map(|container| u32::try_from(container.restart_count).unwrap_or(0))
            .max()
            .unwrap_or(0),
        waits: containers(pod).find_map(wait),
    };
    Some((pod.metadata.uid.clone()?, view))
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|status| {
        let init = status.init_container_statuses.iter().flatten();
        init.chain(status.container_statuses.iter().flatten())
    })
}

/// What the container waits for; None: it runs, has ended, or is about to start.
fn wait(container: &ContainerStatus) -> Option<Wait> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    if matches!(reason, "ContainerCreating" | "PodInitializing") {
        return None;
    }
    let message = waiting.message.as_deref().unwrap_or_default();
    let text: String = format!("{reason}: {message}")
        .trim_end_matches(": ")
        .chars()
        .take(WAIT_CHARS_MAX)
        .collect();
    Some(Wait {
        text,
        is_stuck: reason != "CrashLoopBackOff",
    })
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

    #[test]
    fn a_container_that_cannot_start_says_why_and_one_that_ends_is_counted() {
        let waiting = |reason: &str, restarts: u32| {
            let state = json!({"waiting": {"reason": reason, "message": "because"}});
            let worker = json!({
                "name": "worker", "image": "i", "imageID": "", "ready": false,
                "restartCount": restarts, "state": state,
            });
            seen(
                json!({"phase": "Pending", "containerStatuses": [worker]}),
                false,
            )
        };
        assert_eq!(waiting("ContainerCreating", 0).waits, None);
        let wait = waiting("ErrImagePull", 0).waits.unwrap();
        assert_eq!(
            (wait.text.as_str(), wait.is_stuck),
            ("ErrImagePull: because", true)
        );
        let crashed = waiting("CrashLoopBackOff", 4);
        assert_eq!(
            (crashed.restarts, crashed.waits.unwrap().is_stuck),
            (4, false)
        );
    }
}
