//! Follows the pods of the cluster. What is published is either the whole truth as of a moment,
//! or marked as stale: an error is never "no pods".

use std::time::Duration;

use futures_util::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use tokio::sync::watch;
use tracing::{info, warn};

use super::api::{CallError, call};
use super::manifest::CLUSTER_LABEL;
use super::pods::{Pods, view};

/// A watch is asked for this long; then the next one goes on where it ended.
const WATCH_SECONDS: u32 = 20;

/// A watch that is silent for longer than it may last is dead.
const SILENT_MAX: Duration = Duration::from_secs(25);

/// The pause after the first failure; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest pause: when the API server is back, pods are seen soon.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Parts of a pause that chance adds or takes, so that many heads do not ask at once.
const JITTER: f64 = 0.2;

/// Pods in one answer to a list.
const LIST_PODS_MAX: u32 = 500;

/// What is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    pub pods: Pods,
    /// Nothing is missing.
    pub synced: bool,
    /// Why something may be; empty otherwise.
    pub trouble: String,
}

/// Follows until nobody listens.
pub async fn follow(pods: Api<Pod>, cluster: String, seen: watch::Sender<Seen>) {
    let selector = format!("{CLUSTER_LABEL}={cluster}");
    let mut pause = PAUSE_MIN;
    while !seen.is_closed() {
        let Err(error) = list_and_watch(&pods, &selector, &seen, &mut pause).await else {
            return;
        };
        warn!(%error, "the pods cannot be watched, nothing is scaled meanwhile");
        seen.send_modify(|seen| {
            seen.synced = false;
            seen.trouble = error.to_string();
        });
        tokio::time::sleep(pause.mul_f64(1.0 + JITTER * (2.0 * fastrand::f64() - 1.0))).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Lists, then watches from there, again and again until something fails.
async fn list_and_watch(
    pods: &Api<Pod>,
    selector: &str,
    seen: &watch::Sender<Seen>,
    pause: &mut Duration,
) -> Result<(), CallError> {
    let (found, mut version) = list(pods, selector).await?;
    info!(pods = found.len(), "the pods of the cluster are known");
    seen.send_replace(Seen {
        pods: found,
        synced: true,
        trouble: String::new(),
    });
    *pause = PAUSE_MIN;
    let params = WatchParams {
        label_selector: Some(selector.to_owned()),
        timeout: Some(WATCH_SECONDS),
        bookmarks: true,
        ..WatchParams::default()
    };
    while !seen.is_closed() {
        let stream = call(pods.watch(&params, &version)).await?;
        tokio::pin!(stream);
        let away = |text: String| CallError::Away(text);
        loop {
            let next = tokio::time::timeout(SILENT_MAX, stream.try_next()).await;
            let event = next
                .map_err(|_| away("the watch is silent".to_owned()))?
                .map_err(|error| away(error.to_string()))?;
            let Some(event) = event else { break };
            version = fold(event, seen)?.unwrap_or(version);
        }
    }
    Ok(())
}

async fn list(pods: &Api<Pod>, selector: &str) -> Result<(Pods, String), CallError> {
    let mut found = Pods::new();
    let mut params = ListParams::default().labels(selector).limit(LIST_PODS_MAX);
    loop {
        let page = call(pods.list(&params)).await?;
        found.extend(page.items.iter().filter_map(view));
        match page.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => params = params.continue_token(&next),
            None => return Ok((found, page.metadata.resource_version.unwrap_or_default())),
        }
    }
}

/// Takes an event in; returns the version to go on from.
fn fold(event: WatchEvent<Pod>, seen: &watch::Sender<Seen>) -> Result<Option<String>, CallError> {
    let (pod, exists) = match event {
        WatchEvent::Added(pod) | WatchEvent::Modified(pod) => (pod, true),
        WatchEvent::Deleted(pod) => (pod, false),
        WatchEvent::Bookmark(bookmark) => return Ok(Some(bookmark.metadata.resource_version)),
        // 410 Gone: too old to go on from.
        WatchEvent::Error(status) => return Err(CallError::Away(status.message.clone())),
    };
    if let Some((uid, pod)) = view(&pod) {
        seen.send_if_modified(|seen| {
            if exists {
                seen.pods.insert(uid, pod.clone()) != Some(pod)
            } else {
                seen.pods.remove(&uid).is_some()
            }
        });
    }
    Ok(pod.metadata.resource_version)
}
