//! Whatever JSON comes, the answer is a 2xx or a 4xx that says why.

mod support;

use http::Method;
use mobula_app::{Body, Replica, Request};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};

/// For each path: which replica answers it, and the field that holds its inputs.
const PATHS: &[(&str, usize, &str)] = &[
    ("/embed", 0, "inputs"),
    ("/embed_all", 0, "inputs"),
    ("/similarity", 0, "inputs"),
    ("/tokenize", 0, "inputs"),
    ("/decode", 0, "ids"),
    ("/v1/embeddings", 0, "input"),
    ("/rerank", 1, "texts"),
    ("/v1/rerank", 1, "documents"),
    ("/v2/rerank", 1, "documents"),
    ("/predict", 2, "inputs"),
    ("/infer", 2, "inputs"),
];

const FIELDS: &[&str] = &[
    "query",
    "truncate",
    "normalize",
    "dimensions",
    "encoding_format",
    "top_n",
    "rank_fields",
    "raw_scores",
    "return_text",
    "return_documents",
    "parameters",
    "source_sentence",
    "sentences",
    "skip_special_tokens",
    "add_special_tokens",
    "prompt_name",
    "text",
    "truncation_direction",
];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("[SEP] \u{0} 🚀".to_owned()),
        Just("word ".repeat(600)),
        "\\PC{0,40}",
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0_u32..31_000).prop_map(Value::from),
        text().prop_map(Value::from),
        proptest::collection::vec(text(), 0..4).prop_map(Value::from),
        proptest::collection::vec(0_u32..31_000, 0..6).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let key = proptest::sample::select(FIELDS).prop_map(str::to_owned);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key, inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn request() -> impl Strategy<Value = (usize, Value, Map<String, Value>)> {
    let field = proptest::sample::select(FIELDS).prop_map(str::to_owned);
    let others = proptest::collection::btree_map(field, value(), 0..4);
    (0..PATHS.len(), value(), others)
        .prop_map(|(path, inputs, others)| (path, inputs, others.into_iter().collect()))
}

async fn replicas() -> Vec<Box<dyn Replica>> {
    let mut replicas = Vec::new();
    for deployment in ["Embedder", "Reranker", "Classifier"] {
        replicas.push(support::replica("mobula.apps:rag", deployment, json!({})).await);
    }
    replicas
}

#[test]
fn no_json_makes_a_5xx_or_a_panic() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let replicas = runtime.block_on(replicas());
    let mut runner = TestRunner::new(Config {
        cases: 300,
        ..Config::default()
    });
    let outcome = runner.run(&request(), |(path, inputs, mut body)| {
        let (path, replica, field) = PATHS[path];
        body.insert(field.to_owned(), inputs);
        body.entry("query").or_insert_with(|| json!("a question"));
        let text = Value::Object(body).to_string();
        let request = Request::new(Method::POST, path, Body::whole(text));
        let response = runtime.block_on(replicas[replica].call(request)).unwrap();
        let status = response.status.as_u16();
        prop_assert!(
            matches!(status, 200 | 400 | 404 | 413 | 422),
            "{path}: {status}"
        );
        let bytes = runtime.block_on(response.body.collect(64 << 20)).unwrap();
        let answer: Value = serde_json::from_slice(&bytes).unwrap();
        let told = ["error", "message"]
            .iter()
            .any(|key| answer.get(key).is_some());
        prop_assert_eq!(told, status != 200, "{}: {}", path, answer);
        Ok(())
    });
    outcome.unwrap();
}
