//! What can be wrong with a request, and how each dialect says it.

use http::StatusCode;
use http::header::{ALLOW, HeaderValue};
use mobula_app::Response;
use serde_json::{Value, json};

use crate::ModelError;

/// Whose clients call an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// text-embeddings-inference.
    Tei,
    /// OpenAI.
    OpenAi,
    /// Cohere and Jina.
    Cohere,
    /// The plain `/infer`.
    Infer,
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The body is not JSON at all.
    Syntax(String),
    /// The body is JSON of another shape, or a field has a value that is not taken.
    Value {
        /// The field, where there is one.
        field: Option<&'static str>,
        /// What is wrong and what is allowed.
        text: String,
    },
    /// An input is empty where there must be one.
    Empty(&'static str),
    /// An input is longer than the model takes.
    TooLong(String),
    /// More rows than one request may have.
    TooManyRows {
        /// Of the request.
        rows: usize,
        /// Allowed.
        rows_max: usize,
    },
    /// A body beyond the limit.
    BodyTooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// Nobody serves a model of that name here.
    UnknownModel {
        /// The name.
        name: String,
        /// Those that are served.
        known: String,
    },
    /// The model cannot do that.
    WrongTask {
        /// The path.
        path: String,
    },
    /// Nothing lies at that path.
    NotFound {
        /// The path.
        path: String,
        /// Those that exist.
        known: String,
    },
    /// The path exists, for another method.
    Method {
        /// That one.
        allowed: String,
    },
    /// Too much waits already.
    Overloaded(String),
    /// The replica is stopping or its engine has died.
    Unavailable(String),
    /// The model failed.
    Backend(String),
}

// === impl Problem ===

impl Problem {
    /// A value that is not taken.
    pub fn value(field: &'static str, text: impl Into<String>) -> Problem {
        Problem::Value {
            field: Some(field),
            text: text.into(),
        }
    }

    /// For the caller.
    pub fn message(&self) -> String {
        match self {
            Problem::Syntax(text) => format!("the body is not valid JSON: {text}"),
            Problem::Value {
                field: Some(field),
                text,
            } => format!("`{field}`: {text}"),
            Problem::Value { field: None, text } => text.clone(),
            Problem::Empty(field) => format!("`{field}` cannot be empty"),
            Problem::TooLong(text) => format!("input validation error: {text}"),
            Problem::TooManyRows { rows, rows_max } => {
                format!("batch size {rows} > maximum allowed batch size {rows_max}")
            }
            Problem::BodyTooLarge { bytes_max } => {
                format!("the body is larger than {bytes_max} bytes")
            }
            Problem::UnknownModel { name, known } => {
                format!("the model `{name}` is not served here; served are: {known}")
            }
            Problem::WrongTask { path } => {
                format!("the model of this deployment cannot answer {path}")
            }
            Problem::NotFound { path, known } => {
                format!("nothing is at {path}; this deployment answers: {known}")
            }
            Problem::Method { allowed } => format!("method not allowed; use {allowed}"),
            Problem::Overloaded(text) | Problem::Unavailable(text) | Problem::Backend(text) => {
                text.clone()
            }
        }
    }

    /// The status where a dialect has no other opinion.
    fn status(&self) -> StatusCode {
        match self {
            Problem::Syntax(_)
            | Problem::Value { .. }
            | Problem::Empty(_)
            | Problem::TooLong(_)
            | Problem::TooManyRows { .. } => StatusCode::BAD_REQUEST,
            Problem::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Problem::UnknownModel { .. } | Problem::NotFound { .. } => StatusCode::NOT_FOUND,
            Problem::WrongTask { .. } => StatusCode::FAILED_DEPENDENCY,
            Problem::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Problem::Overloaded(_) => StatusCode::TOO_MANY_REQUESTS,
            Problem::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Problem::Backend(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// TEI's status, its word for the kind, and the gRPC code.
    fn kind(&self) -> (StatusCode, &'static str, u32) {
        match self {
            Problem::Syntax(_) => (StatusCode::BAD_REQUEST, "Validation", 3),
            Problem::Value { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "Validation", 3),
            Problem::Empty(_) => (StatusCode::BAD_REQUEST, "Empty", 3),
            Problem::TooLong(_) | Problem::TooManyRows { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, "Validation", 3)
            }
            Problem::BodyTooLarge { .. } => (self.status(), "Validation", 8),
            Problem::UnknownModel { .. } => (self.status(), "Validation", 5),
            Problem::NotFound { .. } => (self.status(), "NotFound", 12),
            Problem::Method { .. } => (self.status(), "Validation", 12),
            Problem::WrongTask { .. } => (self.status(), "Backend", 12),
            Problem::Overloaded(_) => (self.status(), "Overloaded", 8),
            Problem::Unavailable(_) => (self.status(), "Unhealthy", 14),
            Problem::Backend(_) => (StatusCode::FAILED_DEPENDENCY, "Backend", 13),
        }
    }

    /// As a gRPC status.
    pub fn grpc(&self) -> Response {
        let (_, _, code) = self.kind();
        Response::grpc_error(code, self.message())
    }
}

impl From<ModelError> for Problem {
    fn from(error: ModelError) -> Problem {
        let text = error.to_string();
        match error {
            ModelError::TooLong { .. } => Problem::TooLong(text),
            ModelError::Input(text) => Problem::Value { field: None, text },
            ModelError::Overloaded(_) => Problem::Overloaded(text),
            ModelError::Stopped => Problem::Unavailable(text),
            ModelError::Engine(_)
            | ModelError::Fetch(_)
            | ModelError::BadFile { .. }
            | ModelError::Gpu { .. }
            | ModelError::Setting(_) => Problem::Backend(text),
        }
    }
}

// === impl Dialect ===

impl Dialect {
    /// The answer that tells a problem.
    pub fn response(self, problem: &Problem) -> Response {
        let (status, document) = match self {
            Dialect::Tei => tei(problem),
            Dialect::OpenAi => (problem.status(), openai(problem)),
            Dialect::Cohere => (problem.status(), json!({"message": problem.message()})),
            Dialect::Infer => (problem.status(), json!({"error": problem.message()})),
        };
        let mut response = Response::json(status, document.to_string());
        if let Problem::Method { allowed } = problem
            && let Ok(allowed) = HeaderValue::from_str(allowed)
        {
            response.headers.insert(ALLOW, allowed);
        }
        response
    }
}

fn tei(problem: &Problem) -> (StatusCode, Value) {
    let (status, kind, _) = problem.kind();
    (
        status,
        json!({"error": problem.message(), "error_type": kind}),
    )
}

fn openai(problem: &Problem) -> Value {
    let (kind, code) = match problem {
        Problem::UnknownModel { .. } => ("invalid_request_error", Some("model_not_found")),
        Problem::TooLong(_) => ("invalid_request_error", Some("context_length_exceeded")),
        Problem::Overloaded(_) => ("rate_limit_error", Some("rate_limit_exceeded")),
        Problem::Unavailable(_) | Problem::Backend(_) => ("server_error", None),
        Problem::Syntax(_)
        | Problem::Value { .. }
        | Problem::Empty(_)
        | Problem::TooManyRows { .. }
        | Problem::BodyTooLarge { .. }
        | Problem::WrongTask { .. }
        | Problem::NotFound { .. }
        | Problem::Method { .. } => ("invalid_request_error", None),
    };
    let param = match problem {
        Problem::UnknownModel { .. } => Some("model"),
        Problem::Value { field, .. } => *field,
        Problem::Empty(field) => Some(*field),
        Problem::TooLong(_) | Problem::TooManyRows { .. } => Some("input"),
        Problem::Syntax(_)
        | Problem::BodyTooLarge { .. }
        | Problem::WrongTask { .. }
        | Problem::NotFound { .. }
        | Problem::Method { .. }
        | Problem::Overloaded(_)
        | Problem::Unavailable(_)
        | Problem::Backend(_) => None,
    };
    json!({"error": {
        "message": problem.message(), "type": kind, "param": param, "code": code,
    }})
}
