//! Answers, whole and in memory.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, ETAG, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use serde_json::Value;

pub type Reply = Response<Full<Bytes>>;

pub const TEXT: &str = "text/plain; charset=utf-8";
pub const JSON: &str = "application/json; charset=utf-8";

pub fn reply(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

pub fn text_reply(status: u16, text: impl Into<String>) -> Reply {
    reply(status, TEXT, text.into())
}

pub fn json_reply(status: u16, value: &Value) -> Reply {
    reply(status, JSON, value.to_string())
}

/// Names the revision that the answer speaks about, for `If-Match`.
pub fn with_revision(mut reply: Reply, revision: u64) -> Reply {
    if let Ok(value) = HeaderValue::from_str(&format!("\"{revision}\"")) {
        reply.headers_mut().insert(ETAG, value);
    }
    reply
}

pub fn error_reply(status: u16, message: &str) -> Reply {
    json_reply(status, &serde_json::json!({ "error": message }))
}

pub fn wrong_method(method: &Method, allow: &'static str) -> Reply {
    let mut reply = text_reply(405, format!("405: Method Not Allowed ({method})"));
    reply
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allow));
    reply
}
