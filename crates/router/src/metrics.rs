//! Names of the router's metrics and the handles that are made once, per route, deployment or
//! ingress, and not per request. Names and labels of the `ray_serve_` family are those of Ray
//! Serve, so that its dashboards work unchanged.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::Method;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use mobula_proto::status::ErrorKind;

use crate::limits;

/// Requests answered, per ingress protocol.
pub const HTTP_REQUESTS: &str = "ray_serve_num_http_requests_total";
/// Same, gRPC.
pub const GRPC_REQUESTS: &str = "ray_serve_num_grpc_requests_total";
/// Requests answered with an error.
pub const HTTP_ERRORS: &str = "ray_serve_num_http_error_requests_total";
/// Same, gRPC.
pub const GRPC_ERRORS: &str = "ray_serve_num_grpc_error_requests_total";
/// Requests answered with an error, by deployment.
pub const DEPLOYMENT_HTTP_ERRORS: &str = "ray_serve_num_deployment_http_error_requests_total";
/// Same, gRPC.
pub const DEPLOYMENT_GRPC_ERRORS: &str = "ray_serve_num_deployment_grpc_error_requests_total";
/// From the request's headers to the last byte of the answer.
pub const HTTP_LATENCY: &str = "ray_serve_http_request_latency_ms";
/// Same, gRPC.
pub const GRPC_LATENCY: &str = "ray_serve_grpc_request_latency_ms";
/// Requests in the router now.
pub const HTTP_ONGOING: &str = "ray_serve_num_ongoing_http_requests";
/// Same, gRPC.
pub const GRPC_ONGOING: &str = "ray_serve_num_ongoing_grpc_requests";
/// 1 STARTING, 2 HEALTHY, 3 UNHEALTHY, 4 DRAINING, 5 DRAINED.
pub const PROXY_STATUS: &str = "ray_serve_proxy_status";
/// How long the router took to drain.
pub const PROXY_SHUTDOWN: &str = "ray_serve_proxy_shutdown_duration_ms";
/// Requests handed to a deployment.
pub const HANDLE_REQUESTS: &str = "ray_serve_handle_request_counter_total";
/// Same, counted by Ray in another place.
pub const ROUTER_REQUESTS: &str = "ray_serve_num_router_requests_total";
/// Requests waiting.
pub const QUEUED: &str = "ray_serve_deployment_queued_queries";
/// Requests in progress at replicas.
pub const ONGOING: &str = "ray_serve_num_ongoing_requests_at_replicas";
/// From the request's arrival until a replica was found.
pub const FULFILLMENT: &str = "ray_serve_request_router_fulfillment_time_ms";
/// Load of one replica as this router sees it: in progress and in its queue.
pub const QUEUE_LEN: &str = "ray_serve_request_router_queue_len";
/// Requests for which a replica is being sought: those that wait.
pub const SCHEDULING: &str = "ray_serve_num_scheduling_tasks";
/// How many may wait for a deployment, in this router.
pub const QUEUED_MAX: &str = "mobula_router_queued_requests_max";
/// Every other named limit of the router.
pub const LIMIT: &str = "mobula_router_limit";
/// Calls that a replica refused (and that went elsewhere).
pub const REFUSED: &str = "mobula_router_calls_refused_total";
/// Replicas that are left out, or on trial, for calls that failed.
pub const LEFT_OUT: &str = "mobula_router_replicas_left_out";
/// How often a replica was left out.
pub const TIMES_LEFT_OUT: &str = "mobula_router_replicas_left_out_total";
/// Accepted calls that were sent again because the replica was lost.
pub const REPEATED: &str = "mobula_router_calls_repeated_total";

/// Requests that the router answered itself because no replica did, by why.
pub const PROBLEMS: &str = "mobula_router_problems_total";

/// Status label of a client that went away.
pub const CLIENT_GONE: u16 = 499;

/// Status label of a WebSocket that was closed without a code. Others have their close code, as
/// with Ray.
pub const WEBSOCKET_BROKEN: u16 = 1006;
/// Of one that was closed because the router stops.
pub const WEBSOCKET_GOING_AWAY: u16 = 1001;
/// Of one that was closed because its replica stops.
const WEBSOCKET_RESTART: u16 = 1012;

/// Which ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// Port 8000.
    Http,
    /// Port 9000.
    Grpc,
}

/// Handles of one route: what is counted per request.
pub struct RouteMetrics {
    ingress: Ingress,
    route: String,
    application: String,
    /// Empty for what no deployment answered.
    deployment: String,
    /// Made when a method and status are first seen; both are of small closed sets.
    outcomes: RwLock<Vec<(OutcomeKey, Arc<Outcome>)>>,
    handle_requests: Counter,
    router_requests: Counter,
}

/// Index of the method and status.
type OutcomeKey = (usize, u16);

struct Outcome {
    requests: Counter,
    latency: Histogram,
    /// Only for errors.
    errors: Option<Counter>,
    deployment_errors: Option<Counter>,
}

/// Handles of one deployment.
pub struct DeploymentMetrics {
    labels: Vec<(&'static str, String)>,
    /// From arrival to slot.
    pub fulfillment: Histogram,
    /// Refused by a replica.
    pub refused: Counter,
    /// Sent again.
    pub repeated: Counter,
    /// A replica was left out.
    pub times_left_out: Counter,
    left_out: Gauge,
    queued: Gauge,
    scheduling: Gauge,
    ongoing: Gauge,
    queued_max: Gauge,
}

/// Says what each metric is. Once per process.
pub fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!(HTTP_REQUESTS, "HTTP requests answered.");
    describe_counter!(GRPC_REQUESTS, "gRPC requests answered.");
    describe_counter!(HTTP_ERRORS, "HTTP requests answered with an error.");
    describe_counter!(GRPC_ERRORS, "gRPC requests answered with an error.");
    describe_counter!(DEPLOYMENT_HTTP_ERRORS, "HTTP errors by deployment.");
    describe_counter!(DEPLOYMENT_GRPC_ERRORS, "gRPC errors by deployment.");
    describe_histogram!(HTTP_LATENCY, "HTTP requests, end to end.");
    describe_histogram!(GRPC_LATENCY, "gRPC requests, end to end.");
    describe_gauge!(HTTP_ONGOING, "HTTP requests in the router.");
    describe_gauge!(GRPC_ONGOING, "gRPC requests in the router.");
    describe_gauge!(PROXY_STATUS, "1 STARTING, 2 HEALTHY, 4 DRAINING.");
    describe_histogram!(PROXY_SHUTDOWN, "How long draining took.");
    describe_counter!(HANDLE_REQUESTS, "Requests handed to a deployment.");
    describe_counter!(ROUTER_REQUESTS, "Requests handed to a deployment.");
    describe_gauge!(QUEUED, "Requests waiting for a replica.");
    describe_gauge!(ONGOING, "Requests in progress at replicas.");
    describe_histogram!(FULFILLMENT, "From arrival until a replica was found.");
    describe_gauge!(QUEUE_LEN, "Requests at or queued for one replica.");
    describe_gauge!(SCHEDULING, "Requests for which a replica is sought.");
    describe_gauge!(QUEUED_MAX, "How many requests may wait.");
    describe_gauge!(LIMIT, "A named limit of the router.");
    describe_gauge!(LEFT_OUT, "Replicas left out for calls that failed.");
    describe_counter!(TIMES_LEFT_OUT, "How often a replica was left out.");
    describe_counter!(REFUSED, "Calls that a replica refused.");
    describe_counter!(
        REPEATED,
        "Accepted calls sent again after a replica was lost."
    );
    describe_counter!(PROBLEMS, "Requests that no replica answered, by reason.");
}

/// A request is told why no replica answers it.
pub fn problem(ingress: Ingress, kind: ErrorKind) {
    let ingress = match ingress {
        Ingress::Http => "http",
        Ingress::Grpc => "grpc",
    };
    counter!(PROBLEMS, "ingress" => ingress, "reason" => kind.label()).increment(1);
}

/// Publishes the named limits.
pub fn publish_limits(body_bytes_max: u64) {
    let seconds = |name: &'static str, value: Duration| (name, value.as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let limits = [
        ("connections_max", limits::CONNECTIONS_MAX as f64),
        ("headers_max", limits::HEADERS_MAX as f64),
        ("header_bytes_max", limits::HEADER_BYTES_MAX as f64),
        ("body_bytes_max", body_bytes_max as f64),
        (
            "grpc_message_bytes_max",
            limits::GRPC_MESSAGE_BYTES_MAX as f64,
        ),
        ("queued_requests_max", limits::QUEUED_REQUESTS_MAX as f64),
        ("lasting_max", limits::LASTING_MAX as f64),
        seconds("lasting_seconds_max", limits::LASTING_SECONDS_MAX),
        seconds("header_read_seconds_max", limits::HEADER_READ_SECONDS_MAX),
        seconds("handshake_seconds_max", limits::HANDSHAKE_SECONDS_MAX),
        seconds("body_idle_seconds_max", limits::BODY_IDLE_SECONDS_MAX),
        seconds("write_stall_seconds_max", limits::WRITE_STALL_SECONDS_MAX),
        seconds("last_request_wait", limits::LAST_REQUEST_WAIT),
        seconds("last_request_idle", limits::LAST_REQUEST_IDLE),
        seconds("drain_seconds_max", limits::DRAIN_SECONDS_MAX),
    ];
    for (name, value) in limits {
        gauge!(LIMIT, "limit" => name).set(value);
    }
}

/// Milliseconds, as Ray counts.
pub fn milliseconds(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64() * 1000.0
}

// === impl RouteMetrics ===

impl RouteMetrics {
    /// Handles for one route. `handle` names this router as the caller of the deployment.
    pub fn new(ingress: Ingress, route: &crate::table::Route, handle: &str) -> RouteMetrics {
        let labels = [
            ("deployment", route.deployment.clone()),
            ("route", route.label.clone()),
            ("application", route.application.clone()),
            ("handle", handle.to_owned()),
        ];
        let mut router_labels = labels.to_vec();
        router_labels.push(("actor_id", handle.to_owned()));
        RouteMetrics {
            ingress,
            route: route.label.clone(),
            application: route.application.clone(),
            deployment: route.deployment.clone(),
            outcomes: RwLock::default(),
            handle_requests: counter!(HANDLE_REQUESTS, &labels),
            router_requests: counter!(ROUTER_REQUESTS, &router_labels),
        }
    }

    /// For requests that lead nowhere: empty route and application, as Ray counts them.
    pub fn nowhere(ingress: Ingress) -> RouteMetrics {
        RouteMetrics {
            ingress,
            route: String::new(),
            application: String::new(),
            deployment: String::new(),
            outcomes: RwLock::default(),
            handle_requests: Counter::noop(),
            router_requests: Counter::noop(),
        }
    }

    /// A request goes to the deployment.
    pub fn handed_over(&self) {
        self.handle_requests.increment(1);
        self.router_requests.increment(1);
    }

    /// A request is over. `status` is the HTTP status, or the gRPC code on the gRPC ingress.
    pub fn answered(&self, method: &Method, status: u16, elapsed: Duration) {
        let outcome = self.outcome(method_index(method), status);
        outcome.requests.increment(1);
        outcome.latency.record(milliseconds(elapsed));
        for errors in [&outcome.errors, &outcome.deployment_errors]
            .into_iter()
            .flatten()
        {
            errors.increment(1);
        }
    }

    fn outcome(&self, method: usize, status: u16) -> Arc<Outcome> {
        let key = (method, status);
        let known = self.outcomes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, outcome)) = known.iter().find(|(k, _)| *k == key) {
            return Arc::clone(outcome);
        }
        drop(known);
        let outcome = Arc::new(self.make(method, status));
        let mut known = self
            .outcomes
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        known.push((key, Arc::clone(&outcome)));
        outcome
    }

    fn make(&self, method: usize, status: u16) -> Outcome {
        let method = METHODS.get(method).copied().unwrap_or(OTHER);
        let (requests, errors, deployment_errors, latency, is_error) = match self.ingress {
            Ingress::Http => (
                HTTP_REQUESTS,
                HTTP_ERRORS,
                DEPLOYMENT_HTTP_ERRORS,
                HTTP_LATENCY,
                is_http_error(status),
            ),
            Ingress::Grpc => (
                GRPC_REQUESTS,
                GRPC_ERRORS,
                DEPLOYMENT_GRPC_ERRORS,
                GRPC_LATENCY,
                status != 0,
            ),
        };
        let status = match self.ingress {
            Ingress::Http => status.to_string(),
            Ingress::Grpc => grpc_code_name(status).to_owned(),
        };
        let base = [
            ("route", self.route.clone()),
            ("method", method.to_owned()),
            ("application", self.application.clone()),
        ];
        let with = |more: &[(&'static str, &str)]| {
            let more = more
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()));
            base.iter().cloned().chain(more).collect::<Vec<_>>()
        };
        let code = [("error_code", status.as_str())];
        let place = [
            ("error_code", status.as_str()),
            ("deployment", self.deployment.as_str()),
        ];
        let at_deployment = is_error && !self.deployment.is_empty();
        Outcome {
            requests: counter!(requests, &with(&[("status_code", &status)])),
            latency: histogram!(latency, &with(&[("status_code", &status)])),
            errors: is_error.then(|| counter!(errors, &with(&code))),
            deployment_errors: at_deployment.then(|| counter!(deployment_errors, &with(&place))),
        }
    }
}

/// A status from 400, or a close code other than 1000 and 1001, and 1005, which browsers close
/// with when they are told none.
fn is_http_error(status: u16) -> bool {
    const NO_CODE: u16 = 1005;
    let is_agreed = matches!(
        status,
        1000 | WEBSOCKET_GOING_AWAY | NO_CODE | WEBSOCKET_RESTART
    );
    status >= 400 && !is_agreed
}

/// Methods that have a label of their own; a client can invent any number of others.
const METHODS: [&str; 8] = [
    "GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "TRACE",
];
const OTHER: &str = "OTHER";

fn method_index(method: &Method) -> usize {
    let known = METHODS.iter().position(|name| *name == method.as_str());
    known.unwrap_or(METHODS.len())
}

/// gRPC codes as Ray labels them.
fn grpc_code_name(code: u16) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    NAMES.get(usize::from(code)).copied().unwrap_or("UNKNOWN")
}

// === impl DeploymentMetrics ===

impl DeploymentMetrics {
    /// Handles for one deployment.
    pub fn new(application: &str, deployment: &str, handle: &str) -> DeploymentMetrics {
        let mut labels = vec![
            ("deployment", deployment.to_owned()),
            ("application", application.to_owned()),
        ];
        let own = labels.clone();
        labels.push(("actor_id", handle.to_owned()));
        let mut by_source = labels.clone();
        by_source.push(("handle_source", "PROXY".to_owned()));
        labels.push(("handle", handle.to_owned()));
        let mut scheduling = by_source.clone();
        scheduling.push(("app", application.to_owned()));
        DeploymentMetrics {
            scheduling: gauge!(SCHEDULING, &scheduling),
            fulfillment: histogram!(FULFILLMENT, &by_source),
            refused: counter!(REFUSED, &own),
            repeated: counter!(REPEATED, &own),
            times_left_out: counter!(TIMES_LEFT_OUT, &own),
            left_out: gauge!(LEFT_OUT, &own),
            queued: gauge!(QUEUED, &labels),
            ongoing: gauge!(ONGOING, &labels),
            queued_max: gauge!(QUEUED_MAX, &own),
            labels: by_source,
        }
    }

    /// Publishes a sample of the load.
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of requests are below 2^52"
    )]
    pub fn load(&self, queued: usize, ongoing: u32, queued_max: usize) {
        self.queued.set(queued as f64);
        self.scheduling.set(queued as f64);
        self.ongoing.set(f64::from(ongoing));
        self.queued_max.set(queued_max as f64);
    }

    /// Publishes how many replicas are left out.
    #[expect(clippy::cast_precision_loss, reason = "a count of replicas")]
    pub fn left_out(&self, replicas: usize) {
        self.left_out.set(replicas as f64);
    }

    /// The gauge of one replica's load.
    pub fn replica(&self, replica_id: &str) -> Gauge {
        let mut labels = self.labels.clone();
        labels.push(("replica_id", replica_id.to_owned()));
        gauge!(QUEUE_LEN, &labels)
    }
}
