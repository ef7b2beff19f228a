//! A replica: one running copy of a deployment.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::Value;

use crate::{CallError, ConfigError, HealthError, Request, Response};

/// What a deployment's code does. One value is one replica; calls run concurrently, at most
/// `max_ongoing_requests` of them, and beside the other methods, each of which has a thread of its
/// own.
#[async_trait]
pub trait Replica: Send + Sync + 'static {
    /// Answers one request. The future is dropped when the client goes away. Work that keeps its
    /// thread belongs on `tokio::task::spawn_blocking`: all replicas of a process share a few.
    async fn call(&self, request: Request) -> Result<Response, CallError>;

    /// Takes a new `user_config`, first before the replica is announced (if the config has one)
    /// and then on every change. An error leaves the config before it in force.
    async fn reconfigure(&self, _user_config: Value) -> Result<(), ConfigError> {
        Ok(())
    }

    /// Called every `health_check_period_s`, one at a time; three failures in a row replace the
    /// replica. One that takes longer than `health_check_timeout_s` has failed, and its future is
    /// dropped.
    async fn check_health(&self) -> Result<(), HealthError> {
        Ok(())
    }

    /// Called once after the last request was answered. What takes long belongs here and not in
    /// `Drop`, which runs where all replicas of a process share a few threads. A `reconfigure` or health check that is
    /// under way is dropped; one that keeps its thread is not waited for.
    async fn shutdown(&self) {}
}

/// What a replica may know of its place when it is constructed.
#[derive(Clone, Debug)]
pub struct ReplicaContext {
    /// The application's name.
    pub application: String,
    /// The deployment's name.
    pub deployment: String,
    /// 8 lower-case alphanumerics.
    pub replica_id: String,
    /// `args` of the application; an object.
    pub args: Value,
    /// `user_config` at construction; `reconfigure` is called with it as well.
    pub user_config: Option<Value>,
    /// The environment: the process's, with the config's `runtime_env.env_vars` laid over it.
    pub env: BTreeMap<String, String>,
    /// `ray_actor_options.num_cpus`: sizes the engine's threads.
    pub num_cpus: f64,
    /// The GPUs of `ray_actor_options.num_gpus` that the worker gives this replica; empty where it
    /// asked for none.
    pub gpus: Vec<GpuShare>,
    /// The most calls that run at once.
    pub max_ongoing_requests: u32,
}

/// A GPU, or a part of one, that is a replica's to use. Nothing but the count keeps several
/// replicas of one device apart: its memory is who takes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GpuShare {
    /// The device as CUDA numbers it in this process, from 0; `CUDA_VISIBLE_DEVICES` is heeded.
    pub device: u32,
    /// Above 0, at most 1.
    pub share: f64,
}
