//! What happens to a replica that was given a GPU, on a machine that may have none.

use std::collections::BTreeMap;

use mobula_app::{BuildContext, GpuShare, Registry, ReplicaContext};
use serde_json::json;

/// Starts an embedder on GPU 0 with the runtime that the environment and `env` name.
async fn start(env: &[(&str, &str)]) -> Result<(), String> {
    let mut registry = Registry::default();
    mobula_models::register(&mut registry);
    let mut environment: BTreeMap<String, String> = std::env::vars().collect();
    environment.remove("ORT_DYLIB_PATH");
    for (name, value) in env {
        environment.insert((*name).to_owned(), (*value).to_owned());
    }
    let build = BuildContext {
        env: environment.clone(),
        ..BuildContext::default()
    };
    let built = registry.build("mobula.apps:embedder", &build);
    let application = built.map_err(|error| error.to_string())?;
    let context = ReplicaContext {
        application: "app".to_owned(),
        deployment: "Embedder".to_owned(),
        replica_id: "abcd1234".to_owned(),
        args: json!({}),
        user_config: None,
        env: environment,
        num_cpus: 1.0,
        gpus: vec![GpuShare {
            device: 0,
            share: 1.0,
        }],
        max_ongoing_requests: 64,
    };
    let deployment = application.deployment("Embedder").ok_or("no Embedder")?;
    let started = (deployment.factory)(context).await;
    started.map(|_| ()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_gpu_is_refused_by_a_runtime_without_cuda_and_the_text_says_what_to_do() {
    let error = start(&[("MOBULA_RUNTIME", "cpu")]).await.unwrap_err();
    for part in [
        "num_gpus gives this replica cuda:0",
        "is an ONNX Runtime without CUDA",
        "libonnxruntime.so",
        "MOBULA_RUNTIME=cuda",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[tokio::test]
async fn a_runtime_that_is_not_locked_is_refused_before_anything_is_fetched() {
    let env = [("MOBULA_RUNTIME", "rocm"), ("MOBULA_OFFLINE", "1")];
    let error = start(&env).await.unwrap_err();
    assert!(error.contains("(rocm)"), "{error}");
    assert!(error.contains("(cuda)"), "{error}");
}
