//! What goes over the wire.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::Response;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

pub type Body = UnsyncBoxBody<Bytes, Infallible>;
pub type Answer = Result<Response<Body>, io::Error>;

/// An object.
pub fn object(code: u16, value: &Value) -> Answer {
    let body = Full::new(Bytes::from(value.to_string())).boxed_unsync();
    Ok(response(code, body))
}

/// A failure as the API server words it.
pub fn failure(code: u16, message: &str) -> Answer {
    object(code, &status(code, message))
}

/// The connection breaks before an answer.
pub fn broken() -> Answer {
    Err(io::Error::other("the connection broke"))
}

/// Events of a watch, one per line.
pub fn events(events: impl Stream<Item = Value> + Send + 'static) -> Answer {
    let lines = events.map(|event| Ok(Frame::data(Bytes::from(format!("{event}\n")))));
    Ok(response(200, StreamBody::new(lines).boxed_unsync()))
}

/// The object of a failure.
pub fn status(code: u16, message: &str) -> Value {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        _ => "Other",
    };
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

fn response(code: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
    response
}
