//! Every metric is there after one call, with its labels. A process of its own: the recorder is
//! global.

mod support;

use http::Method;
use metrics_exporter_prometheus::PrometheusBuilder;
use mobula_app::{Body, Request};
use mobula_models::metrics;
use support::embedder;

#[tokio::test]
async fn one_call_leaves_every_metric_with_its_labels() {
    let recorder = PrometheusBuilder::new().install_recorder().unwrap();
    let replica = embedder().await;
    let body = Body::whole(r#"{"inputs": ["one", "two"]}"#);
    let request = Request::new(Method::POST, "/embed", body);
    assert_eq!(replica.call(request).await.unwrap().status, 200);

    let text = recorder.render();
    let model = "model=\"sentence-transformers/all-MiniLM-L6-v2\"";
    let batch = "application=\"app\",deployment=\"Embedder\",replica=\"abcd1234\",\
                 function_name=\"embed\"";
    for (name, labels) in [
        (metrics::INFERENCE_REQUESTS, model),
        (metrics::INFERENCE_LATENCY, model),
        (metrics::BATCH_SIZE, batch),
        (metrics::BATCH_EXECUTION_TIME, batch),
        (metrics::BATCH_WAIT_TIME, batch),
        (metrics::BATCH_UTILIZATION, batch),
        (metrics::BATCH_QUEUE_LENGTH, batch),
        (metrics::BATCHES_PROCESSED, batch),
        (metrics::SESSIONS, batch),
    ] {
        assert!(
            text.contains(&format!("# HELP {name} ")),
            "{name} has no description"
        );
        let line = format!("{name}{{{labels}");
        let sum = format!("{name}_sum{{{labels}");
        assert!(
            text.contains(&line) || text.contains(&sum),
            "{name}: {text}"
        );
    }
    assert!(
        text.contains(&format!("{}{{{model}}} 1", metrics::INFERENCE_REQUESTS)),
        "{text}"
    );
    assert!(
        text.contains(&format!("{}_sum{{{batch}}} 2", metrics::BATCH_SIZE)),
        "{text}"
    );

    let sessions = |count: u32| {
        let line = format!("{}{{{batch},device=\"cpu\"}} {count}\n", metrics::SESSIONS);
        recorder.render().contains(&line)
    };
    assert!(sessions(1), "{text}");
    replica.shutdown().await;
    drop(replica);
    assert!(sessions(0), "{}", recorder.render());
}
