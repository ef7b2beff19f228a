//! The built-in applications with the default models, called as a worker calls them.

#![expect(
    clippy::unwrap_used,
    reason = "a test says why it failed by where it panicked"
)]

use std::collections::BTreeMap;

use base64::Engine as _;
use http::{Method, StatusCode};
use mobula_app::{
    Application, Body, BuildContext, Protocol, Registry, Replica, ReplicaContext, Request, Response,
};
use mobula_models::grpc::v1;
use prost::Message;
use serde_json::{Value, json};

const RELEVANT: &str = "Paris is the capital of France.";
const IRRELEVANT: &str = "Bananas are rich in potassium.";

fn registry() -> Registry {
    let mut registry = Registry::default();
    mobula_models::register(&mut registry);
    registry
}

fn environment() -> BTreeMap<String, String> {
    std::env::vars().collect()
}

fn build(path: &str, args: &Value) -> Application {
    let context = BuildContext {
        args: args.as_object().cloned().unwrap_or_default(),
        env: environment(),
    };
    registry().build(path, &context).unwrap()
}

async fn replica(path: &str, deployment: &str, args: Value) -> Box<dyn Replica> {
    let application = build(path, &args);
    let context = ReplicaContext {
        application: "app".to_owned(),
        deployment: deployment.to_owned(),
        replica_id: "abcd1234".to_owned(),
        args,
        user_config: None,
        env: environment(),
        num_cpus: 1.0,
        gpus: Vec::new(),
        max_ongoing_requests: 64,
    };
    let deployment = application.deployment(deployment).unwrap();
    (deployment.factory)(context).await.unwrap()
}

async fn embedder() -> Box<dyn Replica> {
    replica("mobula.apps:embedder", "Embedder", json!({})).await
}

async fn reranker() -> Box<dyn Replica> {
    replica("mobula.apps:reranker", "Reranker", json!({})).await
}

async fn classifier() -> Box<dyn Replica> {
    replica("mobula.apps:classifier", "Classifier", json!({})).await
}

async fn post_bytes(replica: &dyn Replica, path: &str, body: &[u8]) -> (StatusCode, Value) {
    let request = Request::new(Method::POST, path, Body::whole(body.to_vec()));
    read(replica.call(request).await.unwrap()).await
}

async fn post(replica: &dyn Replica, path: &str, body: Value) -> (StatusCode, Value) {
    post_bytes(replica, path, body.to_string().as_bytes()).await
}

async fn get(replica: &dyn Replica, path: &str) -> (StatusCode, Value) {
    let request = Request::new(Method::GET, path, Body::empty());
    read(replica.call(request).await.unwrap()).await
}

async fn read(response: Response) -> (StatusCode, Value) {
    let bytes = response.body.collect(64 << 20).await.unwrap();
    let value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    (response.status, value)
}

async fn ok(replica: &dyn Replica, path: &str, body: Value) -> Value {
    let (status, value) = post(replica, path, body).await;
    assert_eq!(status, StatusCode::OK, "{path}: {value}");
    value
}

fn floats(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_f64().unwrap())
        .collect()
}

fn length(vector: &[f64]) -> f64 {
    vector.iter().map(|value| value * value).sum::<f64>().sqrt()
}

fn close(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4)
}

#[tokio::test]
async fn tei_embeds_one_text_many_texts_and_token_ids_alike() {
    let embedder = embedder().await;
    let one = ok(&*embedder, "/embed", json!({"inputs": "hello world"})).await;
    let many = ok(
        &*embedder,
        "/embed",
        json!({"inputs": ["other", "hello world"]}),
    )
    .await;
    let vector = floats(&one[0]);
    assert_eq!((one.as_array().unwrap().len(), vector.len()), (1, 384));
    assert!((length(&vector) - 1.0).abs() < 1e-5);
    assert!(close(&vector, &floats(&many[1])));

    let tokens = ok(&*embedder, "/tokenize", json!({"inputs": "hello world"})).await;
    let ids: Vec<u64> = tokens[0]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token["id"].as_u64().unwrap())
        .collect();
    let framed = ok(&*embedder, "/embed", json!({"inputs": ids})).await;
    let bare = ok(&*embedder, "/embed", json!({"inputs": [&ids[1..3]]})).await;
    assert!(close(&vector, &floats(&framed[0])) && close(&vector, &floats(&bare[0])));

    let raw = ok(
        &*embedder,
        "/embed",
        json!({"inputs": "hello world", "normalize": false}),
    )
    .await;
    assert!((length(&floats(&raw[0])) - 1.0).abs() > 0.1);
    let all = ok(&*embedder, "/embed_all", json!({"inputs": "hello world"})).await;
    assert_eq!(all[0].as_array().unwrap().len(), 4);
    assert_eq!(all[0][0].as_array().unwrap().len(), 384);
}

#[tokio::test]
async fn tei_shows_tokens_with_their_places_and_decodes_them() {
    let embedder = embedder().await;
    let text = "Éléphants tokenize, unhappily";
    let tokens = ok(&*embedder, "/tokenize", json!({"inputs": text})).await;
    let tokens = tokens[0].as_array().unwrap();
    assert_eq!(tokens[0]["special"], true);
    assert_eq!(tokens[0]["start"], Value::Null);
    let mut pieces = String::new();
    for token in &tokens[1..tokens.len() - 1] {
        let start = usize::try_from(token["start"].as_u64().unwrap()).unwrap();
        let stop = usize::try_from(token["stop"].as_u64().unwrap()).unwrap();
        assert_eq!(token["text"], text[start..stop]);
        pieces.push_str(&text[start..stop]);
    }
    assert_eq!(pieces, text.replace(' ', ""));
    let bare = json!({"inputs": ["a", "b c"], "add_special_tokens": false});
    let rows = ok(&*embedder, "/tokenize", bare).await;
    let count = |row: usize| rows[row].as_array().unwrap().len();
    assert_eq!((count(0), count(1)), (1, 2));
    let decoded = ok(
        &*embedder,
        "/decode",
        json!({"ids": [101, 7592, 2088, 102]}),
    )
    .await;
    assert_eq!(decoded, json!(["hello world"]));
}

#[tokio::test]
async fn tei_tells_facts_health_and_similarity() {
    let embedder = embedder().await;
    let (_, info) = get(&*embedder, "/info").await;
    assert_eq!(info["model_id"], "sentence-transformers/all-MiniLM-L6-v2");
    assert_eq!(info["model_type"]["embedding"]["pooling"], "mean");
    assert_eq!(info["max_input_length"], 256);
    assert_eq!(get(&*embedder, "/health").await.0, StatusCode::OK);
    let body = json!({"inputs": {
        "source_sentence": "The cat sits outside",
        "sentences": ["A cat is sitting in the garden", "The stock market fell"],
    }});
    let cosines = floats(&ok(&*embedder, "/similarity", body).await);
    assert!(cosines[0] > 0.5 && cosines[1] < 0.2, "{cosines:?}");
    let (status, document) = get(&*embedder, "/openapi.json").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(document["openapi"], "3.0.3");
}

#[tokio::test]
async fn openai_gives_floats_and_base64_with_dimensions_and_usage() {
    let embedder = embedder().await;
    let body = json!({"input": ["hello world", "x"], "model": "all-MiniLM-L6-v2"});
    let answer = ok(&*embedder, "/v1/embeddings", body).await;
    assert_eq!(answer["object"], "list");
    assert_eq!(
        answer["usage"],
        json!({"prompt_tokens": 7, "total_tokens": 7})
    );
    assert_eq!(answer["data"][1]["index"], 1);
    let vector = floats(&answer["data"][0]["embedding"]);

    let body = json!({"input": "hello world", "encoding_format": "base64"});
    let packed = ok(&*embedder, "/v1/embeddings", body).await;
    let packed = packed["data"][0]["embedding"].as_str().unwrap().to_owned();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(packed)
        .unwrap();
    let unpacked: Vec<f64> = bytes
        .chunks_exact(4)
        .map(|four| f64::from(f32::from_le_bytes(four.try_into().unwrap())))
        .collect();
    assert!(close(&vector, &unpacked));

    let body = json!({"input": "hello world", "dimensions": 64});
    let short = ok(&*embedder, "/v1/embeddings", body).await;
    let short = floats(&short["data"][0]["embedding"]);
    let scale = length(&vector[..64]);
    let expected: Vec<f64> = vector[..64].iter().map(|value| value / scale).collect();
    assert!(close(&short, &expected));

    let (_, models) = get(&*embedder, "/v1/models").await;
    assert_eq!(
        models["data"][0]["id"],
        "sentence-transformers/all-MiniLM-L6-v2"
    );
    let (status, model) = get(
        &*embedder,
        "/v1/models/sentence-transformers/all-MiniLM-L6-v2",
    )
    .await;
    assert_eq!(
        (status, &model["object"]),
        (StatusCode::OK, &json!("model"))
    );
    assert_eq!(
        get(&*embedder, "/v1/models/none").await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn reranking_orders_documents_in_each_dialect() {
    let reranker = reranker().await;
    let query = "what is the capital of france";
    let body = json!({"query": query, "texts": [IRRELEVANT, RELEVANT], "return_text": true});
    let ranks = ok(&*reranker, "/rerank", body).await;
    assert_eq!(
        (&ranks[0]["index"], &ranks[0]["text"]),
        (&json!(1), &json!(RELEVANT))
    );
    let score = ranks[0]["score"].as_f64().unwrap();
    assert!(score > 0.9 && score <= 1.0);
    let body = json!({"query": query, "texts": [RELEVANT], "raw_scores": true});
    let raw = ok(&*reranker, "/rerank", body).await;
    assert!(raw[0]["score"].as_f64().unwrap() > 1.0 && raw[0].get("text").is_none());

    for path in ["/v1/rerank", "/v2/rerank"] {
        let body = json!({
            "model": "ms-marco-MiniLM-L-12-v2", "query": query, "top_n": 1,
            "documents": [IRRELEVANT, RELEVANT], "return_documents": true,
        });
        let answer = ok(&*reranker, path, body).await;
        let results = answer["results"].as_array().unwrap();
        assert_eq!(results.len(), 1, "{path}");
        assert_eq!(results[0]["index"], 1);
        assert_eq!(results[0]["document"]["text"], RELEVANT);
        assert!(results[0]["relevance_score"].as_f64().unwrap() > 0.9);
        assert_eq!(answer["meta"]["billed_units"]["search_units"], 1);
    }
    let body = json!({
        "query": query, "rank_fields": ["title", "body"],
        "documents": [{"title": "fruit", "body": IRRELEVANT}, {"title": "geo", "body": RELEVANT}],
    });
    let answer = ok(&*reranker, "/v1/rerank", body).await;
    assert_eq!(answer["results"][0]["index"], 1);
    assert!(answer["results"][0].get("document").is_none());
}

#[tokio::test]
async fn classification_answers_predict_and_infer() {
    let classifier = classifier().await;
    let body = json!({"inputs": ["I love this!", "This is awful."]});
    let inferred = ok(&*classifier, "/infer", body).await;
    assert_eq!(inferred[0]["label"], "POSITIVE");
    assert_eq!(inferred[1]["label"], "NEGATIVE");
    assert!(inferred[0]["score"].as_f64().unwrap() > 0.5);

    let single = ok(&*classifier, "/predict", json!({"inputs": "I love this!"})).await;
    assert_eq!(single[0]["label"], "POSITIVE");
    assert_eq!(single.as_array().unwrap().len(), 2);
    let batch = json!({"inputs": [["I love this!"], ["This is awful."]]});
    let batch = ok(&*classifier, "/predict", batch).await;
    assert_eq!(batch[1][0]["label"], "NEGATIVE");
    let pair = ok(
        &*classifier,
        "/predict",
        json!({"inputs": ["good", "film"]}),
    )
    .await;
    assert_eq!(pair.as_array().unwrap().len(), 2);
    let (_, info) = get(&*classifier, "/info").await;
    assert_eq!(info["model_type"]["classifier"]["label2id"]["POSITIVE"], 1);

    let mut request = Request::new(
        Method::POST,
        "/infer",
        Body::whole(r#"{"inputs":["fine"]}"#),
    );
    request.prefix = "/infer".to_owned();
    let (status, answer) = read(classifier.call(request).await.unwrap()).await;
    assert_eq!(
        (status, answer.as_array().unwrap().len()),
        (StatusCode::OK, 1)
    );
}

/// The text of an error in each dialect's own shape.
fn message<'a>(path: &str, error: &'a Value) -> &'a str {
    let text = match path {
        "/v1/embeddings" => {
            assert_eq!(error["error"]["type"], "invalid_request_error");
            &error["error"]["message"]
        }
        "/v1/rerank" | "/v2/rerank" => &error["message"],
        "/infer" => &error["error"],
        _ => {
            assert!(error["error_type"].is_string(), "{error}");
            &error["error"]
        }
    };
    text.as_str().unwrap_or_else(|| panic!("{path}: {error}"))
}

async fn refused(replica: &dyn Replica, path: &str, body: &[u8], expected: u16, part: &str) {
    let (status, error) = post_bytes(replica, path, body).await;
    let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
    assert_eq!(status.as_u16(), expected, "{path} {shown}: {error}");
    let text = message(path, &error);
    assert!(text.contains(part), "{path} {shown}: {text}");
}

type Refusal<'a> = (&'a str, &'a [u8], u16, &'a str);

async fn all_refused(replica: &dyn Replica, refusals: &[Refusal<'_>]) {
    for (path, body, status, part) in refusals {
        refused(replica, path, body, *status, part).await;
    }
}

#[tokio::test]
async fn bad_input_to_tei_is_refused_in_its_shape() {
    let embedder = embedder().await;
    let long = json!({"inputs": "word ".repeat(400)}).to_string();
    let many = json!({"inputs": vec!["a"; 2049]}).to_string();
    let deep = format!("{{\"inputs\": {}", "[".repeat(50_000));
    let all = json!({"inputs": vec!["word ".repeat(250); 40]}).to_string();
    let sentences = br#"{"inputs": {"source_sentence": "a", "sentences": []}}"#;
    let refusals: &[Refusal<'_>] = &[
        ("/embed", b"{", 400, "not valid JSON"),
        (
            "/embed",
            b"{\"inputs\": \"\xff\xfe\"}",
            400,
            "not valid JSON",
        ),
        ("/embed", deep.as_bytes(), 400, "not valid JSON"),
        ("/embed", b"{}", 422, "missing field `inputs`"),
        ("/embed", br#"{"inputs": {}}"#, 422, "expected a string"),
        ("/embed", br#"{"inputs": []}"#, 400, "cannot be empty"),
        ("/embed", br#"{"inputs": [[]]}"#, 400, "cannot be empty"),
        ("/embed", br#"{"inputs": [-5]}"#, 422, "expected a string"),
        (
            "/embed",
            br#"{"inputs": [4000000]}"#,
            422,
            "no token id 4000000",
        ),
        (
            "/embed",
            br#"{"inputs": "a", "dimensions": 999}"#,
            422,
            "between 1 and 384",
        ),
        (
            "/embed",
            br#"{"inputs": "a", "prompt_name": "query"}"#,
            422,
            "prompt_name",
        ),
        ("/embed", long.as_bytes(), 413, "at most 256"),
        ("/embed", many.as_bytes(), 413, "batch size 2049"),
        ("/embed", &[b' '; 2_000_001], 413, "larger than"),
        ("/embed_all", all.as_bytes(), 413, "at most 8192"),
        ("/similarity", sentences, 400, "empty"),
        ("/tokenize", br#"{"inputs": []}"#, 400, "empty"),
        ("/rerank", b"{}", 424, "cannot answer"),
        ("/nothing", b"{}", 404, "/embed"),
    ];
    all_refused(&*embedder, refusals).await;
    let cut = json!({"inputs": "word ".repeat(400), "truncate": true});
    assert_eq!(
        ok(&*embedder, "/embed", cut)
            .await
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        get(&*embedder, "/embed").await.0,
        StatusCode::METHOD_NOT_ALLOWED
    );
}

#[tokio::test]
async fn bad_input_to_openai_is_refused_in_its_shape() {
    let path = "/v1/embeddings";
    let long = json!({"input": "word ".repeat(400)}).to_string();
    let many = json!({"input": vec!["a"; 2049]}).to_string();
    let deep = format!("{{\"input\": {}", "[".repeat(50_000));
    let refusals: &[Refusal<'_>] = &[
        (path, br#"{"input": []}"#, 400, "cannot be empty"),
        (path, br#"{"input": ""}"#, 400, "cannot be empty"),
        (path, br#"{"input": 3}"#, 400, "expected a string"),
        (
            path,
            br#"{"input": "a", "model": "gpt-4"}"#,
            404,
            "`gpt-4` is not served",
        ),
        (
            path,
            br#"{"input": "a", "dimensions": 0}"#,
            400,
            "dimensions",
        ),
        (
            path,
            br#"{"input": "a", "encoding_format": "hex"}"#,
            400,
            "unknown variant",
        ),
        (path, long.as_bytes(), 400, "at most 256"),
        (path, many.as_bytes(), 400, "batch size 2049"),
        (path, deep.as_bytes(), 400, "not valid JSON"),
    ];
    all_refused(&*embedder().await, refusals).await;
}

#[tokio::test]
async fn bad_input_to_the_reranker_is_refused_in_each_shape() {
    let (v1, v2) = ("/v1/rerank", "/v2/rerank");
    let refusals: &[Refusal<'_>] = &[
        (
            "/rerank",
            br#"{"query": "a", "texts": []}"#,
            400,
            "`texts` cannot be empty",
        ),
        (
            "/rerank",
            br#"{"query": "", "texts": ["a"]}"#,
            400,
            "`query` cannot be empty",
        ),
        (
            "/rerank",
            br#"{"query": "a", "texts": [1]}"#,
            422,
            "expected a string",
        ),
        (
            v1,
            br#"{"query": "a", "documents": []}"#,
            400,
            "cannot be empty",
        ),
        (
            v2,
            br#"{"query": "a", "documents": ["b"], "top_n": 0}"#,
            400,
            "top_n",
        ),
        (
            v2,
            br#"{"query": "a", "documents": [3]}"#,
            400,
            "a string or an object",
        ),
        (
            v2,
            br#"{"query": "a", "documents": [{"x": 1}]}"#,
            400,
            "none of the fields",
        ),
        (
            v2,
            br#"{"model": "x", "query": "a", "documents": ["b"]}"#,
            404,
            "`x`",
        ),
    ];
    all_refused(&*reranker().await, refusals).await;
}

#[tokio::test]
async fn bad_input_to_the_classifier_is_refused_in_each_shape() {
    let refusals: &[Refusal<'_>] = &[
        ("/infer", br#"{"inputs": []}"#, 400, "cannot be empty"),
        ("/infer", br#"{"inputs": [1]}"#, 400, "expected a string"),
        ("/infer", b"\xff", 400, "not valid JSON"),
        ("/predict", br#"{"inputs": []}"#, 400, "cannot be empty"),
        (
            "/predict",
            br#"{"inputs": ["a", "b", "c"]}"#,
            422,
            "pair of strings",
        ),
        (
            "/predict",
            br#"{"inputs": [["a"], []]}"#,
            400,
            "cannot be empty",
        ),
    ];
    all_refused(&*classifier().await, refusals).await;
}

async fn call_grpc(replica: &dyn Replica, method: &str, message: Vec<u8>) -> Response {
    let path = format!("/mobula.inference.v1.Inference/{method}");
    let mut request = Request::new(Method::POST, path, Body::whole(message));
    request.protocol = Protocol::Grpc;
    replica.call(request).await.unwrap()
}

async fn decoded<M: Message + Default>(response: Response) -> M {
    let status = response.grpc_status.clone().unwrap();
    assert_eq!(status.code, 0, "{}", status.message);
    M::decode(response.body.collect(1 << 20).await.unwrap()).unwrap()
}

#[tokio::test]
async fn grpc_embeds_reranks_and_classifies() {
    let embedder = embedder().await;
    let texts = vec!["hello world".to_owned(), "x".to_owned()];
    let request = v1::EmbedRequest {
        texts,
        ..Default::default()
    }
    .encode_to_vec();
    let answer: v1::EmbedResponse = decoded(call_grpc(&*embedder, "Embed", request).await).await;
    let http = ok(&*embedder, "/embed", json!({"inputs": "hello world"})).await;
    let values: Vec<f64> = answer.embeddings[0]
        .values
        .iter()
        .map(|&v| f64::from(v))
        .collect();
    assert!(close(&values, &floats(&http[0])));
    assert_eq!(answer.tokens, 7);

    let request = v1::RerankRequest {
        query: "what is the capital of france".to_owned(),
        texts: vec![IRRELEVANT.to_owned(), RELEVANT.to_owned()],
        top_n: 1,
        return_texts: true,
        ..Default::default()
    };
    let response = call_grpc(&*reranker().await, "Rerank", request.encode_to_vec()).await;
    let answer: v1::RerankResponse = decoded(response).await;
    assert_eq!((answer.ranks.len(), answer.ranks[0].index), (1, 1));
    assert_eq!(answer.ranks[0].text, RELEVANT);

    let texts = vec!["I love this!".to_owned()];
    let request = v1::ClassifyRequest {
        texts,
        top_k: 1,
        ..Default::default()
    };
    let response = call_grpc(&*classifier().await, "Classify", request.encode_to_vec()).await;
    let answer: v1::ClassifyResponse = decoded(response).await;
    assert_eq!(answer.classifications[0].labels[0].name, "POSITIVE");

    let empty = v1::EmbedRequest::default().encode_to_vec();
    for (method, message, code) in [
        ("Embed", empty, 3),
        ("Embed", vec![0xff, 0xff], 3),
        ("Rerank", Vec::new(), 12),
    ] {
        let response = call_grpc(&*embedder, method, message).await;
        assert_eq!(response.grpc_status.unwrap().code, code, "{method}");
    }
}

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
