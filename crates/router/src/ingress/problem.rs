//! What a client is told when there is no answer: kind, and Ray Serve's texts. Pure.

use mobula_proto::status::ErrorKind;

use crate::deployment::Backpressure;
use crate::dispatch::UploadError;
use crate::exchange::Failure;
use crate::queue::Refusal;
use crate::table::{NoMethod, Route};

/// An error as a client sees it; how it is put on the wire is up to the protocol.
#[derive(Debug, PartialEq)]
pub struct Problem {
    /// What kind of error.
    pub kind: ErrorKind,
    /// The text.
    pub message: String,
    /// The user's choice for a full queue.
    pub backpressure: Option<Backpressure>,
}

impl Problem {
    /// A problem with its text.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Problem {
        Problem {
            kind,
            message: message.into(),
            backpressure: None,
        }
    }

    /// No application has the path.
    pub fn no_path(path: &str) -> Problem {
        let message =
            format!("Path '{path}' not found. Ping http://.../-/routes for available routes.");
        Problem::new(ErrorKind::NotFound, message)
    }

    /// No application has the method.
    pub fn no_method(reason: &NoMethod, path: &str, application: &str) -> Problem {
        const PING: &str =
            "ping /ray.serve.RayServeAPIService/ListApplications for available applications";
        let message = match reason {
            NoMethod::Unknown => format!("Method '{path}' not found."),
            NoMethod::Ambiguous => format!(
                "Application metadata not set. Please {PING} and set `application` in the metadata."
            ),
            NoMethod::NotInApplication => {
                format!("Application '{application}' not found for '{path}'. Please {PING}.")
            }
        };
        Problem::new(ErrorKind::NotFound, message)
    }

    /// The deadline passed.
    pub fn timed_out(request_id: &str, after_s: f64) -> Problem {
        // `{:?}` prints 30.0 and 0.3, as Python does.
        let message = format!("Request {request_id} timed out after {after_s:?}s.");
        Problem::new(ErrorKind::TimedOut, message)
    }

    /// A request that was sent to a deployment has no answer.
    pub fn failure(failure: &Failure, route: &Route, backpressure: Backpressure) -> Problem {
        match failure {
            Failure::Refused(refusal) => Problem::refusal(refusal, route, backpressure),
            Failure::Internal => Problem::internal(),
            Failure::ReplicaDied => Problem::new(
                ErrorKind::ReplicaDied,
                format!(
                    "The replica of {} was lost with the request in it; the request may have been \
                     executed.",
                    named(route)
                ),
            ),
            Failure::Upload(error) => Problem::upload(error),
        }
    }

    /// Something of ours or of the user's failed; the text is logged and not told.
    pub fn internal() -> Problem {
        Problem::new(ErrorKind::Internal, "Internal Server Error")
    }

    /// The request's body did not arrive.
    pub fn upload(error: &UploadError) -> Problem {
        let kind = match error {
            UploadError::TooLarge { .. } => ErrorKind::BodyTooLarge,
            UploadError::Idle => ErrorKind::TimedOut,
            UploadError::Broken(_) => ErrorKind::InvalidRequest,
        };
        let text = error.to_string();
        let message = text.replacen("the ", "The ", 1) + ".";
        Problem::new(kind, message)
    }

    fn refusal(refusal: &Refusal, route: &Route, backpressure: Backpressure) -> Problem {
        match refusal {
            Refusal::Full { queued, max } => Problem {
                kind: ErrorKind::Backpressure,
                message: format!(
                    "Request dropped due to backpressure (num_queued_requests={queued}, \
                     max_queued_requests={max})."
                ),
                backpressure: Some(backpressure),
            },
            Refusal::Failed => Problem::new(
                ErrorKind::Unavailable,
                format!(
                    "{} is unavailable because it failed to deploy.",
                    named(route)
                ),
            ),
            Refusal::Deleted => Problem::new(
                ErrorKind::Unavailable,
                format!("{} is unavailable because it was deleted.", named(route)),
            ),
        }
    }
}

fn named(route: &Route) -> String {
    format!(
        "Deployment(name='{}', app='{}')",
        route.deployment, route.application
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKPRESSURE: Backpressure = Backpressure {
        status: 429,
        retry_after_s: Some(2.0),
    };

    fn route() -> Route {
        Route {
            is_grpc: false,
            is_stream: false,
            application: "badstart".into(),
            deployment: "Bad".into(),
            prefix: "/".into(),
            label: "/".into(),
        }
    }

    #[test]
    fn the_texts_are_those_of_ray_serve() {
        let failure =
            |refusal| Problem::failure(&Failure::Refused(refusal), &route(), BACKPRESSURE);
        let full = failure(Refusal::Full { queued: 1, max: 1 });
        assert_eq!(
            full.message,
            "Request dropped due to backpressure (num_queued_requests=1, max_queued_requests=1)."
        );
        assert_eq!(full.backpressure, Some(BACKPRESSURE));
        assert_eq!(
            failure(Refusal::Failed).message,
            "Deployment(name='Bad', app='badstart') is unavailable because it failed to deploy."
        );
        assert_eq!(
            Problem::timed_out("abc", 0.3).message,
            "Request abc timed out after 0.3s."
        );
        assert_eq!(
            Problem::timed_out("abc", 30.0).message,
            "Request abc timed out after 30.0s."
        );
        assert_eq!(
            Problem::no_path("/x").message,
            "Path '/x' not found. Ping http://.../-/routes for available routes."
        );
    }

    #[test]
    fn a_body_that_is_too_large_names_the_limit() {
        let problem = Problem::upload(&UploadError::TooLarge { max: 10 });
        assert_eq!(problem.kind, ErrorKind::BodyTooLarge);
        assert_eq!(problem.message, "The body is larger than 10 bytes.");
    }
}
