//! What a replica answers.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, StatusCode};

use crate::Body;

/// The outcome of a gRPC call, for [`crate::Protocol::Grpc`] requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcStatus {
    /// The gRPC status code's number; 0 is OK.
    pub code: u32,
    /// For the caller.
    pub message: String,
}

/// How a streamed answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A gRPC call.
    Grpc(GrpcStatus),
    /// A WebSocket, with its close code.
    Closed(u16),
}

/// Told by whoever makes a streamed answer, before its body ends. The first word counts.
#[derive(Clone, Debug, Default)]
pub struct Ending(Arc<OnceLock<End>>);

impl Ending {
    /// It ends like this.
    pub fn set(&self, end: End) {
        // It was said before.
        let _ = self.0.set(end);
    }

    /// How it ended, if that was said.
    pub fn get(&self) -> Option<End> {
        self.0.get().cloned()
    }
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// HTTP status; 200 for gRPC.
    pub status: StatusCode,
    /// Headers, or gRPC initial metadata.
    pub headers: HeaderMap,
    /// The body; the bare message for gRPC.
    pub body: Body,
    /// Set on answers to gRPC calls.
    pub grpc_status: Option<GrpcStatus>,
    /// Where it is told how a streamed answer ended.
    pub ending: Option<Ending>,
}

impl Response {
    /// An answer with a status, a content type and a body.
    pub fn new(status: StatusCode, content_type: &'static str, body: Body) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Response {
            status,
            headers,
            body,
            grpc_status: None,
            ending: None,
        }
    }

    /// 200 with a plain text.
    pub fn text(text: impl Into<String>) -> Response {
        let body = Body::whole(text.into());
        Response::new(StatusCode::OK, "text/plain; charset=utf-8", body)
    }

    /// A JSON document that was already written.
    pub fn json(status: StatusCode, document: impl Into<Bytes>) -> Response {
        Response::new(status, "application/json", Body::whole(document))
    }

    /// A successful gRPC answer: an encoded message.
    pub fn grpc(message: impl Into<Bytes>) -> Response {
        Response {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Body::whole(message),
            grpc_status: Some(GrpcStatus {
                code: 0,
                message: String::new(),
            }),
            ending: None,
        }
    }

    /// A failed gRPC answer.
    pub fn grpc_error(code: u32, message: impl Into<String>) -> Response {
        Response {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Body::empty(),
            grpc_status: Some(GrpcStatus {
                code,
                message: message.into(),
            }),
            ending: None,
        }
    }
}
