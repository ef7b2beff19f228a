//! Replicas of the built-in applications, started as a worker starts them.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    reason = "a test says why it failed by where it panicked"
)]

use std::collections::BTreeMap;

use mobula_app::{BuildContext, Registry, Replica, ReplicaContext};
use serde_json::{Value, json};

pub fn environment() -> BTreeMap<String, String> {
    std::env::vars().collect()
}

/// What a replica of that deployment is told: nothing but what it must be.
pub fn context(deployment: &str) -> ReplicaContext {
    ReplicaContext {
        application: "app".to_owned(),
        deployment: deployment.to_owned(),
        replica_id: "abcd1234".to_owned(),
        args: json!({}),
        user_config: None,
        env: environment(),
        num_cpus: 1.0,
        gpus: Vec::new(),
        max_ongoing_requests: 64,
    }
}

pub async fn start(path: &str, context: ReplicaContext) -> Result<Box<dyn Replica>, String> {
    let mut registry = Registry::default();
    mobula_models::register(&mut registry);
    let build = BuildContext {
        args: context.args.as_object().cloned().unwrap_or_default(),
        env: context.env.clone(),
    };
    let built = registry.build(path, &build);
    let application = built.map_err(|error| error.to_string())?;
    let deployment = application.deployment(&context.deployment);
    let deployment = deployment.ok_or_else(|| format!("no {}", context.deployment))?;
    let started = (deployment.factory)(context).await;
    started.map_err(|error| error.to_string())
}

pub async fn replica(path: &str, deployment: &str, args: Value) -> Box<dyn Replica> {
    let context = ReplicaContext {
        args,
        ..context(deployment)
    };
    start(path, context).await.unwrap()
}

pub async fn embedder() -> Box<dyn Replica> {
    replica("mobula.apps:embedder", "Embedder", json!({})).await
}

pub async fn reranker() -> Box<dyn Replica> {
    replica("mobula.apps:reranker", "Reranker", json!({})).await
}

pub async fn classifier() -> Box<dyn Replica> {
    replica("mobula.apps:classifier", "Classifier", json!({})).await
}
