//! The same models over gRPC.

#![expect(
    clippy::unwrap_used,
    reason = "a test says why it failed by where it panicked"
)]

use http::Method;
use mobula_app::{Body, Protocol, Replica, Request, Response};
use mobula_models::grpc::v1;
use prost::Message;
use serde_json::json;

use crate::client::{IRRELEVANT, RELEVANT, close, floats, ok};
use crate::support::{classifier, embedder, reranker};

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
