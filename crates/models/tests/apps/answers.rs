//! What each endpoint answers, in each dialect.

use base64::Engine as _;
use http::{Method, StatusCode};
use mobula_app::{Body, Request};
use serde_json::{Value, json};

use crate::client::{IRRELEVANT, RELEVANT, close, floats, get, length, ok, read};
use crate::support::{classifier, embedder, reranker};

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
