//! The gRPC ingress: a proxy that knows no message types. Routes by method (and `application`
//! metadata). The message of a unary call is unwrapped for the replica, and its answer wrapped;
//! streams pass through (`grpc_stream`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::poll_fn;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use mobula_proto::status::ErrorKind;
use mobula_proto::v1;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::ServiceExt as _;

use super::grpc_builtin;
use super::grpc_message::{self, Message, NoMessage};
use super::grpc_stream;
use super::headers;
use super::http::{Deadline, explain};
use super::problem::Problem;
use super::tally::Tally;
use crate::core::{Core, RouteEntry};
use crate::dispatch::{Upload, UploadError};
use crate::error::RouterError;
use crate::exchange::{Answer, Ask, Failure};
use crate::limits::{GRPC_MESSAGE_BYTES_MAX, GRPC_STATUS_CHARS_MAX};
use crate::metrics::{self, Ingress};
use crate::queue::Affinity;

/// Metadata that Ray Serve reads and answers.
const REQUEST_ID: HeaderName = HeaderName::from_static("request_id");
const APPLICATION: HeaderName = HeaderName::from_static("application");
const MODEL_ID: HeaderName = HeaderName::from_static("multiplexed_model_id");
const SESSION_ID: HeaderName = HeaderName::from_static("session_id");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// Answers gRPC calls.
pub struct GrpcIngress {
    core: Arc<Core>,
    timeout_s: Option<f64>,
    own: Routes,
    /// Ends with the ingress.
    _health: AbortOnDropHandle<()>,
}

/// A unary answer: the message, or none with an error.
struct Unary {
    message: Option<Bytes>,
    metadata: HeaderMap,
    status: Status,
}

impl GrpcIngress {
    /// An ingress on the router's state; with reflection of the given descriptor sets, or none.
    pub fn new(
        core: Arc<Core>,
        timeout_s: Option<f64>,
        reflection: Option<&Vec<&'static [u8]>>,
    ) -> Result<GrpcIngress, RouterError> {
        let (own, reporter) = grpc_builtin::routes(&core, reflection)?;
        let health = tokio::spawn(grpc_builtin::follow_health(Arc::clone(&core), reporter));
        Ok(GrpcIngress {
            core,
            timeout_s,
            own,
            _health: AbortOnDropHandle::new(health),
        })
    }

    /// Answers one call. Dropping the future means that the client went away.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if grpc_builtin::is_own(request.uri().path()) {
            // Clones a few `Arc`s; these calls are rare.
            let own = self.own.clone();
            return match own.oneshot(request.map(Body::new)).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
        }
        let (parts, body) = request.into_parts();
        let id = headers::request_id(&parts.headers, &REQUEST_ID);
        let mut tally = Tally::begin(&self.core, Ingress::Grpc, parts.method.clone());
        let route = match self.route(&parts) {
            Ok(route) => route,
            Err(problem) => return Unary::error(status(&problem)).counted(tally, &id),
        };
        tally.set_route(&route);
        let deadline = self.deadline(&parts.headers, &tally);
        if route.route.is_stream {
            let upload = grpc_stream::upload(body);
            let asking = Box::pin(self.ask(&parts, upload, &id, &route, deadline));
            let answer = in_time(deadline, &id, asking).await;
            return stream_response(answer, &id, deadline, tally);
        }
        let answering = self.unary(&parts, body, &id, &route, deadline);
        let answer = in_time(deadline, &id, answering).await;
        answer.unwrap_or_else(Unary::error).counted(tally, &id)
    }

    fn deadline(&self, headers: &HeaderMap, tally: &Tally) -> Option<Deadline> {
        let seconds = match grpc_timeout(headers) {
            Some(asked) => Some(
                self.timeout_s
                    .map_or(asked, |configured| asked.min(configured)),
            ),
            None => self.timeout_s,
        };
        seconds
            .filter(|seconds| *seconds > 0.0)
            .and_then(|seconds| Deadline::after(tally.came(), seconds))
    }

    fn route(&self, parts: &Parts) -> Result<Arc<RouteEntry>, Problem> {
        let path = parts.uri.path();
        let application = text(&parts.headers, &APPLICATION).filter(|name| !name.is_empty());
        let snapshot = self.core.snapshot.load();
        let found = snapshot.table.route_grpc(path, application);
        let missing = |reason| Problem::no_method(&reason, path, application.unwrap_or_default());
        let id = found.map_err(missing)?;
        let entry = snapshot.entry(id).map(Arc::clone);
        entry.ok_or_else(|| missing(crate::table::NoMethod::Unknown))
    }

    async fn unary(
        &self,
        parts: &Parts,
        body: Incoming,
        id: &str,
        route: &RouteEntry,
        deadline: Option<Deadline>,
    ) -> Result<Unary, Status> {
        let upload = upload(body).await?;
        let answer = self.ask(parts, upload, id, route, deadline).await?;
        collect(answer, route).await
    }

    async fn ask(
        &self,
        parts: &Parts,
        upload: Upload,
        id: &str,
        route: &RouteEntry,
        deadline: Option<Deadline>,
    ) -> Result<Answer, Status> {
        let model_id = text(&parts.headers, &MODEL_ID).unwrap_or_default();
        let session_id = text(&parts.headers, &SESSION_ID).unwrap_or_default();
        let protocol = match route.route.is_stream {
            true => v1::Protocol::GrpcStream,
            false => v1::Protocol::Grpc,
        };
        let mut ask = Ask {
            wish: route.wish(Affinity::of(session_id, model_id), &parts.headers),
            upload,
            call: |replica_id: &str| v1::Call {
                replica_id: replica_id.to_owned(),
                protocol: protocol.into(),
                method: parts.method.as_str().to_owned(),
                path: parts.uri.path().to_owned(),
                query: None,
                prefix: String::new(),
                headers: headers::to_replica(&parts.headers),
                request_id: id.to_owned(),
                remaining_ms: deadline.map(Deadline::remaining_ms),
                model_id: model_id.to_owned(),
                body: Bytes::new(),
                end: false,
            },
            timeout_at: deadline.and_then(|deadline| deadline.of_config(self.timeout_s)),
            repeatable: headers::has_idempotency_key(&parts.headers),
        };
        let failed = |failure: Failure| status(&explain(&failure, route));
        ask.answer(route).await.map_err(failed)
    }
}

/// The beginning of a stream, whose body tells the status at its end.
fn stream_response(
    answer: Result<Answer, Status>,
    id: &str,
    deadline: Option<Deadline>,
    tally: Tally,
) -> Response<Body> {
    match answer {
        Err(status) => Unary::error(status).counted(tally, id),
        Ok(answer) => {
            let (metadata, body) = grpc_stream::answer(answer, id, deadline, tally);
            with_own_headers(Response::new(Body::new(body)), metadata)
        }
    }
}

/// The outcome, or that it came too late.
async fn in_time<T>(
    deadline: Option<Deadline>,
    id: &str,
    answering: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match deadline {
        None => answering.await,
        Some(deadline) => tokio::time::timeout_at(deadline.at.into(), answering)
            .await
            .unwrap_or_else(|_| Err(status(&Problem::timed_out(id, deadline.seconds)))),
    }
}

async fn upload(body: Incoming) -> Result<Upload, Status> {
    let body = body.map_err(|error| UploadError::Broken(error.to_string()));
    let failed = |error: UploadError| status(&Problem::upload(&error));
    let (message, size) = match Message::open(body).await {
        Ok(message) => message,
        Err(NoMessage::Compressed) => {
            return Err(Status::unimplemented(
                "Compressed messages are not supported; send them as identity.",
            ));
        }
        Err(NoMessage::Upload(error)) => return Err(failed(error)),
    };
    let max = GRPC_MESSAGE_BYTES_MAX as u64;
    Upload::begin(message, Some(size), max)
        .await
        .map_err(failed)
}

/// The whole answer: its length stands before the message, so it has to be known.
async fn collect(answer: Answer, route: &RouteEntry) -> Result<Unary, Status> {
    let Answer { reply, rest } = answer;
    let code = reply.grpc_status.unwrap_or_default();
    let mut pieces = vec![reply.body];
    if let Some(mut call) = rest {
        let mut size = pieces.iter().map(Bytes::len).sum::<usize>();
        while let Some(piece) = poll_fn(|cx| call.poll_chunk(cx)).await {
            let piece = piece.map_err(|_| status(&explain(&Failure::Internal, route)))?;
            size += piece.len();
            if size > GRPC_MESSAGE_BYTES_MAX {
                return Err(Status::resource_exhausted(format!(
                    "The answer is larger than {GRPC_MESSAGE_BYTES_MAX} bytes."
                )));
            }
            pieces.push(piece);
        }
    }
    let status = status_of(code);
    Ok(Unary {
        message: (status.code() == Code::Ok).then(|| grpc_message::wrap(&pieces)),
        metadata: metadata(reply.headers),
        status,
    })
}

/// A replica's headers, but for content type and length, which are the ingress' own.
pub(super) fn metadata(said: Vec<v1::Header>) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    headers::to_client(said, &mut metadata);
    metadata.remove(CONTENT_TYPE);
    metadata.remove(CONTENT_LENGTH);
    metadata
}

/// A replica's status.
pub(super) fn status_of(said: v1::GrpcStatus) -> Status {
    let code = i32::try_from(said.code).unwrap_or(i32::from(Code::Unknown));
    Status::new(Code::from_i32(code), cut(&said.message))
}

/// What ends every answer: the status, and the request's id.
pub(super) fn trailers(status: &Status, id: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if let Ok(id) = HeaderValue::from_str(id) {
        trailers.insert(REQUEST_ID, id);
    }
    // Fails for metadata that is no header, of which there is none here.
    drop(status.add_header(&mut trailers));
    trailers
}

fn with_own_headers(mut response: Response<Body>, metadata: HeaderMap) -> Response<Body> {
    let headers = response.headers_mut();
    headers.extend(metadata);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    response
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

pub(super) fn status(problem: &Problem) -> Status {
    metrics::problem(Ingress::Grpc, problem.kind);
    let mut status = Status::new(problem.kind.grpc_code(), cut(&problem.message));
    if problem.kind == ErrorKind::Backpressure
        && let Some(seconds) = problem.backpressure.and_then(|b| b.retry_after_s)
        && let Ok(value) = format!("{:.0}", seconds.ceil()).parse()
    {
        status.metadata_mut().insert("retry-after", value);
    }
    status
}

fn cut(message: &str) -> String {
    message.chars().take(GRPC_STATUS_CHARS_MAX).collect()
}

/// `grpc-timeout`: up to eight digits and a unit.
pub(super) fn grpc_timeout(headers: &HeaderMap) -> Option<f64> {
    let value = text(headers, &TIMEOUT)?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let number = u64::from(digits.parse::<u32>().ok().filter(|_| digits.len() <= 8)?);
    let duration = match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    Some(duration.as_secs_f64())
}

// === impl Unary ===

impl Unary {
    fn error(status: Status) -> Unary {
        Unary {
            message: None,
            metadata: HeaderMap::new(),
            status,
        }
    }

    fn counted(self, tally: Tally, id: &str) -> Response<Body> {
        let code = i32::from(self.status.code());
        tally.end(u16::try_from(code).unwrap_or(0));
        self.response(id)
    }

    /// Trailers carry the status; without a message they are the whole answer.
    fn response(self, id: &str) -> Response<Body> {
        let trailers = trailers(&self.status, id);
        let response = match self.message {
            None => {
                let mut response = Response::new(Body::empty());
                response.headers_mut().extend(trailers);
                response
            }
            Some(message) => {
                let frames = [Frame::data(message), Frame::trailers(trailers)];
                let frames = frames.map(Ok::<_, std::convert::Infallible>);
                let stream = futures_util::stream::iter(frames);
                Response::new(Body::new(StreamBody::new(stream)))
            }
        };
        with_own_headers(response, self.metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_are_read_as_the_protocol_writes_them() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT, HeaderValue::from_str(text).unwrap());
            grpc_timeout(&headers)
        };
        for (text, seconds) in [
            ("1H", Some(3600.0)),
            ("2M", Some(120.0)),
            ("3S", Some(3.0)),
            ("500m", Some(0.5)),
            ("5000u", Some(0.005)),
            ("99999999n", Some(0.099_999_999)),
            ("100000000n", None),
            ("5", None),
            ("S", None),
            ("", None),
            ("1x", None),
            ("1\u{e9}", None),
        ] {
            assert_eq!(read(text), seconds, "{text}");
        }
    }

    #[test]
    fn long_status_messages_are_cut() {
        assert_eq!(cut(&"\u{e9}".repeat(5000)).chars().count(), 4096);
    }
}
