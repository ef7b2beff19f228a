//! The one table: error kind <-> gRPC code <-> HTTP status <-> may another replica try it.

use http::StatusCode;
use tonic::Code;

/// Why a request was not answered by a replica. Each kind is a different thing for the caller
/// to do, which is why there are no more of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request itself is wrong.
    InvalidRequest,
    /// The body is larger than the ingress takes.
    BodyTooLarge,
    /// No application, route or method of that name.
    NotFound,
    /// The queue is full. The deployment's config may choose 429 instead of 503.
    Backpressure,
    /// The deployment cannot serve: it failed to deploy, or is going away.
    Unavailable,
    /// The deadline passed.
    TimedOut,
    /// The client went away.
    Cancelled,
    /// The replica's code failed.
    Internal,
    /// The replica died with the request in it; it may have been executed.
    ReplicaDied,
}

impl ErrorKind {
    /// Every kind, for tests and metrics.
    pub const ALL: [ErrorKind; 9] = [
        ErrorKind::InvalidRequest,
        ErrorKind::BodyTooLarge,
        ErrorKind::NotFound,
        ErrorKind::Backpressure,
        ErrorKind::Unavailable,
        ErrorKind::TimedOut,
        ErrorKind::Cancelled,
        ErrorKind::Internal,
        ErrorKind::ReplicaDied,
    ];

    /// Its name as a label of metrics.
    pub fn label(self) -> &'static str {
        match self {
            ErrorKind::InvalidRequest => "invalid_request",
            ErrorKind::BodyTooLarge => "body_too_large",
            ErrorKind::NotFound => "not_found",
            ErrorKind::Backpressure => "backpressure",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::TimedOut => "timed_out",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::Internal => "internal",
            ErrorKind::ReplicaDied => "replica_died",
        }
    }

    /// The HTTP status that a client sees.
    pub fn http_status(self) -> StatusCode {
        match self {
            ErrorKind::InvalidRequest => StatusCode::BAD_REQUEST,
            ErrorKind::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Backpressure | ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::TimedOut => StatusCode::REQUEST_TIMEOUT,
            ErrorKind::Cancelled => client_closed_request(),
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorKind::ReplicaDied => StatusCode::BAD_GATEWAY,
        }
    }

    /// The gRPC code that a client sees.
    pub fn grpc_code(self) -> Code {
        match self {
            ErrorKind::InvalidRequest => Code::InvalidArgument,
            ErrorKind::BodyTooLarge | ErrorKind::Backpressure => Code::ResourceExhausted,
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::Unavailable => Code::Unavailable,
            ErrorKind::TimedOut => Code::DeadlineExceeded,
            ErrorKind::Cancelled => Code::Cancelled,
            ErrorKind::Internal | ErrorKind::ReplicaDied => Code::Internal,
        }
    }

    /// Whether the same request may succeed when it is sent again later, unchanged.
    pub fn is_retryable(self) -> bool {
        match self {
            ErrorKind::Backpressure | ErrorKind::Unavailable | ErrorKind::ReplicaDied => true,
            ErrorKind::InvalidRequest
            | ErrorKind::BodyTooLarge
            | ErrorKind::NotFound
            | ErrorKind::TimedOut
            | ErrorKind::Cancelled
            | ErrorKind::Internal => false,
        }
    }
}

/// 499, nginx's status for a client that closed the connection; only ever logged and counted.
fn client_closed_request() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_that_are_not_the_clients_fault_are_retryable() {
        for kind in ErrorKind::ALL {
            if kind.is_retryable() {
                assert!(kind.http_status().is_server_error(), "{kind:?}");
            }
        }
    }

    #[test]
    fn a_client_that_left_counts_as_499() {
        assert_eq!(ErrorKind::Cancelled.http_status().as_u16(), 499);
    }
}
