//! An application whose replicas do what the path says, and a probe that sees what happens inside.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::StatusCode;
use mobula_app::{
    Application, Body, BuildContext, CallError, ConfigError, Deployment, HealthError, Registry,
    Replica, ReplicaContext, Request, Response, StartError,
};
use serde_json::Value;
use tokio::sync::Semaphore;

/// What the tests see of the inside of replicas, and how they hold calls there.
pub struct Probe {
    /// `/hold` answers when it gets one of these.
    pub release: Semaphore,
    /// Calls inside `/hold` now, and the most there ever were.
    pub held: AtomicUsize,
    pub held_max: AtomicUsize,
    /// Calls of `/hold` whose future was dropped before its end.
    pub dropped: AtomicUsize,
    /// Cancellation tokens of `/hold` calls that fired.
    pub fired: Arc<AtomicUsize>,
    pub constructed: AtomicUsize,
    pub shut_down: AtomicUsize,
    /// Starts that were dropped half-way.
    pub starts_dropped: AtomicUsize,
    pub healthy: AtomicBool,
    /// What blocks keeps its thread until it may take one away.
    pub blocked_may_go: std::sync::Mutex<usize>,
    pub blocked_told: std::sync::Condvar,
    /// What blocks now, and what ever did.
    pub blocked: AtomicUsize,
    pub blocked_ever: AtomicUsize,
    /// The bytes that `/swallow` has read.
    pub swallowed: AtomicUsize,
}

#[derive(Clone)]
pub struct App {
    pub probe: Arc<Probe>,
}

struct Echo {
    probe: Arc<Probe>,
    context: ReplicaContext,
    config: Mutex<Value>,
}

impl Default for App {
    fn default() -> App {
        let probe = Arc::new(Probe {
            release: Semaphore::new(0),
            held: AtomicUsize::default(),
            held_max: AtomicUsize::default(),
            dropped: AtomicUsize::default(),
            fired: Arc::default(),
            constructed: AtomicUsize::default(),
            shut_down: AtomicUsize::default(),
            starts_dropped: AtomicUsize::default(),
            healthy: AtomicBool::new(true),
            blocked_may_go: Mutex::default(),
            blocked_told: std::sync::Condvar::default(),
            blocked: AtomicUsize::default(),
            blocked_ever: AtomicUsize::default(),
            swallowed: AtomicUsize::default(),
        });
        App { probe }
    }
}

impl App {
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        let app = self.clone();
        registry.register("test:app", move |_: &BuildContext| Ok(app.application()));
        registry
    }

    fn application(&self) -> Application {
        let probe = self.probe.clone();
        let echo = Deployment::new("Echo", move |context: ReplicaContext| {
            let probe = probe.clone();
            async move {
                probe.constructed.fetch_add(1, Ordering::SeqCst);
                Ok(Echo {
                    config: Mutex::new(Value::Null),
                    probe,
                    context,
                })
            }
        });
        let fails = Deployment::new("FailsToStart", |_| async {
            Err::<Echo, _>(StartError("model.onnx is not there".to_owned()))
        });
        let panics = Deployment::new("PanicsAtStart", |context: ReplicaContext| async move {
            assert!(context.num_cpus > 1e6, "no memory for the model");
            Err::<Echo, _>(StartError("unreachable".to_owned()))
        });
        let probe = self.probe.clone();
        let never = Deployment::new("NeverReady", move |_| {
            let guard = Dropped(probe.clone(), |probe| &probe.starts_dropped);
            async move {
                let _guard = guard;
                std::future::pending::<Result<Echo, StartError>>().await
            }
        });
        Application {
            ingress: "Echo".to_owned(),
            deployments: vec![echo, fails, panics, never],
            routes: Vec::new(),
            grpc_routes: Vec::new(),
        }
    }
}

#[mobula_app::async_trait]
impl Replica for Echo {
    async fn call(&self, request: Request) -> Result<Response, CallError> {
        match request.path.as_str() {
            "/echo" => Ok(Response::new(StatusCode::OK, "x/y", request.body)),
            "/hold" => self.hold(request).await,
            "/block" => {
                self.block();
                Ok(Response::text("blocked"))
            }
            "/swallow" => self.swallow(request.body).await,
            "/breaks" => Ok(Response::new(StatusCode::OK, "x/y", breaking_body())),
            "/panic" => panic!("index out of bounds"),
            "/error" => Err(CallError("tensor has the wrong shape".to_owned())),
            "/config" => Ok(Response::text(self.config.lock().unwrap().to_string())),
            "/context" => Ok(Response::text(format!(
                "{} {} {}",
                self.context.args, self.context.env["GREETING"], self.context.replica_id
            ))),
            "/gpus" => Ok(Response::text(format!("{:?}", self.context.gpus))),
            path => Ok(Response::text(format!("{} {path}", request.method))),
        }
    }

    async fn reconfigure(&self, user_config: Value) -> Result<(), ConfigError> {
        if user_config.get("bad").is_some() {
            return Err(ConfigError("threshold is not a number".to_owned()));
        }
        if user_config.get("slow").is_some() {
            let permit = self.probe.release.acquire().await;
            permit.expect("never closed").forget();
        }
        *self.config.lock().unwrap() = user_config;
        self.block_if_told("reconfigure");
        Ok(())
    }

    async fn check_health(&self) -> Result<(), HealthError> {
        self.block_if_told("check_health");
        if self.probe.healthy.load(Ordering::SeqCst) {
            Ok(())
        } else {
            Err(HealthError("gpu fell off the bus".to_owned()))
        }
    }

    async fn shutdown(&self) {
        self.block_if_told("shutdown");
        self.probe.shut_down.fetch_add(1, Ordering::SeqCst);
    }
}

impl Echo {
    async fn hold(&self, request: Request) -> Result<Response, CallError> {
        let held = self.probe.held.fetch_add(1, Ordering::SeqCst) + 1;
        self.probe.held_max.fetch_max(held, Ordering::SeqCst);
        let (token, fired) = (request.context.cancelled, self.probe.fired.clone());
        tokio::spawn(async move {
            token.cancelled().await;
            fired.fetch_add(1, Ordering::SeqCst);
        });
        let mut guard = Some(Dropped(self.probe.clone(), |probe| &probe.dropped));
        let permit = self.probe.release.acquire().await;
        permit.expect("never closed").forget();
        if let Some(guard) = guard.take() {
            std::mem::forget(guard);
        }
        self.probe.held.fetch_sub(1, Ordering::SeqCst);
        Ok(Response::text("held"))
    }

    /// Blocks where `user_config` says so.
    fn block_if_told(&self, place: &str) {
        let blocks = self.config.lock().unwrap()["blocks"] == place;
        if blocks {
            self.block();
        }
    }

    /// Blocks, as no code should.
    fn block(&self) {
        let probe = &self.probe;
        probe.blocked_ever.fetch_add(1, Ordering::SeqCst);
        probe.blocked.fetch_add(1, Ordering::SeqCst);
        let may_go = probe.blocked_may_go.lock().unwrap();
        let mut may_go = probe
            .blocked_told
            .wait_while(may_go, |may_go| *may_go == 0)
            .unwrap();
        *may_go -= 1;
        probe.blocked.fetch_sub(1, Ordering::SeqCst);
    }

    async fn swallow(&self, mut body: Body) -> Result<Response, CallError> {
        while let Some(piece) = body.next().await {
            let bytes = piece.map_err(|error| CallError(error.to_string()))?.len();
            self.probe.swallowed.fetch_add(bytes, Ordering::SeqCst);
        }
        Ok(Response::text("swallowed"))
    }
}

fn breaking_body() -> Body {
    let (sender, body) = Body::channel(2);
    tokio::spawn(async move {
        let _ = sender.send(Bytes::from_static(b"half of it")).await;
        sender.abort("engine died").await;
    });
    body
}

/// Counts when it is dropped.
struct Dropped(Arc<Probe>, fn(&Probe) -> &AtomicUsize);

impl Drop for Dropped {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_add(1, Ordering::SeqCst);
    }
}

impl Probe {
    /// Lets so many of what blocks go on.
    pub fn unblock(&self, calls: usize) {
        *self.blocked_may_go.lock().unwrap() += calls;
        self.blocked_told.notify_all();
    }

    /// Waits until a counter reaches `n`.
    pub async fn reaches(&self, what: &str, counter: impl Fn(&Probe) -> &AtomicUsize, n: usize) {
        let reached = async {
            while counter(self).load(Ordering::SeqCst) != n {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        super::soon(what, reached).await;
    }
}
