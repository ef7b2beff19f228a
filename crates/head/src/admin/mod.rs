//! The admin API on port 8265: Ray's routes with Ray's status codes, and our own health and
//! metrics.
//!
//! `route` says which route a request is for, `guard` who may not send it; each route answers
//! in its own file, and `access` says who is allowed in at all.

mod access;
mod application;
mod applications;
pub(crate) mod dashboard;
mod guard;
mod history;
mod overview;
mod preview;
pub(crate) mod reply;
mod route;
mod scale;
mod scrape;
mod server;

use std::sync::Arc;

use http::{Method, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use mobula_process::access::Credentials;
use mobula_process::follow::Current;
use mobula_process::metrics::MetricsHandle;
use mobula_process::token::Token;
use serde_json::json;
use tokio_util::sync::CancellationToken;

pub use server::{Answer, CONNECTIONS_MAX, Port, serve};

use crate::handle::ControllerHandle;
use crate::prepare::Preparer;
use reply::{Reply, error_reply, json_reply, text_reply};
use route::{Found, Route};

/// A body that is larger could not be stored.
pub const BODY_BYTES_MAX: usize = mobula_store::VALUE_BYTES_MAX;

/// From the request's head to the last byte of its body.
const BODY_SECONDS_MAX: std::time::Duration = std::time::Duration::from_secs(30);

/// The version of Ray's own dashboard protocol.
const PROTOCOL_VERSION: &str = "4";

/// What all routes share.
#[derive(Clone)]
pub struct Admin {
    controller: ControllerHandle,
    preparer: Preparer,
    metrics: MetricsHandle,
    ray_version: Arc<str>,
    session_name: Arc<str>,
    stopping: CancellationToken,
    /// What clients have to show.
    token: Option<Current<Token>>,
    /// What to show workers.
    credentials: Credentials,
}

// === impl Admin ===

impl Admin {
    pub(crate) fn new(
        controller: ControllerHandle,
        preparer: Preparer,
        metrics: MetricsHandle,
        ray_version: String,
        stopping: &CancellationToken,
    ) -> Admin {
        Admin {
            controller,
            preparer,
            metrics,
            ray_version: ray_version.into(),
            session_name: format!("session_{}", std::process::id()).into(),
            stopping: stopping.clone(),
            token: None,
            credentials: Credentials::default(),
        }
    }

    /// The same, for those who know the token, and for workers that want to see credentials.
    pub(crate) fn with_access(
        self,
        token: Option<Current<Token>>,
        credentials: Credentials,
    ) -> Admin {
        Admin {
            token,
            credentials,
            ..self
        }
    }

    async fn route(&self, request: Request<Incoming>) -> Reply {
        let (parts, body) = request.into_parts();
        let token = self.token.as_ref().map(Current::get);
        if let Some(refusal) = access::refusal(token.as_deref(), &parts) {
            return refusal;
        }
        let from_browser = guard::is_from_browser(&parts.headers);
        let found = match route::find(&parts.method, parts.uri.path()) {
            Found::Route(route) => route,
            Found::Nowhere => {
                return text_reply(404, "404: Not Found");
            }
            Found::WrongMethod { allow } => return reply::wrong_method(&parts.method, allow),
        };
        if from_browser && matches!(parts.method, Method::POST | Method::PUT | Method::DELETE) {
            return text_reply(405, "Method Not Allowed for browser traffic.");
        }
        match found {
            Route::Home => dashboard::home(&parts.headers, HOME),
            Route::Dashboard(file) => dashboard::file(&parts.headers, file),
            Route::Version => self.version(),
            Route::Success => text_reply(200, "success"),
            Route::AgentHealth => text_reply(200, "raylet: success\ngcs: success"),
            Route::Authentication => access::mode(self.token.is_some()),
            Route::Live => text_reply(200, "ok"),
            Route::Ready => self.ready().await,
            Route::Metrics => scrape::metrics(self).await,
            Route::GetApplications => {
                applications::get(self, parts.uri.query().unwrap_or(""), from_browser).await
            }
            Route::PutApplications => match read_body(body).await {
                Ok(body) => applications::put(self, &body).await,
                Err(refusal) => refusal,
            },
            Route::DeleteApplications => applications::delete(self).await,
            Route::Overview => overview::get(self, parts.uri.query().unwrap_or("")).await,
            Route::History => history::get(self).await,
            Route::Rollback => match read_body(body).await {
                Ok(body) => history::rollback(self, &body).await,
                Err(refusal) => refusal,
            },
            Route::Preview => match read_body(body).await {
                Ok(body) => preview::preview(self, &body).await,
                Err(refusal) => refusal,
            },
            Route::GetApplication(name) => application::get(self, &name, from_browser).await,
            Route::PutApplication(name) => match read_body(body).await {
                Ok(body) => application::put(self, &name, &parts.headers, &body).await,
                Err(refusal) => refusal,
            },
            Route::DeleteApplication(name) => {
                application::delete(self, &name, &parts.headers).await
            }
            Route::Scale {
                application,
                deployment,
            } => match read_body(body).await {
                Ok(body) => scale::scale(self, application, deployment, &body).await,
                Err(refusal) => refusal,
            },
        }
    }

    fn version(&self) -> Reply {
        json_reply(
            200,
            &json!({
                "version": PROTOCOL_VERSION,
                "ray_version": &*self.ray_version,
                "ray_commit": concat!("mobula-", env!("CARGO_PKG_VERSION")),
                "session_name": &*self.session_name,
            }),
        )
    }

    async fn ready(&self) -> Reply {
        if self.stopping.is_cancelled() {
            text_reply(503, "the head is going away")
        } else if self.controller.is_ready().await {
            text_reply(200, "ok")
        } else {
            text_reply(503, "workers of before the restart have not reported yet")
        }
    }
}

impl Answer for Admin {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        self.route(request).await
    }
}

const HOME: &str = "Mobula admin API\n\n\
    GET    /api/serve/applications/                what is deployed, and how it is\n\
    PUT    /api/serve/applications/                deploy a Serve config (JSON)\n\
    DELETE /api/serve/applications/                delete everything\n\
    GET    /api/mobula/applications/{application}  one application\n\
    PUT    /api/mobula/applications/{application}  deploy one, and leave the others alone\n\
    DELETE /api/mobula/applications/{application}  delete one\n\
    POST   /api/mobula/plan                        what a Serve config would do, without doing it\n\
    GET    /api/mobula/history                     the configs of before, and what became of them\n\
    POST   /api/mobula/rollback                    back to one of them\n\
    POST   /api/v1/applications/{application}/deployments/{deployment}/scale  its replicas\n\
    GET    /api/mobula/overview                    what the dashboard shows; ?application=A&deployment=D: replicas\n\
    GET    /api/ray/version                        the Ray version this is compatible with\n\
    GET    /metrics                                of the head and all workers\n\
    GET    /livez, /readyz                         health of the head\n\
    A browser that opens / gets the dashboard.\n";

/// 503 while no head leads. Clients of Ray's scale route read JSON, those of the others text.
pub(crate) fn unavailable(path: &str, why: &str) -> Reply {
    match route::find(&Method::POST, path) {
        Found::Route(Route::Scale { .. }) => error_reply(503, why),
        Found::Route(_) | Found::Nowhere | Found::WrongMethod { .. } => text_reply(503, why),
    }
}

/// The whole body, or the answer to whoever sent too much or too slowly.
pub(crate) async fn read_body(body: Incoming) -> Result<bytes::Bytes, Reply> {
    let limited = http_body_util::Limited::new(body, BODY_BYTES_MAX);
    match tokio::time::timeout(BODY_SECONDS_MAX, limited.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(text_reply(
            413,
            format!("the body is larger than {BODY_BYTES_MAX} bytes"),
        )),
        Ok(Err(error)) => Err(text_reply(400, format!("the body cannot be read: {error}"))),
        Err(_) => Err(text_reply(408, "the body did not arrive in time")),
    }
}
