//! Follows objects of one kind: the pods of the cluster, or the nodes. What is published is either
//! the whole truth as of a moment, or marked as stale: an error is never "no pods".

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::TryStreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::{info, warn};

use super::api::{CallError, call};
use super::pods::{self, PodView};

/// A watch is asked for this long; then the next one goes on where it ended.
const WATCH_SECONDS: u32 = 20;

/// A watch that is silent for longer than it may last is dead.
const SILENT_MAX: Duration = Duration::from_secs(25);

/// The pause after the first failure; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest pause for pods: when the API server is back, they are seen soon.
pub const PODS_PAUSE_MAX: Duration = Duration::from_secs(2);

/// The longest pause for nodes, which the head may not be allowed to read at all.
pub const NODES_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Parts of a pause that chance adds or takes, so that many heads do not ask at once.
const JITTER: f64 = 0.2;

/// Objects in one answer to a list.
const LIST_OBJECTS_MAX: u32 = 500;

/// An object that can be followed.
pub trait Followed:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug
{
    /// What is kept of it.
    type View: Clone + PartialEq;
    /// Its key and what is kept; None: it does not concern us.
    fn view(&self) -> Option<(String, Self::View)>;
}

impl Followed for Pod {
    type View = PodView;
    fn view(&self) -> Option<(String, PodView)> {
        pods::view(self)
    }
}

impl Followed for Node {
    /// Whether it takes no more pods, because it is about to be drained.
    type View = bool;
    fn view(&self) -> Option<(String, bool)> {
        let cordoned = self.spec.as_ref().and_then(|spec| spec.unschedulable);
        Some((self.metadata.name.clone()?, cordoned.unwrap_or(false)))
    }
}

/// What is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen<V> {
    pub objects: BTreeMap<String, V>,
    /// Nothing is missing.
    pub synced: bool,
    /// Why something may be; empty otherwise.
    pub trouble: String,
}

impl<V> Default for Seen<V> {
    fn default() -> Seen<V> {
        Seen {
            objects: BTreeMap::new(),
            synced: false,
            trouble: String::new(),
        }
    }
}

/// Follows until nobody listens.
pub async fn follow<K: Followed>(
    api: Api<K>,
    selector: String,
    pause_max: Duration,
    seen: watch::Sender<Seen<K::View>>,
) {
    let kind = K::plural(&());
    let mut pause = PAUSE_MIN;
    while !seen.is_closed() {
        let Err(error) = list_and_watch(&api, &selector, &seen, &mut pause).await else {
            return;
        };
        let is_news = seen.borrow().trouble != error.to_string();
        if is_news {
            warn!(%kind, %error, "cannot be watched, it is tried again");
        }
        seen.send_modify(|seen| {
            seen.synced = false;
            seen.trouble = error.to_string();
        });
        tokio::time::sleep(pause.mul_f64(1.0 + JITTER * (2.0 * fastrand::f64() - 1.0))).await;
        pause = (pause * 2).min(pause_max);
    }
}

/// Lists, then watches from there, again and again until something fails.
async fn list_and_watch<K: Followed>(
    api: &Api<K>,
    selector: &str,
    seen: &watch::Sender<Seen<K::View>>,
    pause: &mut Duration,
) -> Result<(), CallError> {
    let (found, mut version) = list(api, selector).await?;
    info!(kind = %K::plural(&()), count = found.len(), "all are known");
    seen.send_replace(Seen {
        objects: found,
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
        let stream = call(api.watch(&params, &version)).await?;
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

async fn list<K: Followed>(
    api: &Api<K>,
    selector: &str,
) -> Result<(BTreeMap<String, K::View>, String), CallError> {
    let mut found = BTreeMap::new();
    let mut params = ListParams::default()
        .labels(selector)
        .limit(LIST_OBJECTS_MAX);
    loop {
        let page = call(api.list(&params)).await?;
        found.extend(page.items.iter().filter_map(K::view));
        match page.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => params = params.continue_token(&next),
            None => return Ok((found, page.metadata.resource_version.unwrap_or_default())),
        }
    }
}

/// Takes an event in; returns the version to go on from.
fn fold<K: Followed>(
    event: WatchEvent<K>,
    seen: &watch::Sender<Seen<K::View>>,
) -> Result<Option<String>, CallError> {
    let (object, exists) = match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, true),
        WatchEvent::Deleted(object) => (object, false),
        WatchEvent::Bookmark(bookmark) => return Ok(Some(bookmark.metadata.resource_version)),
        // 410 Gone: too old to go on from.
        WatchEvent::Error(status) => return Err(CallError::Away(status.message.clone())),
    };
    if let Some((key, view)) = object.view() {
        seen.send_if_modified(|seen| {
            if exists {
                seen.objects.insert(key, view.clone()) != Some(view)
            } else {
                seen.objects.remove(&key).is_some()
            }
        });
    }
    Ok(object.meta().resource_version.clone())
}
