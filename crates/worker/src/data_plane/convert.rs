//! Frames to requests, responses to frames. Bodies and header values are handed on, not copied.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use mobula_app::{
    Body, End, Ending, GrpcStatus, Leave, Protocol, Request, RequestContext, Response,
};
use mobula_proto::v1::{self, Call, Frame, Header, Reply, frame};
use tokio_util::sync::CancellationToken;

/// The longest deadline; a router that says more means none.
const DEADLINE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// The request of a call. The error is for logs: the router checks what clients send.
pub(crate) fn request(
    call: Call,
    body: Body,
    now: Instant,
    cancelled: CancellationToken,
) -> Result<Request, String> {
    let protocol = match call.protocol() {
        v1::Protocol::Http => Protocol::Http,
        v1::Protocol::Grpc => Protocol::Grpc,
        v1::Protocol::GrpcStream => Protocol::GrpcStream,
        v1::Protocol::Websocket => Protocol::WebSocket,
    };
    let deadline = call
        .remaining_ms
        .map(Duration::from_millis)
        .filter(|remaining| *remaining < DEADLINE_MAX)
        .map(|remaining| now + remaining);
    Ok(Request {
        protocol,
        method: method(&call.method)?,
        path: call.path,
        query: call.query,
        prefix: call.prefix,
        headers: header_map(call.headers)?,
        body,
        context: RequestContext {
            request_id: call.request_id,
            deadline,
            model_id: call.model_id,
            cancelled,
            leaving: None,
        },
    })
}

/// The router's word that a WebSocket shall be closed.
pub(crate) fn leave(leave: v1::Leave, now: Instant) -> Leave {
    let code = u16::try_from(leave.close_code).unwrap_or(Leave::GOING_AWAY);
    Leave::within(code, Duration::from_millis(leave.within_ms), now)
}

/// The head of a reply, with the body or its first piece.
pub(crate) fn reply(response: &mut Response, body: Bytes, end: bool) -> frame::Kind {
    let headers = std::mem::take(&mut response.headers);
    frame::Kind::Reply(Reply {
        status: u32::from(response.status.as_u16()),
        headers: header_list(headers),
        body,
        end,
        grpc_status: response.grpc_status.take().map(grpc_status),
    })
}

/// The frame after the last piece of a body.
pub(crate) fn end(ending: Option<Ending>) -> frame::Kind {
    let mut end = v1::End::default();
    match ending.and_then(|ending| ending.get()) {
        Some(End::Grpc(status)) => end.grpc_status = Some(grpc_status(status)),
        Some(End::Closed(code)) => end.close_code = code.into(),
        None => {
            return frame::Kind::Data(v1::Data {
                bytes: Bytes::new(),
                end: true,
            });
        }
    }
    frame::Kind::End(end)
}

fn grpc_status(status: GrpcStatus) -> v1::GrpcStatus {
    v1::GrpcStatus {
        code: status.code,
        message: status.message,
    }
}

pub(crate) fn frame(request: u64, kind: frame::Kind) -> Frame {
    Frame {
        request,
        kind: Some(kind),
    }
}

fn method(name: &str) -> Result<Method, String> {
    if name.is_empty() {
        return Ok(Method::POST); // gRPC
    }
    Method::from_bytes(name.as_bytes()).map_err(|_| format!("'{name}' is no method"))
}

fn header_map(headers: Vec<Header>) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for header in headers {
        let name = HeaderName::from_bytes(header.name.as_bytes())
            .map_err(|_| format!("'{}' is no header name", header.name))?;
        let value = HeaderValue::from_maybe_shared(header.value)
            .map_err(|_| format!("header '{name}' has a value that is none"))?;
        map.append(name, value);
    }
    Ok(map)
}

fn header_list(headers: HeaderMap) -> Vec<Header> {
    let mut list: Vec<Header> = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let name = match (name, list.last()) {
            (Some(name), _) => name.as_str().to_owned(),
            // A name comes only with the first of its values.
            (None, Some(before)) => before.name.clone(),
            (None, None) => continue,
        };
        // Shares the value's buffer.
        let value = Bytes::from_owner(value);
        list.push(Header { name, value });
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    fn header(name: &str, value: &'static str) -> Header {
        Header {
            name: name.to_owned(),
            value: Bytes::from_static(value.as_bytes()),
        }
    }

    #[test]
    fn a_call_keeps_everything_that_the_client_sent() {
        let call = Call {
            protocol: v1::Protocol::Http.into(),
            method: "PUT".to_owned(),
            path: "/a/b%20c".to_owned(),
            query: Some("x=1".to_owned()),
            prefix: "/a".to_owned(),
            headers: vec![header("x-a", "1"), header("x-b", "2"), header("x-a", "3")],
            request_id: "id".to_owned(),
            remaining_ms: Some(1500),
            model_id: "m".to_owned(),
            ..Call::default()
        };
        let now = Instant::now();
        let request = request(call, Body::empty(), now, CancellationToken::new()).unwrap();
        assert_eq!(request.method, Method::PUT);
        assert_eq!(
            (request.path.as_str(), request.relative_path()),
            ("/a/b%20c", "/b%20c")
        );
        assert_eq!(request.query.as_deref(), Some("x=1"));
        let values: Vec<_> = request.headers.get_all("x-a").iter().collect();
        assert_eq!(values, ["1", "3"]);
        assert_eq!(
            request.context.deadline,
            Some(now + Duration::from_millis(1500))
        );
        assert_eq!(request.context.model_id, "m");
    }

    #[test]
    fn what_is_no_request_is_refused_by_name() {
        let bad_method = Call {
            method: "GE T".to_owned(),
            ..Call::default()
        };
        let bad_header = Call {
            headers: vec![header("a b", "1")],
            ..Call::default()
        };
        for (call, named) in [(bad_method, "GE T"), (bad_header, "a b")] {
            let token = CancellationToken::new();
            let error = request(call, Body::empty(), Instant::now(), token).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_reply_keeps_status_repeated_headers_and_grpc_status() {
        let mut response = Response::new(StatusCode::CREATED, "text/plain", Body::empty());
        response
            .headers
            .append("x-a", HeaderValue::from_static("1"));
        response
            .headers
            .append("x-a", HeaderValue::from_static("2"));
        response.grpc_status = Some(GrpcStatus {
            code: 5,
            message: "none".to_owned(),
        });
        let frame::Kind::Reply(reply) = reply(&mut response, Bytes::from_static(b"b"), true) else {
            panic!("a reply");
        };
        let headers: Vec<_> = reply
            .headers
            .iter()
            .map(|h| (h.name.as_str(), &h.value[..]))
            .collect();
        assert_eq!(
            headers,
            [
                ("content-type", &b"text/plain"[..]),
                ("x-a", b"1"),
                ("x-a", b"2")
            ]
        );
        assert_eq!(reply.status, 201);
        assert_eq!(reply.grpc_status.unwrap().code, 5);
        assert!(reply.end);
    }
}
