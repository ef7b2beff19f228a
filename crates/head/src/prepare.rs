//! From a config document to what planning needs: finds each application's code, builds it,
//! and lays the config over it.
//!
//! Building runs the application's own code, so it happens on a blocking thread, with a
//! deadline, and a panic is that application's failure. Import paths that do not exist are
//! found before anything is accepted; what only shows when code and config meet becomes the
//! application's `DEPLOY_FAILED`, as with Ray.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use mobula_app::{BuildContext, Registry};
use mobula_process::follow::Files;
use mobula_process::https::{HttpsFiles, INGRESS};
use mobula_spec::{
    AggregationFunction, Application, Budget, DeploymentConfig, DeploymentDefaults,
    DeploymentOptions, GangPlacement, LabelSelector, ProxyLocation, Replicas, Scaling,
    ScalingPolicy, ServeConfig, resolve_application,
};
use serde_json::{Map, Value, json};

use crate::world::Resources;
use crate::world::autoscale::budget::{self, Cost};
use crate::world::autoscale::schedule::Schedule;
use crate::world::group::{Group, Strategy};
use crate::world::spec::{
    Aggregation, ApplicationSpec, Autoscaling, BuiltApplication, DeploySpec, DeploymentSpec,
    Ingress, Policy, ReplicaSpec, Scope, Serving,
};

/// Building reads a few files at most; whoever needs longer is stuck.
const BUILD_SECONDS_MAX: Duration = Duration::from_secs(60);

/// Import paths that one message lists.
const KNOWN_PATHS_SHOWN_MAX: usize = 50;

/// Knows the code that is compiled in.
#[derive(Clone)]
pub struct Preparer {
    registry: Registry,
    env: Arc<BTreeMap<String, String>>,
    place: Place,
    router_here: bool,
}

/// Where the code of an application is built.
#[derive(Clone, Copy)]
enum Place {
    BlockingThread,
    Here,
}

// === impl Preparer ===

impl Preparer {
    /// `env` is the process's environment.
    pub fn new(registry: Registry, env: BTreeMap<String, String>) -> Preparer {
        Preparer {
            registry,
            env: Arc::new(env),
            place: Place::BlockingThread,
            router_here: false,
        }
    }

    /// Whether the router is of this machine.
    pub fn with_router_here(self, router_here: bool) -> Preparer {
        Preparer {
            router_here,
            ..self
        }
    }

    /// Builds on the caller's thread and never waits: for code that is known not to block.
    pub fn on_this_thread(registry: Registry) -> Preparer {
        Preparer {
            place: Place::Here,
            ..Preparer::new(registry, BTreeMap::new())
        }
    }

    /// What cannot work here, one line each: import paths that do not exist, and files that
    /// cannot be used.
    pub async fn refusals(&self, config: &ServeConfig) -> Vec<String> {
        let mut refusals = self.unknown_import_paths(config);
        if let Some(tls) = config.http_options.tls().filter(|_| self.router_here) {
            let files = HttpsFiles {
                port: INGRESS,
                cert: tls.certfile.into(),
                key: tls.keyfile.into(),
                password: tls
                    .keyfile_password
                    .map(|secret| secret.reveal().to_owned()),
                client_ca: tls.ca_certs.map(Into::into),
            };
            let looking =
                tokio::task::spawn_blocking(move || HttpsFiles::make(&files.read()?).map(drop));
            if let Ok(Err(error)) = looking.await {
                refusals.push(format!("http_options.{error}"));
            }
        }
        refusals
    }

    /// One line for each application whose import path does not exist here.
    pub fn unknown_import_paths(&self, config: &ServeConfig) -> Vec<String> {
        let known: Vec<&str> = self.registry.import_paths().collect();
        let shown = known
            .iter()
            .take(KNOWN_PATHS_SHOWN_MAX)
            .copied()
            .collect::<Vec<_>>()
            .join(", ");
        config
            .applications
            .iter()
            .enumerate()
            .filter(|(_, application)| !known.contains(&application.import_path.as_str()))
            .map(|(index, application)| {
                format!(
                    "applications[{index}].import_path: there is no application '{}' here, and \
                     Python code cannot run here; the import paths that exist are: {shown}",
                    application.import_path
                )
            })
            .collect()
    }

    /// Builds every application of the config. The revision is not known yet.
    pub async fn prepare(&self, config: &ServeConfig, deployed_time_s: f64) -> DeploySpec {
        let mut applications = Vec::with_capacity(config.applications.len());
        for application in &config.applications {
            let spec = self.application(config, application, deployed_time_s);
            applications.push(spec.await);
        }
        DeploySpec {
            serving: serving(config),
            applications,
            revision: 0,
            scope: Scope::Whole,
            goes_back: false,
        }
    }

    /// Builds one application of the config; what is prepared speaks about it alone.
    pub async fn prepare_only(
        &self,
        config: &ServeConfig,
        name: &str,
        deployed_time_s: f64,
    ) -> DeploySpec {
        let mut applications = Vec::new();
        if let Some(application) = config.application(name) {
            let spec = self.application(config, application, deployed_time_s);
            applications.push(spec.await);
        }
        DeploySpec {
            serving: serving(config),
            applications,
            revision: 0,
            scope: Scope::Only(name.to_owned()),
            goes_back: false,
        }
    }

    /// Builds one application of the config.
    pub async fn application(
        &self,
        config: &ServeConfig,
        application: &Application,
        deployed_time_s: f64,
    ) -> ApplicationSpec {
        ApplicationSpec {
            name: application.name.clone(),
            raw: application.raw.clone(),
            external_scaler_enabled: application.external_scaler_enabled,
            deployed_time_s,
            rollback: config.rolls_back(application),
            taken_back: None,
            built: self.build(application, config.target_capacity).await,
        }
    }

    async fn build(
        &self,
        application: &Application,
        target_capacity: Option<f64>,
    ) -> Result<BuiltApplication, String> {
        let mut env = (*self.env).clone();
        env.extend(application.env_vars());
        let context = BuildContext {
            args: application.args.clone(),
            env,
        };
        let registry = self.registry.clone();
        let import_path = application.import_path.clone();
        let build =
            move || catch_unwind(AssertUnwindSafe(|| registry.build(&import_path, &context)));
        let built = match self.place {
            Place::Here => build(),
            Place::BlockingThread => on_blocking_thread(build).await?,
        };
        let code = match built {
            Ok(built) => built.map_err(|error| error.to_string())?,
            Err(panic) => {
                return Err(format!(
                    "building the application panicked: {}",
                    text_of(&panic)
                ));
            }
        };
        fit(&code, application, target_capacity)
    }
}

async fn on_blocking_thread<T: Send + 'static>(
    build: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let build = tokio::task::spawn_blocking(build);
    match tokio::time::timeout(BUILD_SECONDS_MAX, build).await {
        Ok(Ok(built)) => Ok(built),
        Ok(Err(error)) => Err(format!("building the application failed: {error}")),
        Err(_) => {
            let seconds = BUILD_SECONDS_MAX.as_secs();
            Err(format!(
                "building the application took longer than {seconds} s"
            ))
        }
    }
}

fn text_of(panic: &Box<dyn std::any::Any + Send>) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Lays the config over the code.
fn fit(
    code: &mobula_app::Application,
    application: &Application,
    target_capacity: Option<f64>,
) -> Result<BuiltApplication, String> {
    let defaults = code
        .deployments
        .iter()
        .map(|deployment| {
            Ok(DeploymentDefaults {
                name: deployment.name.clone(),
                ingress: deployment.name == code.ingress,
                options: code_options(&deployment.name, &deployment.options)?,
            })
        })
        .collect::<Result<Vec<_>, String>>()?;
    let names: Vec<&str> = defaults
        .iter()
        .map(|defaults| defaults.name.as_str())
        .collect();
    let routed = code.routes.iter().map(|route| &route.deployment);
    let grpc_routed = code.grpc_routes.iter().map(|route| &route.deployment);
    for name in [&code.ingress].into_iter().chain(routed).chain(grpc_routed) {
        if !names.contains(&name.as_str()) {
            return Err(format!(
                "the code routes to a deployment '{name}' that it does not have"
            ));
        }
    }
    let configs = resolve_application(&defaults, application).map_err(|error| error.to_string())?;
    let deployments: Vec<DeploymentSpec> = configs
        .iter()
        .map(|config| deployment(config, application, target_capacity))
        .collect();
    let budget = application.budget();
    if let Some(budget) = &budget {
        check_budget(budget, &deployments)?;
    }
    Ok(BuiltApplication {
        route_prefix: application.route_prefix.clone(),
        ingress: code.ingress.clone(),
        routes: code
            .routes
            .iter()
            .map(|route| (route.path.clone(), route.deployment.clone()))
            .collect(),
        grpc_routes: code.grpc_routes.clone(),
        deployments,
        budget,
    })
}

/// A budget that names who does not exist, or that the minimums alone exceed, is a mistake.
fn check_budget(budget: &Budget, deployments: &[DeploymentSpec]) -> Result<(), String> {
    let names: Vec<&str> = deployments.iter().map(|spec| spec.name.as_str()).collect();
    let unknown = |name: &&String| !names.contains(&name.as_str());
    if let Some(name) = budget.priorities.keys().find(unknown) {
        let names = names.join(", ");
        return Err(format!(
            "mobula.autoscaling.priorities.{name}: the application has no such deployment, it \
             has: {names}"
        ));
    }
    let least = |spec: &DeploymentSpec| {
        let autoscaling = spec.autoscaling.as_ref();
        let count = autoscaling.map_or(spec.target, |autoscaling| autoscaling.min_replicas);
        Cost::of(&spec.replica.reserves()).times(count)
    };
    let least = deployments
        .iter()
        .fold(Cost::default(), |sum, spec| sum.plus(least(spec)));
    if !least.is_within(budget) {
        return Err(format!(
            "mobula.autoscaling: the least numbers of replicas of all deployments together need \
             {least}, allowed are {}",
            budget::shown(budget)
        ));
    }
    Ok(())
}

/// The code's options are written in the config's words, so the config's reader reads them.
fn code_options(name: &str, options: &Map<String, Value>) -> Result<DeploymentOptions, String> {
    let mut entry = options.clone();
    entry.insert("name".to_owned(), Value::String(name.to_owned()));
    let document = json!({
        "applications": [{"import_path": "code:options", "deployments": [entry]}],
    });
    let wrong = |why: &dyn std::fmt::Display| {
        format!("the code's options of deployment '{name}' are wrong: {why}")
    };
    let checked =
        ServeConfig::from_json(document.to_string().as_bytes()).map_err(|errors| wrong(&errors))?;
    checked
        .config
        .applications
        .into_iter()
        .flat_map(|application| application.deployments)
        .next()
        .map(|entry| entry.options)
        .ok_or_else(|| wrong(&"they are lost"))
}

fn deployment(
    config: &DeploymentConfig,
    application: &Application,
    target_capacity: Option<f64>,
) -> DeploymentSpec {
    let required = resources(&config.ray_actor_options.required_resources());
    let group = group(config);
    let user_config = config
        .user_config
        .clone()
        .map(|config| Value::Object(config).to_string());
    DeploymentSpec {
        name: config.name.clone(),
        config: json!(config),
        target: group.whole_gangs(config.first_replicas(target_capacity)),
        autoscaling: autoscaling(&config.replicas, &config.scaling),
        rolling_update_fraction: config.rolling_update_percentage,
        surge_fraction: config
            .max_surge_percent
            .map(|percent| f64::from(percent) / 100.0),
        traffic: config.traffic.clone(),
        queueing: config.queueing.clone(),
        replicas_per_node_max: config.max_replicas_per_node,
        labels: config
            .ray_actor_options
            .label_selector
            .as_ref()
            .map(LabelSelector::of)
            .unwrap_or_default(),
        max_queued_requests: config.max_queued_requests.as_i64(),
        backpressure_status_code: config.backpressure_config.status_code,
        backpressure_retry_after_s: config.backpressure_config.retry_after_s,
        replica: Arc::new(ReplicaSpec {
            import_path: application.import_path.clone(),
            args_json: Value::Object(application.args.clone()).to_string(),
            env_vars: config.env_vars(),
            code_version: config.process_version(),
            user_config_json: user_config,
            config_version: config.settings_version(),
            max_ongoing_requests: config.max_ongoing_requests,
            num_cpus: config.ray_actor_options.cpus(),
            graceful_shutdown_timeout_s: config.graceful_shutdown_timeout_s,
            health_check_period_s: config.health_check_period_s,
            health_check_timeout_s: config.health_check_timeout_s,
            route_prefix: application.route_prefix.clone().unwrap_or_default(),
            required,
            group,
        }),
    }
}

/// What a replica reserves, and with whom it is placed.
fn group(config: &DeploymentConfig) -> Group {
    let bundles = config.placement_group_bundles.iter().flatten();
    let labels = config
        .placement_group_bundle_label_selector
        .iter()
        .flatten();
    let gang = config.gang_scheduling_config.as_ref();
    let own = config.placement_group_strategy.as_deref().map(Strategy::of);
    Group {
        bundles: bundles.map(resources).collect(),
        labels: labels.map(LabelSelector::of).collect(),
        strategy: match gang.map(|gang| gang.gang_placement_strategy) {
            Some(GangPlacement::Pack) => Strategy::Pack,
            Some(GangPlacement::Spread) => Strategy::Spread,
            None => own.unwrap_or_default(),
        },
        gang_size: gang.map_or(1, |gang| gang.gang_size),
    }
}

fn resources(amounts: &BTreeMap<String, f64>) -> Resources {
    let amounts = amounts.iter();
    Resources::from_units(amounts.map(|(name, units)| (name.as_str(), *units)))
}

fn autoscaling(replicas: &Replicas, scaling: &Scaling) -> Option<Autoscaling> {
    let config = match replicas {
        Replicas::Fixed(_) => return None,
        Replicas::Autoscaled(config) => config,
    };
    let ms = |seconds: f64| (seconds * 1000.0).round() as u64;
    Some(Autoscaling {
        min_replicas: config.min_replicas,
        initial_replicas: config.initial_replicas,
        max_replicas: config.max_replicas,
        target_ongoing_requests: config.target(),
        look_back_ms: ms(config.look_back_period_s),
        aggregation: match config.aggregation_function {
            AggregationFunction::Mean => Aggregation::Mean,
            AggregationFunction::Max => Aggregation::Max,
            AggregationFunction::Min => Aggregation::Min,
        },
        upscaling_factor: config.upscaling(),
        downscaling_factor: config.downscaling(),
        upscale_delay_ms: ms(config.upscale_delay_s),
        downscale_delay_ms: ms(config.downscale_delay_s),
        downscale_to_zero_delay_ms: ms(config
            .downscale_to_zero_delay_s
            .unwrap_or(config.downscale_delay_s)),
        policy: match scaling.policy {
            ScalingPolicy::Default => Policy::Default,
            ScalingPolicy::Reactive => Policy::Reactive,
        },
        schedule: Schedule {
            entries: scaling.schedule.clone(),
            utc_offset_minutes: scaling.utc_offset_minutes,
        },
    })
}

/// What is said once for all applications.
pub fn serving(config: &ServeConfig) -> Serving {
    let http = &config.http_options;
    let grpc = &config.grpc_options;
    // Ray: a time-out of zero or less is none.
    let timeout = |seconds: Option<f64>| seconds.filter(|seconds| *seconds > 0.0);
    let ingress = Ingress {
        http_host: http.host.clone(),
        http_port: http.port,
        root_path: http.root_path.clone(),
        http_request_timeout_s: timeout(http.request_timeout_s),
        keep_alive_timeout_s: http.keep_alive_timeout_s.into(),
        grpc_port: grpc.port,
        grpc_request_timeout_s: timeout(grpc.request_timeout_s),
        grpc_reflection: grpc.enable_reflection,
        http_tls: http.tls(),
    };
    let (proxy_location, ingress) = match config.proxy_location {
        ProxyLocation::Disabled => ("Disabled", None),
        ProxyLocation::HeadOnly => ("HeadOnly", Some(ingress)),
        ProxyLocation::EveryNode => ("EveryNode", Some(ingress)),
    };
    Serving {
        proxy_location: proxy_location.to_owned(),
        http_options: json!(http),
        grpc_options: json!(grpc),
        ingress,
        target_capacity: config.target_capacity,
        compaction: config.compaction(),
    }
}
