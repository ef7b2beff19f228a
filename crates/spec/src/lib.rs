//! The Serve config: every field, default and rule; versions; the difference of two configs.
//!
//! A config is text that a user wrote. [`ServeConfig::from_yaml`] and [`ServeConfig::from_json`]
//! read it into one kind of tree (`read`, `node`), decode that with the path and the line at
//! hand (`decode`, `schema`), and answer with every problem they found or with the config and
//! its warnings. What only makes sense beside the application's code comes later: [`resolve`]
//! lays the overrides over what the code says, `late_check_*` say what Ray says at that point,
//! and [`diff`] tells what a change costs.
//!
//! Pure: no clock, no IO, no randomness. Not here: whether an import path exists, where
//! replicas run, the autoscaling policy.

mod acting;
mod capacity;
mod change;
mod config;
mod decode;
mod details;
mod error;
mod late;
pub mod limits;
mod node;
mod read;
mod resolve;
mod schema;
mod version;

pub use capacity::scaled_count;
pub use change::{Change, diff};
pub use config::{Checked, ServeConfig};
pub use decode::Given;
pub use error::{ConfigErrors, LateError, Problem, Warning};
pub use late::{late_check_autoscaling, late_check_deployment_names, late_check_route_prefix};
pub use read::yaml_to_json;
pub use resolve::{DeploymentConfig, Replicas, resolve, resolve_application};
pub use schema::actor_options::{NUM_CPUS_DEFAULT, RayActorOptions};
pub use schema::application::Application;
pub use schema::autoscaling::{AggregationFunction, AutoscalingConfig, AutoscalingPolicy};
pub use schema::budget::Budget;
pub use schema::deployment::{
    BackpressureConfig, DeploymentDefaults, DeploymentOptions, DeploymentOverride, MaxQueued,
    NumReplicas,
};
pub use schema::label_selector::LabelSelector;
pub use schema::logging::{LogEncoding, LoggingConfig, TracingConfig};
pub use schema::options::{
    ControllerOptions, ControllerRuntimeEnv, GrpcOptions, HttpOptions, HttpTls, ProxyLocation,
    Secret,
};
pub use schema::placement::{
    CompactionMode, DeploymentActor, GangFailure, GangPlacement, GangSchedulingConfig,
};
pub use schema::queueing::Queueing;
pub use schema::request_router::RequestRouterConfig;
pub use schema::scaling::{Scaling, ScalingPolicy, ScheduledMinimum};
pub use schema::traffic::Traffic;
pub use version::code_version;
