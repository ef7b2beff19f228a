//! The calls to the Kubernetes API, and what their failures mean. Nothing is decided here.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions,
};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use thiserror::Error;

use super::manifest::{
    CLUSTER_LABEL, GROUP_LABEL, MANAGED_BY, MANAGED_BY_LABEL, Owner, TEMPLATE_ANNOTATION,
    VERDICT_ANNOTATION_PREFIX, owner_name, owner_reference,
};
use super::verdicts::Verdicts;

/// A call that takes longer has failed; whether it had an effect, the watch will tell.
const CALL_SECONDS_MAX: Duration = Duration::from_secs(10);

/// Characters of a note in an event; Kubernetes takes 1 kB.
const NOTE_CHARS_MAX: usize = 900;

/// A call failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CallError {
    /// Kubernetes understood and said no.
    #[error("{0}")]
    Refused(String),
    /// There is no such object, or not any more.
    #[error("not found: {0}")]
    NotFound(String),
    /// An object of that name, or another one of that name, is there.
    #[error("{0}")]
    Conflict(String),
    /// No answer, or none that says whether it happened.
    #[error("the Kubernetes API does not answer: {0}")]
    Away(String),
}

/// One cluster's objects in one namespace.
#[derive(Clone)]
pub struct ClusterApi {
    pub pods: Api<Pod>,
    /// Readable only where a ClusterRole says so.
    pub nodes: Api<Node>,
    /// Pods with all fields of the template, those that we do not know included.
    raw_pods: Api<DynamicObject>,
    config_maps: Api<ConfigMap>,
    budgets: Api<PodDisruptionBudget>,
    events: Api<Event>,
    namespace: String,
    cluster: String,
}

// === impl ClusterApi ===

impl ClusterApi {
    /// By $KUBECONFIG, ~/.kube/config or the pod's own account; no call is made.
    pub async fn connect(cluster: &str, namespace: Option<&str>) -> Result<ClusterApi, CallError> {
        let away = |error: &dyn std::fmt::Display| CallError::Away(error.to_string());
        let mut config = Config::infer().await.map_err(|error| away(&error))?;
        // The API server of one's own cluster is not behind a proxy, whatever $HTTPS_PROXY says.
        config.proxy_url = None;
        let client = Client::try_from(config).map_err(|error| away(&error))?;
        let namespace = namespace
            .unwrap_or_else(|| client.default_namespace())
            .to_owned();
        Ok(ClusterApi::of(&client, cluster, namespace))
    }

    /// What a client reaches.
    pub fn of(client: &Client, cluster: &str, namespace: String) -> ClusterApi {
        let pod = ApiResource::erase::<Pod>(&());
        ClusterApi {
            pods: Api::namespaced(client.clone(), &namespace),
            nodes: Api::all(client.clone()),
            raw_pods: Api::namespaced_with(client.clone(), &namespace, &pod),
            config_maps: Api::namespaced(client.clone(), &namespace),
            budgets: Api::namespaced(client.clone(), &namespace),
            events: Api::namespaced(client.clone(), &namespace),
            namespace,
            cluster: cluster.to_owned(),
        }
    }

    /// The object that owns the pods.
    pub async fn owner(&self) -> Result<Owner, CallError> {
        let name = owner_name(&self.cluster);
        let found = call(self.config_maps.get(&name)).await?;
        let uid = found.metadata.uid.unwrap_or_default();
        Ok(Owner { name, uid })
    }

    /// Roll-outs that heads before have ended; the owner keeps them. None without an owner.
    pub async fn kept_verdicts(&self) -> Result<Verdicts, CallError> {
        let found = match call(self.config_maps.get(&owner_name(&self.cluster))).await {
            Ok(found) => found,
            Err(CallError::NotFound(_)) => return Ok(Verdicts::new()),
            Err(error) => return Err(error),
        };
        let annotations = found.metadata.annotations.unwrap_or_default().into_iter();
        let kept = annotations.filter_map(|(key, text)| {
            let group = key.strip_prefix(VERDICT_ANNOTATION_PREFIX)?.to_owned();
            Some((group, text))
        });
        Ok(kept.collect())
    }

    /// Has the owner keep them, by group; those without a text are taken away.
    pub async fn keep_verdicts(
        &self,
        changes: &BTreeMap<&str, Option<&str>>,
    ) -> Result<(), CallError> {
        let annotations: BTreeMap<String, Option<&str>> = changes
            .iter()
            .map(|(group, text)| (format!("{VERDICT_ANNOTATION_PREFIX}{group}"), *text))
            .collect();
        let change = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        let name = owner_name(&self.cluster);
        call(
            self.config_maps
                .patch_metadata(&name, &PatchParams::default(), &change),
        )
        .await?;
        Ok(())
    }

    /// Makes a pod.
    pub async fn create_pod(&self, pod: Value) -> Result<(), CallError> {
        let object: DynamicObject = serde_json::from_value(pod)
            .map_err(|error| CallError::Refused(format!("template: {error}")))?;
        call(self.raw_pods.create(&PostParams::default(), &object)).await?;
        Ok(())
    }

    /// What the pod says that it was made from; None: nothing.
    pub async fn carried_template(
        &self,
        name: &str,
        uid: &str,
    ) -> Result<Option<String>, CallError> {
        let found = call(self.pods.get_metadata(name)).await?.metadata;
        let same = found.uid.as_deref() == Some(uid);
        let annotations = found.annotations.filter(|_| same);
        Ok(annotations.and_then(|mut all| all.remove(TEMPLATE_ANNOTATION)))
    }

    /// Deletes the pod if it is still the same one; one that is gone is fine.
    pub async fn delete_pod(&self, name: &str, uid: &str) -> Result<(), CallError> {
        let same = Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        };
        let params = DeleteParams::default().preconditions(same);
        match call(self.pods.delete(name, &params)).await {
            // A conflict: the name is another pod's by now.
            Ok(_) | Err(CallError::NotFound(_) | CallError::Conflict(_)) => Ok(()),
            Err(error @ (CallError::Refused(_) | CallError::Away(_))) => Err(error),
        }
    }

    /// Sets or removes the budget of a group.
    pub async fn set_budget(
        &self,
        group: &str,
        owner: &Owner,
        min_available: Option<u32>,
    ) -> Result<(), CallError> {
        let name = format!("{}-{group}", self.cluster);
        let Some(min_available) = min_available else {
            let removed = call(self.budgets.delete(&name, &DeleteParams::default())).await;
            return match removed {
                Ok(_) | Err(CallError::NotFound(_)) => Ok(()),
                Err(error) => Err(error),
            };
        };
        let ours = json!({CLUSTER_LABEL: self.cluster, GROUP_LABEL: group});
        let budget = json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {
                "name": name,
                "labels": {
                    CLUSTER_LABEL: self.cluster,
                    GROUP_LABEL: group,
                    MANAGED_BY_LABEL: MANAGED_BY,
                },
                "ownerReferences": [owner_reference(owner)],
            },
            "spec": {
                "minAvailable": min_available,
                // A pod that is not ready must not keep its node from being drained.
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": ours},
            },
        });
        let params = PatchParams::apply(MANAGED_BY).force();
        call(self.budgets.patch(&name, &params, &Patch::Apply(&budget))).await?;
        Ok(())
    }

    /// Says something that `kubectl describe` of the owner shows.
    pub async fn warn(&self, owner: &Owner, reason: &str, note: &str) -> Result<(), CallError> {
        let event: Event = serde_json::from_value(json!({
            "metadata": {"generateName": format!("{}-", owner.name)},
            "eventTime": MicroTime(Timestamp::now()),
            "reportingController": MANAGED_BY,
            "reportingInstance": self.cluster,
            "action": "Provision",
            "reason": reason,
            "type": "Warning",
            "note": note.chars().take(NOTE_CHARS_MAX).collect::<String>(),
            "regarding": {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "namespace": self.namespace,
                "name": owner.name,
                "uid": owner.uid,
            },
        }))
        .map_err(|error| CallError::Refused(error.to_string()))?;
        call(self.events.create(&PostParams::default(), &event)).await?;
        Ok(())
    }
}

/// Makes a call within its time.
pub async fn call<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, CallError> {
    match tokio::time::timeout(CALL_SECONDS_MAX, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(meaning(error)),
        Err(_) => Err(CallError::Away(format!(
            "no answer within {} s",
            CALL_SECONDS_MAX.as_secs()
        ))),
    }
}

/// What an answer means. 429 and 5xx say nothing about the request itself.
fn meaning(error: kube::Error) -> CallError {
    match error {
        kube::Error::Api(status) if status.code == 404 => CallError::NotFound(status.message),
        kube::Error::Api(status) if status.code == 409 => CallError::Conflict(status.message),
        kube::Error::Api(status) if (400..429).contains(&status.code) => {
            CallError::Refused(status.message)
        }
        other => CallError::Away(other.to_string()),
    }
}
