//! What happens to a replica that was given a GPU, on a machine that may have none.

mod support;

use mobula_app::{GpuShare, ReplicaContext};
use support::{context, environment};

/// Starts an embedder on GPU 0 with the runtime that the environment and `variables` name.
async fn start(variables: &[(&str, &str)]) -> Result<(), String> {
    let mut env = environment();
    env.remove("ORT_DYLIB_PATH");
    for (name, value) in variables {
        env.insert((*name).to_owned(), (*value).to_owned());
    }
    let gpu = GpuShare {
        device: 0,
        share: 1.0,
    };
    let context = ReplicaContext {
        env,
        gpus: vec![gpu],
        ..context("Embedder")
    };
    let started = support::start("mobula.apps:embedder", context).await;
    started.map(|_| ())
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
