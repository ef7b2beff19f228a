//! `mobula.apps:echo`: gives back what it gets, in every way in which a client can send: a body,
//! a WebSocket, gRPC calls of all four kinds. For tests, and as an example of each.

use std::str::FromStr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use mobula_app::{
    Application, BuildContext, BuildError, CallError, Deployment, GrpcMessages, GrpcRoute,
    GrpcStatus, Message, Protocol, Replica, Request, Response, WebSocket, async_trait,
};

use super::plain::{no_args, single};

/// The messages of its methods are any bytes.
const SERVICE: &str = "mobula.apps.Echo";

/// How often `Repeat` sends its message.
const REPEATS: usize = 3;

/// What `Collect` joins, at most.
const COLLECTED_BYTES_MAX: usize = 1024 * 1024;

/// The longest that `later` waits.
const LATER_SECONDS_MAX: f64 = 3600.0;

/// A message that ends a stream with a status, so that a test can ask for one.
const FAILS: &[u8] = b"fail";

struct Echo;

/// An application with one deployment.
pub(super) fn echo(context: &BuildContext) -> Result<Application, BuildError> {
    no_args("Echo", context)?;
    let mut application = single(Deployment::new("Echo", |_| async { Ok(Echo) }));
    let methods = [
        ("Unary", false),
        ("Collect", true),
        ("Repeat", true),
        ("Chat", true),
    ];
    application.grpc_routes = methods
        .map(|(method, streaming)| GrpcRoute {
            service: SERVICE.to_owned(),
            method: method.to_owned(),
            deployment: "Echo".to_owned(),
            streaming,
        })
        .to_vec();
    Ok(application)
}

#[async_trait]
impl Replica for Echo {
    async fn call(&self, request: Request) -> Result<Response, CallError> {
        Ok(match request.protocol {
            Protocol::Http => body(request),
            Protocol::WebSocket => Response::websocket(request, speak),
            Protocol::Grpc => {
                let mut response = Response::grpc("");
                response.body = request.body;
                response
            }
            Protocol::GrpcStream => match request.path.rsplit('/').next() {
                Some("Collect") => collect(request),
                Some("Repeat") => repeat(request),
                Some(_) | None => chat(request),
            },
        })
    }
}

/// The body streams back as it comes.
fn body(request: Request) -> Response {
    let content_type = request.headers.get(CONTENT_TYPE).cloned();
    let bytes = || HeaderValue::from_static("application/octet-stream");
    let mut response = Response::text("");
    response
        .headers
        .insert(CONTENT_TYPE, content_type.unwrap_or_else(bytes));
    response.body = request.body;
    response
}

/// Each message goes back. `close CODE` has it closed with that code; `later SECONDS` is answered
/// at once with `soon`, and goes back after so long.
async fn speak(mut socket: WebSocket) -> Result<(), CallError> {
    while let Some(message) = socket.recv().await? {
        if let Some(code) = told(&message, "close ") {
            socket.close(code, "as told").await;
            break;
        }
        if let Some(seconds) = told::<f64>(&message, "later ")
            && let Ok(pause) = Duration::try_from_secs_f64(seconds.min(LATER_SECONDS_MAX))
        {
            socket.send(Message::Text("soon".to_owned())).await?;
            tokio::time::sleep(pause).await;
        }
        socket.send(message).await?;
    }
    Ok(())
}

/// The number after a word.
fn told<T: FromStr>(message: &Message, word: &str) -> Option<T> {
    match message {
        Message::Text(text) => text.strip_prefix(word)?.parse().ok(),
        Message::Binary(_) => None,
    }
}

/// Bidirectional: each message goes back as it comes.
fn chat(request: Request) -> Response {
    let messages = GrpcMessages::of(request).map(|message| match message {
        Ok(message) if message == FAILS => Err(GrpcStatus {
            code: 9,
            message: "fails as told".to_owned(),
        }),
        other => other,
    });
    Response::grpc_stream(messages)
}

/// The client streams: one message with all of it.
fn collect(request: Request) -> Response {
    let mut messages = GrpcMessages::of(request);
    Response::grpc_stream(stream::once(async move {
        let mut all = BytesMut::new();
        while let Some(message) = messages.next().await {
            let message = message?;
            if all.len() + message.len() > COLLECTED_BYTES_MAX {
                return Err(GrpcStatus {
                    code: 8,
                    message: format!("More than {COLLECTED_BYTES_MAX} bytes."),
                });
            }
            all.extend_from_slice(&message);
        }
        Ok(all.freeze())
    }))
}

/// The replica streams: the client's message, a few times.
fn repeat(request: Request) -> Response {
    let first = stream::once(async move {
        let mut messages = GrpcMessages::of(request);
        messages.next().await.unwrap_or(Ok(Bytes::new()))
    });
    Response::grpc_stream(first.flat_map(|message| stream::iter(vec![message; REPEATS])))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use mobula_app::Body;

    use super::*;

    #[tokio::test]
    async fn echo_gives_back_the_body_and_its_content_type() {
        let mut request = Request::new(Method::POST, "/", Body::whole("<a/>"));
        let value = HeaderValue::from_static("text/xml");
        request.headers.insert(CONTENT_TYPE, value.clone());
        let response = Echo.call(request).await.unwrap();
        assert_eq!(response.headers.get(CONTENT_TYPE), Some(&value));
        assert_eq!(response.body.collect(100).await.unwrap(), "<a/>");
    }
}
