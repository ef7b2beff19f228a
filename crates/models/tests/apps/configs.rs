//! What `args` and `user_config` change.

use http::StatusCode;
use serde_json::json;

use crate::client::{close, floats, get, ok, post};
use crate::support::{embedder, replica};

#[tokio::test]
async fn a_new_user_config_changes_limits_and_names_while_calls_go_on() {
    let embedder = embedder().await;
    let body = json!({"input": "a", "model": "alias"});
    assert_eq!(
        post(&*embedder, "/v1/embeddings", body.clone()).await.0,
        StatusCode::NOT_FOUND
    );
    let config = json!({"served_model_names": ["alias"], "max_client_batch_size": 2});
    embedder.reconfigure(config).await.unwrap();
    ok(&*embedder, "/v1/embeddings", body).await;
    let (status, _) = post(&*embedder, "/embed", json!({"inputs": ["a", "b", "c"]})).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);

    let before = get(&*embedder, "/info").await.1;
    for wrong in [
        json!({"max_batch_size": 0}),
        json!({"x": 1}),
        json!({"model": "a/b/c"}),
    ] {
        assert!(embedder.reconfigure(wrong).await.is_err());
    }
    assert_eq!(get(&*embedder, "/info").await.1, before);
    embedder.check_health().await.unwrap();
}

#[tokio::test]
async fn a_new_user_config_may_change_the_model_while_calls_go_on() {
    let embedder = embedder().await;
    let before = ok(&*embedder, "/embed", json!({"inputs": "hello"})).await;
    let settings = mobula_models::settings::Settings::from_process();
    let name = "mobula/gte-small-sentiment";
    let silent = &mobula_models::fetch::Silent;
    let other = mobula_models::fetch::ensure_model(&settings, name, silent).unwrap();
    let change = embedder.reconfigure(json!({"model": other}));
    let calls = async {
        for _ in 0..20 {
            ok(&*embedder, "/embed", json!({"inputs": "hello"})).await;
        }
    };
    let (changed, ()) = tokio::join!(change, calls);
    changed.unwrap();
    assert_eq!(get(&*embedder, "/info").await.1["model_id"], json!(other));
    let after = ok(&*embedder, "/embed", json!({"inputs": "hello"})).await;
    assert!(!close(&floats(&before[0]), &floats(&after[0])));
}

#[tokio::test]
async fn a_directory_of_ones_own_is_served_by_path() {
    let settings = mobula_models::settings::Settings::from_process();
    let name = "sentence-transformers/all-MiniLM-L6-v2";
    let silent = &mobula_models::fetch::Silent;
    let cached = mobula_models::fetch::ensure_model(&settings, name, silent).unwrap();
    let own = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(own.path().join("onnx")).unwrap();
    std::fs::create_dir_all(own.path().join("1_Pooling")).unwrap();
    std::os::unix::fs::symlink(
        cached.join("model.onnx"),
        own.path().join("onnx/model.onnx"),
    )
    .unwrap();
    std::fs::copy(
        cached.join("tokenizer.json"),
        own.path().join("tokenizer.json"),
    )
    .unwrap();
    let pooling = json!({"pooling_mode_cls_token": true}).to_string();
    std::fs::write(own.path().join("1_Pooling/config.json"), pooling).unwrap();
    let args = json!({"model": own.path()});
    let replica = replica("mobula.apps:embedder", "Embedder", args).await;
    let (_, info) = get(&*replica, "/info").await;
    assert_eq!(info["model_type"]["embedding"]["pooling"], "cls");
    let all = ok(&*replica, "/embed_all", json!({"inputs": "hello"})).await;
    let raw = ok(
        &*replica,
        "/embed",
        json!({"inputs": "hello", "normalize": false}),
    )
    .await;
    assert!(close(&floats(&all[0][0]), &floats(&raw[0])));
}

#[tokio::test]
async fn rag_names_all_three_models() {
    let rag = replica(
        "mobula.apps:rag",
        "Embedder",
        json!({"reranker": {"model": "org/own"}}),
    )
    .await;
    let (_, models) = get(&*rag, "/v1/models").await;
    let ids: Vec<&str> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    let expected = [
        "sentence-transformers/all-MiniLM-L6-v2",
        "org/own",
        "mobula/gte-small-sentiment",
    ];
    assert_eq!(ids, expected);
}
