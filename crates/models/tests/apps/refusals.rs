//! Bad input is refused in each dialect's own shape.

use http::StatusCode;
use mobula_app::Replica;
use serde_json::{Value, json};

use crate::client::{get, ok, post_bytes};
use crate::support::{classifier, embedder, reranker};

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
