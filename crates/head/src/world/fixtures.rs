//! Small specs for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use mobula_spec::LabelSelector;
use serde_json::json;

use super::autoscale::policy::Standing;
use super::autoscale::schedule::Schedule;
use super::group::Group;
use super::resources::CPU;
use super::spec::{
    Aggregation, ApplicationSpec, Autoscaling, BuiltApplication, CompactionMode, DeploySpec,
    DeploymentSpec, Ingress, Policy, ReplicaSpec, Scope, Serving,
};
use super::{Now, Resources};

pub fn at(ms: u64) -> Now {
    Now {
        ms,
        unix_s: 1_700_000_000.0 + ms as f64 / 1000.0,
    }
}

/// Names a version of deployment `D` of application `app`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Version {
    pub code: &'static str,
    pub config: &'static str,
    pub target: u32,
    pub cpus: f64,
    pub surge: Option<f64>,
}

pub const V1: Version = Version {
    code: "v1",
    config: "c1",
    target: 1,
    cpus: 1.0,
    surge: None,
};

pub fn deployment(version: Version) -> DeploymentSpec {
    DeploymentSpec {
        name: "D".to_owned(),
        config: json!({"name": "D", "num_replicas": version.target}),
        target: version.target,
        autoscaling: None,
        rolling_update_fraction: 0.2,
        surge_fraction: version.surge,
        traffic: None,
        queueing: None,
        replicas_per_node_max: None,
        labels: LabelSelector::default(),
        max_queued_requests: -1,
        backpressure_status_code: 503,
        backpressure_retry_after_s: None,
        replica: Arc::new(ReplicaSpec {
            import_path: "test:app".to_owned(),
            args_json: "{}".to_owned(),
            env_vars: BTreeMap::new(),
            code_version: version.code.to_owned(),
            user_config_json: None,
            config_version: version.config.to_owned(),
            max_ongoing_requests: 5,
            num_cpus: version.cpus,
            graceful_shutdown_timeout_s: 20.0,
            health_check_period_s: 10.0,
            health_check_timeout_s: 30.0,
            route_prefix: "/".to_owned(),
            required: Resources::from_units([(CPU, version.cpus)]),
            group: Group::default(),
        }),
    }
}

impl Standing {
    /// Replicas that take five requests at a time and start at once.
    pub fn for_tests(running: u32, target: u32) -> Standing {
        Standing {
            running,
            target,
            ongoing_max: 5,
            start_ms: 0,
        }
    }
}

impl Autoscaling {
    /// Ray's defaults, but between zero and a hundred replicas and without delays.
    pub fn for_tests() -> Autoscaling {
        Autoscaling {
            min_replicas: 0,
            initial_replicas: None,
            max_replicas: 100,
            target_ongoing_requests: 2.0,
            look_back_ms: 30_000,
            aggregation: Aggregation::Mean,
            upscaling_factor: 1.0,
            downscaling_factor: 1.0,
            upscale_delay_ms: 0,
            downscale_delay_ms: 0,
            downscale_to_zero_delay_ms: 0,
            policy: Policy::Default,
            schedule: Schedule::default(),
        }
    }
}

pub fn application(name: &str, version: Version) -> ApplicationSpec {
    ApplicationSpec {
        name: name.to_owned(),
        raw: json!({"name": name, "import_path": "test:app"}),
        external_scaler_enabled: false,
        deployed_time_s: 1_700_000_000.5,
        rollback: true,
        taken_back: None,
        built: Ok(BuiltApplication {
            route_prefix: Some(format!("/{name}")),
            ingress: "D".to_owned(),
            routes: Vec::new(),
            grpc_routes: Vec::new(),
            deployments: vec![deployment(version)],
            budget: None,
        }),
    }
}

/// The same, with an entry that differs with the version, as a user's would.
pub fn told_apart(name: &str, version: Version) -> ApplicationSpec {
    let mut application = application(name, version);
    application.raw["args"] = json!({"version": format!("{version:?}")});
    application
}

pub fn serving() -> Serving {
    Serving {
        proxy_location: "EveryNode".to_owned(),
        http_options: json!({"host": "127.0.0.1", "port": 8000}),
        grpc_options: json!({"port": 9000}),
        ingress: Some(Ingress {
            http_host: "127.0.0.1".to_owned(),
            http_port: 8000,
            root_path: String::new(),
            http_request_timeout_s: None,
            keep_alive_timeout_s: 90.0,
            grpc_port: 9000,
            grpc_request_timeout_s: None,
            grpc_reflection: true,
            http_tls: None,
        }),
        target_capacity: None,
        compaction: CompactionMode::Auto,
    }
}

pub fn config(applications: Vec<ApplicationSpec>) -> DeploySpec {
    DeploySpec {
        serving: serving(),
        applications,
        revision: 0,
        scope: Scope::Whole,
        goes_back: false,
    }
}
