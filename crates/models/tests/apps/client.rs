//! Calls of a replica over HTTP, and numbers out of its answers.

#![expect(
    clippy::unwrap_used,
    reason = "a test says why it failed by where it panicked"
)]

use http::{Method, StatusCode};
use mobula_app::{Body, Replica, Request, Response};
use serde_json::Value;

pub const RELEVANT: &str = "Paris is the capital of France.";
pub const IRRELEVANT: &str = "Bananas are rich in potassium.";

pub async fn post_bytes(replica: &dyn Replica, path: &str, body: &[u8]) -> (StatusCode, Value) {
    let request = Request::new(Method::POST, path, Body::whole(body.to_vec()));
    read(replica.call(request).await.unwrap()).await
}

pub async fn post(replica: &dyn Replica, path: &str, body: Value) -> (StatusCode, Value) {
    post_bytes(replica, path, body.to_string().as_bytes()).await
}

pub async fn get(replica: &dyn Replica, path: &str) -> (StatusCode, Value) {
    let request = Request::new(Method::GET, path, Body::empty());
    read(replica.call(request).await.unwrap()).await
}

pub async fn read(response: Response) -> (StatusCode, Value) {
    let bytes = response.body.collect(64 << 20).await.unwrap();
    let value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    (response.status, value)
}

pub async fn ok(replica: &dyn Replica, path: &str, body: Value) -> Value {
    let (status, value) = post(replica, path, body).await;
    assert_eq!(status, StatusCode::OK, "{path}: {value}");
    value
}

pub fn floats(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_f64().unwrap())
        .collect()
}

pub fn length(vector: &[f64]) -> f64 {
    vector.iter().map(|value| value * value).sum::<f64>().sqrt()
}

pub fn close(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4)
}
