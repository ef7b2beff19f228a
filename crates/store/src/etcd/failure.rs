//! What etcd's errors mean for the caller: executed, perhaps executed, not executed, or wrong.
//!
//! etcd has few gRPC codes and many messages; where one code has several meanings the message
//! decides. What is not known here counts as perhaps executed.

use tonic::{Code, Status};

use crate::StoreError;

/// Why a request has no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It did not reach etcd, or etcd refused it for now.
    NotExecuted(String),
    /// Nobody knows.
    Unknown(String),
    /// Wrong, and will be wrong again.
    Invalid(String),
    /// The token has expired or is of before a change of rights; a new one may do.
    TokenRefused(String),
    /// The revision asked for is not kept any more.
    Compacted,
    /// There is no such lease; nothing was executed.
    NoLease(String),
}

/// etcd's own words, from `api/v3rpc/rpctypes/error.go`; they are part of its API.
const NO_LEADER: &str = "etcdserver: no leader";
const TOO_MANY_REQUESTS: &str = "etcdserver: too many requests";
const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
const AUTH_OLD_REVISION: &str = "etcdserver: revision of auth store is old";
const USER_EMPTY: &str = "etcdserver: user name is empty";

// === impl Failure ===

impl Failure {
    pub(super) fn of(error: &etcd_client::Error) -> Failure {
        match error {
            etcd_client::Error::GRpcStatus(status) => Failure::of_status(status),
            // What the client says when etcd answers with no time to live.
            etcd_client::Error::LeaseKeepAliveError(why) => Failure::NoLease(why.clone()),
            etcd_client::Error::InvalidArgs(_) | etcd_client::Error::InvalidUri(_) => {
                Failure::Invalid(error.to_string())
            }
            other => Failure::Unknown(other.to_string()),
        }
    }

    fn of_status(status: &Status) -> Failure {
        if never_connected(status) {
            return Failure::NotExecuted(with_causes(status));
        }
        let message = status.message();
        let said = || message.to_owned();
        match status.code() {
            Code::Unauthenticated => Failure::TokenRefused(said()),
            Code::InvalidArgument if message == AUTH_OLD_REVISION => Failure::TokenRefused(said()),
            // A member that has just learnt that authentication is on says this of no token.
            Code::InvalidArgument if message == USER_EMPTY => Failure::TokenRefused(said()),
            Code::Unavailable if message == NO_LEADER => Failure::NotExecuted(said()),
            Code::ResourceExhausted if matches!(message, TOO_MANY_REQUESTS | NO_SPACE) => {
                Failure::NotExecuted(said())
            }
            Code::OutOfRange => Failure::Compacted,
            Code::NotFound => Failure::NoLease(said()),
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::Unimplemented => Failure::Invalid(said()),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::AlreadyExists
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => Failure::Unknown(with_causes(status)),
        }
    }

    /// Of what only prepared a request.
    pub(super) fn before_asking(self) -> Failure {
        match self {
            Failure::Unknown(why) => Failure::NotExecuted(why),
            other => other,
        }
    }

    /// Of something that changes etcd.
    pub(super) fn of_write(self) -> StoreError {
        match self {
            Failure::Unknown(why) => StoreError::Unknown(why),
            other => other.of_read(),
        }
    }

    /// Of something that changes nothing: whether it was executed does not matter.
    pub(super) fn of_read(self) -> StoreError {
        match self {
            Failure::NotExecuted(why) | Failure::Unknown(why) | Failure::NoLease(why) => {
                StoreError::Unavailable(why)
            }
            Failure::Invalid(why) | Failure::TokenRefused(why) => {
                StoreError::Invalid(format!("etcd refused the request: {why}"))
            }
            Failure::Compacted => {
                StoreError::Unavailable("the revision asked for was compacted".to_owned())
            }
        }
    }
}

/// Whether the connection itself could not be made.
fn never_connected(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<tonic::ConnectError>())
}

/// The message and everything behind it: tonic's own says only "transport error".
fn with_causes(status: &Status) -> String {
    let mut text = status.message().to_owned();
    for cause in causes(status) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(status), |cause| cause.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_etcd_refused_before_proposing_it_counts_as_not_executed() {
        for (code, message) in [
            (Code::Unavailable, NO_LEADER),
            (Code::ResourceExhausted, TOO_MANY_REQUESTS),
            (Code::ResourceExhausted, NO_SPACE),
        ] {
            let error = Failure::of_status(&Status::new(code, message)).of_write();
            assert!(matches!(error, StoreError::Unavailable(_)), "{message}");
        }
        for (code, message) in [
            (Code::Unavailable, "etcdserver: request timed out"),
            (
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to previous leader failure",
            ),
            (Code::Unavailable, "etcdserver: server stopped"),
            (Code::Unknown, "transport error"),
            (Code::Cancelled, "h2 stream reset"),
            (Code::Internal, "something new"),
        ] {
            let status = Status::new(code, message);
            let error = Failure::of_status(&status).of_write();
            assert!(matches!(error, StoreError::Unknown(_)), "{message}");
            let error = Failure::of_status(&status).of_read();
            assert!(matches!(error, StoreError::Unavailable(_)), "{message}");
        }
    }

    #[test]
    fn an_expired_token_is_not_taken_for_a_wrong_password() {
        let expired = Status::unauthenticated("etcdserver: invalid auth token");
        let old = Status::invalid_argument(AUTH_OLD_REVISION);
        for status in [expired, old] {
            assert!(matches!(
                Failure::of_status(&status),
                Failure::TokenRefused(_)
            ));
        }
        let wrong = Status::invalid_argument(
            "etcdserver: authentication failed, invalid user ID or password",
        );
        assert!(matches!(Failure::of_status(&wrong), Failure::Invalid(_)));
    }
}
