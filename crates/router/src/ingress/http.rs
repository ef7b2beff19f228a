//! The HTTP ingress: from a request's head to a reply. One function per step, in order.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use mobula_proto::status::ErrorKind;
use mobula_proto::v1;

use super::builtin;
use super::headers::{self, REQUEST_ID};
use super::lasting;
use super::pieces::Pieces;
use super::problem::Problem;
use super::reply::ReplyBody;
use super::tally::Tally;
use super::websocket;
use crate::core::{Core, RouteEntry};
use crate::dispatch::{Upload, UploadError};
use crate::exchange::{Answer, Ask, Failure};
use crate::metrics::{self, Ingress};
use crate::queue::Affinity;

/// Answers HTTP requests.
#[derive(Clone)]
pub struct HttpIngress {
    core: Arc<Core>,
    body_bytes_max: u64,
    /// Of requests that name none themselves.
    timeout_s: Option<f64>,
}

/// When nobody waits any more.
#[derive(Clone, Copy)]
pub struct Deadline {
    /// The moment.
    pub at: Instant,
    /// As the user said it, for the message.
    pub seconds: f64,
}

impl HttpIngress {
    /// An ingress on the router's state.
    pub fn new(core: Arc<Core>, body_bytes_max: u64, timeout_s: Option<f64>) -> HttpIngress {
        HttpIngress {
            core,
            body_bytes_max,
            timeout_s,
        }
    }

    /// Answers one request. Dropping the future means that the client went away.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<ReplyBody> {
        let (mut parts, body) = request.into_parts();
        let id = headers::request_id(&parts.headers, &REQUEST_ID);
        let upgrade = websocket::wanted(&mut parts);
        let mut response = match (self.own(&parts), upgrade) {
            (Some(own), _) => own,
            (None, Some(upgrade)) => Box::pin(self.websocket(&parts, upgrade, &id)).await,
            (None, None) if self.lasts(&parts) => {
                // Rare and large: every connection has room for its largest request.
                Box::pin(self.routed_to_the_end(parts, body, &id)).await
            }
            (None, None) => self.routed(&parts, body, &id).await,
        };
        if let Ok(id) = HeaderValue::from_maybe_shared(Bytes::from(id)) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        response
    }

    /// What the router answers itself.
    fn own(&self, parts: &Parts) -> Option<Response<ReplyBody>> {
        let path = parts.uri.path();
        if !path.starts_with("/-/") && path != "/healthz" {
            return None;
        }
        let snapshot = self.core.snapshot.load();
        let own = builtin::answer(path, &snapshot.table, self.core.is_draining())?;
        let mut response = Response::new(ReplyBody::whole(own.body));
        *response.status_mut() = own.status;
        let content_type = HeaderValue::from_static(own.content_type);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        Some(response)
    }

    /// Whether the request goes on when its client leaves.
    fn lasts(&self, parts: &Parts) -> bool {
        headers::outlasts_client(&parts.headers) && lasting::has_room(&self.core.lasting)
    }

    async fn routed_to_the_end(
        &self,
        parts: Parts,
        body: Incoming,
        id: &str,
    ) -> Response<ReplyBody> {
        let (ingress, own_id) = (self.clone(), id.to_owned());
        let answering = async move { ingress.routed(&parts, body, &own_id).await };
        let answer = lasting::answer(&self.core.lasting, answering).await;
        // The task only ends without an answer when it panicked.
        answer.unwrap_or_else(|| problem_response(&Problem::internal()))
    }

    async fn routed(&self, parts: &Parts, body: Incoming, id: &str) -> Response<ReplyBody> {
        let mut tally = Tally::begin(&self.core, Ingress::Http, parts.method.clone());
        let path = parts.uri.path();
        let Some(route) = self.route(path) else {
            let response = problem_response(&Problem::no_path(path));
            tally.end(response.status().as_u16());
            return response;
        };
        tally.set_route(&route);
        let deadline = self.deadline(parts, &tally);
        // Pinned, so that this future does not hold it twice.
        let answering = pin!(self.forward(parts, body, id, &route, deadline));
        let answer = match deadline {
            None => answering.await,
            Some(deadline) => match tokio::time::timeout_at(deadline.at.into(), answering).await {
                Ok(answer) => answer,
                Err(_) => Err(Problem::timed_out(id, deadline.seconds)),
            },
        };
        match answer {
            Ok(answer) => reply_response(answer, &parts.method, deadline, tally),
            Err(problem) => {
                let response = problem_response(&problem);
                tally.end(response.status().as_u16());
                response
            }
        }
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// When nobody waits for the answer any more.
    pub(super) fn deadline(&self, parts: &Parts, tally: &Tally) -> Option<Deadline> {
        headers::timeout(&parts.headers, self.timeout_s)
            .and_then(|seconds| Deadline::after(tally.came(), seconds))
    }

    /// The deadline, unless the client set an earlier one than the config does.
    pub(super) fn of_config(&self, deadline: Deadline) -> Option<Instant> {
        deadline.of_config(self.timeout_s)
    }

    pub(super) fn route(&self, path: &str) -> Option<Arc<RouteEntry>> {
        let snapshot = self.core.snapshot.load();
        let id = snapshot.table.route_http(path)?;
        snapshot.entry(id).map(Arc::clone)
    }

    async fn forward(
        &self,
        parts: &Parts,
        body: Incoming,
        id: &str,
        route: &RouteEntry,
        deadline: Option<Deadline>,
    ) -> Result<Answer, Problem> {
        let upload = self
            .upload(parts, body)
            .await
            .map_err(|error| Problem::upload(&error))?;
        let model_id = headers::model_id(&parts.headers);
        let session_id = headers::session_id(&parts.headers);
        let mut ask = Ask {
            wish: route.wish(Affinity::of(session_id, &model_id), &parts.headers),
            call: |replica_id: &str| v1::Call {
                replica_id: replica_id.to_owned(),
                protocol: v1::Protocol::Http.into(),
                remaining_ms: deadline.map(Deadline::remaining_ms),
                ..call(parts, route, id, &model_id)
            },
            upload,
            timeout_at: deadline.and_then(|deadline| self.of_config(deadline)),
            repeatable: is_safe(&parts.method) || headers::has_idempotency_key(&parts.headers),
        };
        ask.answer(route)
            .await
            .map_err(|failure| explain(&failure, route))
    }

    async fn upload(&self, parts: &Parts, body: Incoming) -> Result<Upload, UploadError> {
        if body.is_end_stream() {
            return Ok(Upload::empty());
        }
        let size = parts.headers.get(CONTENT_LENGTH);
        let size = size.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let body = body.map_err(|error| UploadError::Broken(error.to_string()));
        Upload::begin(body, size, self.body_bytes_max).await
    }
}

/// What a replica is told of a request, but for who it is and how it speaks.
pub fn call(parts: &Parts, route: &RouteEntry, id: &str, model_id: &str) -> v1::Call {
    v1::Call {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().map(str::to_owned),
        prefix: route.route.prefix.clone(),
        headers: headers::to_replica(&parts.headers),
        request_id: id.to_owned(),
        model_id: model_id.to_owned(),
        ..v1::Call::default()
    }
}

/// A failure as the client is told, logged when it is not the client's.
pub fn explain(failure: &Failure, route: &RouteEntry) -> Problem {
    Problem::failure(failure, &route.route, route.deployment.backpressure())
}

/// Methods that change nothing, so that executing them twice does no harm.
fn is_safe(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

pub(super) fn problem_response(problem: &Problem) -> Response<ReplyBody> {
    metrics::problem(Ingress::Http, problem.kind);
    let mut response = Response::new(ReplyBody::whole(problem.message.clone()));
    let mut status = problem.kind.http_status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(builtin::TEXT));
    if let Some(backpressure) = problem.backpressure {
        status = StatusCode::from_u16(backpressure.status).unwrap_or(status);
        if let Some(seconds) = backpressure.retry_after_s {
            // The header takes whole seconds; a fraction still means "not at once".
            let value = HeaderValue::from_str(&format!("{:.0}", seconds.ceil()));
            headers.extend(value.ok().map(|value| (RETRY_AFTER, value)));
        }
    }
    if problem.kind == ErrorKind::BodyTooLarge {
        // The rest of the body is not read, so the connection cannot be used again.
        headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    }
    *response.status_mut() = status;
    response
}

pub(super) fn reply_response(
    answer: Answer,
    method: &Method,
    deadline: Option<Deadline>,
    tally: Tally,
) -> Response<ReplyBody> {
    let Answer { reply, rest } = answer;
    let status = u16::try_from(reply.status)
        .ok()
        .and_then(|status| StatusCode::from_u16(status).ok())
        // Informational answers cannot be final.
        .filter(|status| status.as_u16() >= 200)
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = match rest {
        None => {
            tally.end(status.as_u16());
            ReplyBody::whole(reply.body)
        }
        Some(call) => {
            let deadline = deadline.map(|deadline| deadline.at);
            let pieces = Pieces::new(reply.body, Some(call), deadline);
            ReplyBody::streamed(pieces, (tally, status.as_u16()))
        }
    };
    let is_whole = matches!(body, ReplyBody::Whole(_));
    let mut response = Response::new(body);
    *response.status_mut() = status;
    headers::to_client(reply.headers, response.headers_mut());
    if is_whole && *method != Method::HEAD {
        // hyper knows the length; what the replica says could only be wrong.
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    response
}

// === impl Deadline ===

impl Deadline {
    /// So many seconds after the request came; none when that is beyond all time.
    pub fn after(came: Instant, seconds: f64) -> Option<Deadline> {
        let after = Duration::try_from_secs_f64(seconds).ok()?;
        let at = came.checked_add(after)?;
        Some(Deadline { at, seconds })
    }

    /// The moment, unless the client set an earlier one than the config does.
    pub fn of_config(self, timeout_s: Option<f64>) -> Option<Instant> {
        let is_the_configs = timeout_s.is_some_and(|config| self.seconds >= config);
        is_the_configs.then_some(self.at)
    }

    /// Milliseconds until then.
    pub fn remaining_ms(self) -> u64 {
        let left = self.at.saturating_duration_since(Instant::now());
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    }
}
