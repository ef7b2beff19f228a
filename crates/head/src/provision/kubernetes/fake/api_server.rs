//! The part of the Kubernetes API that the head uses, with faults on request.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Service;

use super::answers::{self, Answer, Body};

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done, and the answer says so.
    Status(u16),
    /// No answer, and nothing is done.
    Hang,
    /// It is done, and the connection breaks before the answer.
    DoneUnanswered,
    /// The answer says that it is done, and it is not.
    Undone,
    /// An answer without anything in it.
    Empty,
    /// An answer that is no list.
    NoList,
    /// A watch that ends with 410.
    Expired,
    /// A watch that ends at once.
    Ended,
    /// A watch that tells everything twice.
    Twice,
    /// A watch that is five seconds behind.
    Late,
}

/// What the server holds.
#[derive(Default)]
pub struct State {
    pub pods: BTreeMap<String, Value>,
    /// Everything that happened to pods: its version, what, and the pod then.
    log: Vec<(u64, &'static str, Value)>,
    version: u64,
    pub quota: Option<usize>,
    /// The level of pod security that the namespace asks for.
    pub level: String,
    /// By call, such as "POST pods": what goes wrong with the next ones.
    faults: Vec<(&'static str, Fault)>,
    /// Calls as they came.
    pub calls: Vec<String>,
    pub notes: Vec<String>,
    pub budgets: BTreeMap<String, u64>,
    /// Of the pods' owner.
    pub annotations: BTreeMap<String, Value>,
    /// Pods in which replicas run, by uid.
    pub busy: BTreeSet<String>,
    /// What a head must never do.
    pub wrongs: Vec<String>,
}

/// The server; clones are the same one.
#[derive(Clone)]
pub struct ApiServer {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

// === impl ApiServer ===

impl ApiServer {
    pub fn new() -> ApiServer {
        ApiServer {
            state: Arc::default(),
            changed: watch::Sender::new(0),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The next calls of that kind go wrong, one fault each.
    pub fn fail(&self, call: &'static str, faults: &[Fault]) {
        let faults = faults.iter().map(|fault| (call, *fault));
        self.state().faults.extend(faults);
    }

    /// Faults that nobody has met.
    pub fn unmet(&self) -> usize {
        self.state().faults.len()
    }

    /// How often a call was made.
    pub fn count(&self, call: &str) -> usize {
        let state = self.state();
        state.calls.iter().filter(|made| *made == call).count()
    }

    /// Changes a pod and tells whoever watches.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.state();
        if let Some(pod) = state.pods.get_mut(name) {
            let before = pod.clone();
            change(pod);
            if *pod != before {
                state.tell("MODIFIED", name);
            }
        }
        self.changed.send_replace(state.version);
    }

    /// The pod is gone.
    pub fn remove(&self, name: &str) {
        let mut state = self.state();
        if state.pods.contains_key(name) {
            state.tell("DELETED", name);
            state.pods.remove(name);
        }
        self.changed.send_replace(state.version);
    }

    async fn answer(self, request: Request<kube::client::Body>) -> Answer {
        let (head, body) = request.into_parts();
        let path = head.uri.path().trim_matches('/').to_owned();
        let query = head.uri.query().unwrap_or_default().to_owned();
        let parts: Vec<&str> = path.split('/').collect();
        let at = parts.iter().position(|part| *part == "namespaces");
        let (kind, name) = match at {
            Some(at) => (parts[at + 2], parts.get(at + 3).copied().unwrap_or("")),
            None => (parts[parts.len() - 1], ""),
        };
        let is_watch = query.contains("watch=true");
        let verb = match head.method {
            Method::GET if is_watch => "WATCH",
            Method::GET if name.is_empty() => "LIST",
            ref other => other.as_str(),
        };
        let sent = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let sent: Value = serde_json::from_slice(&sent).unwrap_or(Value::Null);
        let made = format!("{verb} {kind}");
        let fault = self.state().called(&made);
        match fault {
            Some(Fault::Status(code)) => return answers::failure(code, "the fake says so"),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Empty) => {
                let version = self.state().version.to_string();
                let list = json!({
                    "apiVersion": "v1", "kind": "PodList", "items": [],
                    "metadata": {"resourceVersion": version},
                });
                return answers::object(200, &list);
            }
            Some(Fault::NoList) => {
                return answers::object(200, &answers::status(500, "behind a proxy"));
            }
            Some(Fault::Undone) => {
                return answers::object(201, &with(&sent, "metadata", json!({"name": "none"})));
            }
            _ => {}
        }
        let answer = match (verb, kind) {
            ("WATCH", "pods") => return self.watch_pods(&query, fault),
            ("LIST", "pods") => answers::object(200, &self.state().list()),
            ("GET", "pods") => self.state().get(name),
            ("POST", "pods") => self.state().create(sent),
            ("DELETE", "pods") => self.state().delete(name, &sent),
            ("GET", "configmaps") => self.state().owner(name),
            ("PATCH", "configmaps") => self.state().annotate(name, &sent),
            ("POST", "events") => self.state().note(&sent),
            ("PATCH", "poddisruptionbudgets") => self.state().budget(name, &sent),
            ("DELETE", "poddisruptionbudgets") => {
                self.state().budgets.remove(name);
                answers::object(200, &answers::status(200, ""))
            }
            _ => answers::failure(403, &format!("cannot {verb} resource {kind}")),
        };
        let version = self.state().version;
        self.changed.send_replace(version);
        if fault == Some(Fault::DoneUnanswered) {
            return answers::broken();
        }
        answer
    }

    fn watch_pods(&self, query: &str, fault: Option<Fault>) -> Answer {
        let number = |key: &str| -> u64 {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let mut values = pairs.filter(|(name, _)| *name == key);
            values
                .next()
                .and_then(|(_, value)| value.parse().ok())
                .unwrap()
        };
        let mut next = number("resourceVersion");
        let end = Instant::now() + Duration::from_secs(number("timeoutSeconds"));
        let (out, events) = tokio::sync::mpsc::channel(64);
        match fault {
            Some(Fault::Ended) => return answers::events(ReceiverStream::new(events)),
            Some(Fault::Expired) => {
                let status = answers::status(410, "too old resource version");
                out.try_send(json!({"type": "ERROR", "object": status}))
                    .unwrap();
                return answers::events(ReceiverStream::new(events));
            }
            _ => {}
        }
        let times = if fault == Some(Fault::Twice) { 2 } else { 1 };
        let server = self.clone();
        let mut changed = self.changed.subscribe();
        tokio::spawn(async move {
            loop {
                changed.borrow_and_update();
                let news = server.state().since(next);
                if fault == Some(Fault::Late) && !news.is_empty() {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
                for (version, what, pod) in news {
                    next = version;
                    for _ in 0..times {
                        let event = json!({"type": what, "object": pod});
                        if out.send(event).await.is_err() {
                            return;
                        }
                    }
                }
                tokio::select! {
                    told = changed.changed() => if told.is_err() { return },
                    () = out.closed() => return,
                    () = tokio::time::sleep_until(end) => return,
                }
            }
        });
        answers::events(ReceiverStream::new(events))
    }
}

impl Service<Request<kube::client::Body>> for ApiServer {
    type Response = Response<Body>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        Box::pin(self.clone().answer(request))
    }
}

// === impl State ===

impl State {
    /// Notes the call; says what goes wrong with it.
    fn called(&mut self, made: &str) -> Option<Fault> {
        self.calls.push(made.to_owned());
        let at = self.faults.iter().position(|(call, _)| *call == made)?;
        Some(self.faults.remove(at).1)
    }

    fn tell(&mut self, what: &'static str, name: &str) {
        self.version += 1;
        let pod = self.pods.get_mut(name).unwrap();
        pod["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.log.push((self.version, what, pod.clone()));
    }

    fn since(&self, version: u64) -> Vec<(u64, &'static str, Value)> {
        let news = self.log.iter().filter(|(at, _, _)| *at > version);
        news.cloned().collect()
    }

    fn list(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "PodList",
            "metadata": {"resourceVersion": self.version.to_string()},
            "items": self.pods.values().collect::<Vec<_>>(),
        })
    }

    fn get(&self, name: &str) -> Answer {
        match self.pods.get(name) {
            Some(pod) => answers::object(200, pod),
            None => answers::failure(404, "no such pod"),
        }
    }

    fn create(&mut self, mut pod: Value) -> Answer {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        let host_network = pod["spec"]["hostNetwork"] == true;
        if self.level == "restricted" || (self.level == "baseline" && host_network) {
            let level = &self.level;
            let why = format!("pods \"{name}\" is forbidden: violates PodSecurity \"{level}\"");
            return answers::failure(403, &why);
        }
        if self.quota.is_some_and(|quota| self.pods.len() >= quota) {
            let why = format!("pods \"{name}\" is forbidden: exceeded quota: q");
            return answers::failure(403, &why);
        }
        if self.pods.contains_key(&name) {
            return answers::failure(409, "already exists");
        }
        if pod["metadata"]["ownerReferences"][0]["uid"] != "the-owner" {
            self.wrongs.push(format!("{name} has no owner"));
        }
        pod["metadata"]["uid"] = format!("uid-{:05}", self.version).into();
        pod["status"] = json!({"phase": "Pending"});
        self.pods.insert(name.clone(), pod.clone());
        self.tell("ADDED", &name);
        answers::object(201, &pod)
    }

    fn delete(&mut self, name: &str, options: &Value) -> Answer {
        let Some(pod) = self.pods.get_mut(name) else {
            return answers::failure(404, "no such pod");
        };
        let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
        match options["preconditions"]["uid"].as_str() {
            None => self
                .wrongs
                .push(format!("{name} was deleted without its uid")),
            Some(asked) if asked != uid => return answers::failure(409, "another uid"),
            Some(_) => {}
        }
        if self.busy.contains(&uid) {
            self.wrongs.push(format!("{name} was deleted while busy"));
        }
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let pod = pod.clone();
        self.tell("MODIFIED", name);
        answers::object(200, &pod)
    }

    fn owner(&self, name: &str) -> Answer {
        let annotations = &self.annotations;
        answers::object(
            200,
            &json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": name, "uid": "the-owner", "annotations": annotations},
            }),
        )
    }

    /// A merge: what is null is taken away.
    fn annotate(&mut self, name: &str, change: &Value) -> Answer {
        let changes = change["metadata"]["annotations"].as_object().unwrap();
        for (key, value) in changes {
            if value.is_null() {
                self.annotations.remove(key);
            } else {
                self.annotations.insert(key.clone(), value.clone());
            }
        }
        self.owner(name)
    }

    /// Pods of that template that were ever made.
    pub fn made(&self, version: &str) -> usize {
        let of = |pod: &Value| pod["metadata"]["annotations"]["version"] == version;
        let made = self
            .log
            .iter()
            .filter(|(_, what, pod)| *what == "ADDED" && of(pod));
        made.count()
    }

    fn note(&mut self, event: &Value) -> Answer {
        let note = event["note"].as_str().unwrap().to_owned();
        self.notes.push(note);
        answers::object(201, event)
    }

    fn budget(&mut self, name: &str, budget: &Value) -> Answer {
        let min_available = budget["spec"]["minAvailable"].as_u64().unwrap();
        self.budgets.insert(name.to_owned(), min_available);
        answers::object(200, budget)
    }
}

fn with(object: &Value, key: &str, value: Value) -> Value {
    let mut object = object.clone();
    object[key] = value;
    object
}
