//! What the user declared, in the form that planning needs: applications already built from
//! their code, every deployment resolved to numbers, every replica's way to be made.
//!
//! Not here: how a config document becomes this (`prepare`).

use std::collections::BTreeMap;
use std::sync::Arc;

use mobula_app::GrpcRoute;
pub use mobula_spec::CompactionMode;
use mobula_spec::{Budget, HttpTls, LabelSelector, Queueing, Traffic};
use serde_json::Value;

use super::Resources;
use super::autoscale::schedule::Schedule;
use super::group::Group;

/// A config that was accepted.
#[derive(Clone, Debug)]
pub struct DeploySpec {
    /// What belongs to no application.
    pub serving: Serving,
    /// The applications in the order of the document.
    pub applications: Vec<ApplicationSpec>,
    /// Its place in the history.
    pub revision: u64,
    /// What it speaks about.
    pub scope: Scope,
    /// It returns to what ran before: no time for canaries.
    pub goes_back: bool,
}

/// What a config speaks about: what is in its scope and not in it shall go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    Whole,
    /// One application; the others stay as they are.
    Only(String),
}

/// How the ingress is opened, and what else is said once for all applications.
#[derive(Clone, Debug, PartialEq)]
pub struct Serving {
    /// `Disabled`, `HeadOnly` or `EveryNode`.
    pub proxy_location: String,
    /// As the status document shows it, every field present.
    pub http_options: Value,
    /// As `http_options`.
    pub grpc_options: Value,
    /// Absent when `proxy_location` is `Disabled`.
    pub ingress: Option<Ingress>,
    /// Percent.
    pub target_capacity: Option<f64>,
    /// Whether workers are emptied.
    pub compaction: CompactionMode,
}

/// What a router needs to know to listen.
#[derive(Clone, Debug, PartialEq)]
pub struct Ingress {
    /// Where HTTP is served.
    pub http_host: String,
    /// As `http_host`.
    pub http_port: u16,
    /// Put before every route prefix.
    pub root_path: String,
    /// None: a request may take for ever.
    pub http_request_timeout_s: Option<f64>,
    /// Idle HTTP/1.1 connections are closed after it.
    pub keep_alive_timeout_s: f64,
    /// Where gRPC is served, on the same host.
    pub grpc_port: u16,
    /// None: a request may take for ever.
    pub grpc_request_timeout_s: Option<f64>,
    /// Whether the reflection service answers.
    pub grpc_reflection: bool,
    /// None: no TLS.
    pub http_tls: Option<HttpTls>,
}

/// One application entry.
#[derive(Clone, Debug, PartialEq)]
pub struct ApplicationSpec {
    /// Unique in the document.
    pub name: String,
    /// The user's own entry, shown as `deployed_app_config`.
    pub raw: Value,
    /// Whether the scale route may set counts.
    pub external_scaler_enabled: bool,
    /// When it was declared; one time for all applications of a document, as with Ray.
    pub deployed_time_s: f64,
    /// Whether it returns to the last good config when it fails.
    pub rollback: bool,
    /// A newer config failed and this one took its place again: what the status says of it.
    pub taken_back: Option<String>,
    /// The application as its code and its entry make it, or why they do not fit together.
    pub built: Result<BuiltApplication, String>,
}

/// An application whose code was found and whose entry fits it.
#[derive(Clone, Debug, PartialEq)]
pub struct BuiltApplication {
    /// None: not reachable over HTTP.
    pub route_prefix: Option<String>,
    /// The deployment that answers every path that no route names.
    pub ingress: String,
    /// (path below the prefix, deployment)
    pub routes: Vec<(String, String)>,
    /// gRPC methods and the deployments that answer them.
    pub grpc_routes: Vec<GrpcRoute>,
    /// Names are unique.
    pub deployments: Vec<DeploymentSpec>,
    /// What those may have together; None: each has its own bounds alone.
    pub budget: Option<Budget>,
}

/// One deployment, all defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentSpec {
    /// Unique in its application.
    pub name: String,
    /// The `deployment_config` of the status document.
    pub config: Value,
    /// Replicas that shall run; where the count is autoscaled: at a first deployment.
    pub target: u32,
    /// Absent: the count is the config's, or what the scale route said.
    pub autoscaling: Option<Autoscaling>,
    /// Part of the target that may be in transition at once, above 0 and at most 1.
    pub rolling_update_fraction: f64,
    /// Part of the target that may exist beyond it while replicas are replaced; zero: old ones
    /// leave first. None: as much as may be in transition.
    pub surge_fraction: Option<f64>,
    /// How a new version of the code takes over the requests; None: as its replicas come.
    pub traffic: Option<Traffic>,
    /// Replicas that one machine may have; None: no limit.
    pub replicas_per_node_max: Option<u32>,
    /// The workers that may have replicas.
    pub labels: LabelSelector,
    /// Per router; -1: no limit of the user's.
    pub max_queued_requests: i64,
    /// 503 or 429.
    pub backpressure_status_code: u16,
    /// Sent with it when given.
    pub backpressure_retry_after_s: Option<f64>,
    /// In which order requests that wait are started; None: in which they came.
    pub queueing: Option<Queueing>,
    /// What a replica is made of.
    pub replica: Arc<ReplicaSpec>,
}

/// Between which counts a deployment moves, and how fast (the config's `autoscaling_config`).
#[derive(Clone, Debug, PartialEq)]
pub struct Autoscaling {
    /// At full capacity.
    pub min_replicas: u32,
    /// A config that gives it sets the count to it.
    pub initial_replicas: Option<u32>,
    /// As `min_replicas`.
    pub max_replicas: u32,
    /// Requests in progress or waiting that each replica shall have.
    pub target_ongoing_requests: f64,
    /// The load is looked at over this time.
    pub look_back_ms: u64,
    /// How it is summed up over that time.
    pub aggregation: Aggregation,
    /// How much of the way up is gone at once.
    pub upscaling_factor: f64,
    /// As `upscaling_factor`, down.
    pub downscaling_factor: f64,
    /// How long the load must ask for more.
    pub upscale_delay_ms: u64,
    /// How long it must ask for less.
    pub downscale_delay_ms: u64,
    /// As `downscale_delay_ms`, for the last replica.
    pub downscale_to_zero_delay_ms: u64,
    /// What the load asks for.
    pub policy: Policy,
    /// Minimums by the clock.
    pub schedule: Schedule,
}

/// How a load that changes becomes one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    Mean,
    Max,
    Min,
}

/// How the count follows from the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Ray's default policy.
    Default,
    /// Looks at the last second on the way up, and at the whole period on the way down.
    Reactive,
}

/// Everything a worker needs to make and keep one replica.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaSpec {
    /// Which code.
    pub import_path: String,
    /// JSON object.
    pub args_json: String,
    /// Laid over the worker's environment.
    pub env_vars: BTreeMap<String, String>,
    /// A change means a new replica.
    pub code_version: String,
    /// JSON, absent when the config has none.
    pub user_config_json: Option<String>,
    /// A change means that the replica is told, and keeps its process.
    pub config_version: String,
    /// Strict.
    pub max_ongoing_requests: u32,
    /// Sizes the engine's threads.
    pub num_cpus: f64,
    /// After which it is killed.
    pub graceful_shutdown_timeout_s: f64,
    /// Between two health checks.
    pub health_check_period_s: f64,
    /// Of one health check.
    pub health_check_timeout_s: f64,
    /// Empty: not reachable over HTTP.
    pub route_prefix: String,
    /// What the replica itself needs; without a placement group that is what it reserves.
    pub required: Resources,
    /// What it reserves and with whom it stands and falls.
    pub group: Group,
}

// === impl DeploymentSpec ===

impl DeploymentSpec {
    /// Whether only the number of replicas differs.
    pub fn differs_only_in_count(&self, other: &DeploymentSpec) -> bool {
        let without_count = |spec: &DeploymentSpec| {
            let mut spec = spec.clone();
            spec.target = 0;
            spec.autoscaling = None;
            if let Some(config) = spec.config.as_object_mut() {
                config.remove("num_replicas");
                config.remove("autoscaling_config");
            }
            spec
        };
        self.target != other.target && without_count(self) == without_count(other)
    }
}
