//! What a replica is asked.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Method};
use tokio_util::sync::CancellationToken;

use crate::{Body, Leaving};

/// How the request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 or HTTP/2 on the HTTP ingress.
    Http,
    /// A unary call on the gRPC ingress: `path` is `/package.Service/Method`, the body is the
    /// bare message, and the answer is made by [`crate::Response::grpc`] or
    /// [`crate::Response::grpc_error`].
    Grpc,
    /// A call on a gRPC route that streams: [`crate::GrpcMessages`] reads the body, and the
    /// answer is made by [`crate::Response::grpc_stream`] or [`crate::Response::grpc_error`].
    GrpcStream,
    /// HTTP/1.1 that asks for a WebSocket: [`crate::Response::websocket`] opens it; any other
    /// answer refuses it.
    WebSocket,
}

/// A request as it reaches a replica.
#[derive(Debug)]
pub struct Request {
    /// How it came in.
    pub protocol: Protocol,
    /// HTTP method; POST for gRPC.
    pub method: Method,
    /// The whole path as the client sent it, percent-encoded.
    pub path: String,
    /// What stood after `?`, if anything.
    pub query: Option<String>,
    /// The application's route prefix: `/`, or without a slash at its end.
    pub prefix: String,
    /// Headers, or gRPC metadata.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
    /// What belongs to the request and not to its content.
    pub context: RequestContext,
}

/// What belongs to a request and not to its content.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// `x-request-id`: the client's, or one made for it.
    pub request_id: String,
    /// When nobody waits any longer.
    pub deadline: Option<Instant>,
    /// `serve_multiplexed_model_id`; empty when none.
    pub model_id: String,
    /// Fires when the client went away or the deadline passed. The call's future is dropped as
    /// well; the token is for work that was handed to other threads.
    pub cancelled: CancellationToken,
    /// Told when a WebSocket has to come to an end; none for requests that end by themselves.
    pub leaving: Option<Arc<Leaving>>,
}

impl Request {
    /// The path below the application's prefix; always starts with `/`.
    pub fn relative_path(&self) -> &str {
        if self.prefix == "/" {
            return &self.path;
        }
        match self.path.strip_prefix(self.prefix.as_str()) {
            Some("") | None => "/",
            Some(rest) => rest,
        }
    }

    /// A request for tests and in-process calls: no deadline, an empty id.
    pub fn new(method: Method, path: impl Into<String>, body: Body) -> Request {
        Request {
            protocol: Protocol::Http,
            method,
            path: path.into(),
            query: None,
            prefix: "/".to_owned(),
            headers: HeaderMap::new(),
            body,
            context: RequestContext {
                request_id: String::new(),
                deadline: None,
                model_id: String::new(),
                cancelled: CancellationToken::new(),
                leaving: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relative_path_is_what_lies_below_the_prefix() {
        for (prefix, path, relative) in [
            ("/", "/embed", "/embed"),
            ("/rag", "/rag", "/"),
            ("/rag", "/rag/embed", "/embed"),
        ] {
            let mut request = Request::new(Method::GET, path, Body::empty());
            request.prefix = prefix.to_owned();
            assert_eq!(request.relative_path(), relative, "{prefix} {path}");
        }
    }
}
