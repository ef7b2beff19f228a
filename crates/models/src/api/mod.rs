//! The HTTP APIs: which path is which operation, and who answers it.
//!
//! An operation belongs to a dialect (whose clients call it), and an error is told in that
//! dialect's own shape. Here is only the way from a request to an operation; the operations
//! themselves are in the dialects' files.

mod cohere;
mod infer;
mod json;
mod openai;
mod openapi;
mod problem;
mod service;
mod tei;

use http::{Method, StatusCode};
use mobula_app::{Request, Response};

pub(crate) use json::collect;
pub use problem::{Dialect, Problem};
pub use service::{ModelCard, Service, ServiceOptions};
pub(crate) use tei::{check_dimensions, shorten};

use crate::resolve::Task;

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// TEI: a vector for each text.
    Embed,
    /// TEI: a vector for each token.
    EmbedAll,
    /// TEI: cosine of one sentence with others.
    Similarity,
    /// TEI: scores of texts for a query.
    Rerank,
    /// TEI: labels of a text, a pair or a batch.
    Predict,
    /// TEI: tokens of texts.
    Tokenize,
    /// TEI: text of tokens.
    Decode,
    /// TEI: the model's facts.
    Info,
    /// 200 while the engine lives.
    Health,
    /// OpenAI: vectors with usage.
    Embeddings,
    /// OpenAI: the models that are served.
    Models,
    /// Cohere and Jina: ranked documents.
    RerankV1,
    /// Cohere, second version.
    RerankV2,
    /// One label and score for each text.
    Infer,
    /// The OpenAPI document.
    OpenApi,
}

/// Every path and its operation. `/v1/models/{id}` is read apart.
const PATHS: &[(&str, Operation)] = &[
    ("/embed", Operation::Embed),
    ("/embed_all", Operation::EmbedAll),
    ("/similarity", Operation::Similarity),
    ("/rerank", Operation::Rerank),
    ("/predict", Operation::Predict),
    ("/tokenize", Operation::Tokenize),
    ("/decode", Operation::Decode),
    ("/info", Operation::Info),
    ("/health", Operation::Health),
    ("/healthz", Operation::Health),
    ("/v1/embeddings", Operation::Embeddings),
    ("/embeddings", Operation::Embeddings),
    ("/v1/models", Operation::Models),
    ("/v1/rerank", Operation::RerankV1),
    ("/v2/rerank", Operation::RerankV2),
    ("/infer", Operation::Infer),
    ("/openapi.json", Operation::OpenApi),
];

const MODEL_PREFIX: &str = "/v1/models/";

/// Paths that lead to a deployment whose model does that task.
pub fn paths_of(task: Task) -> Vec<&'static str> {
    let of_task = |operation: Operation| operation.task() == Some(task);
    PATHS
        .iter()
        .filter(|(_, operation)| of_task(*operation))
        .map(|(path, _)| *path)
        .collect()
}

/// Answers a request to a model. Never fails: what is wrong becomes an answer.
pub async fn answer(service: &Service, request: Request) -> Response {
    let path = request.relative_path().to_owned();
    let found = find(&path, &request.prefix, service.task());
    let dialect = found.map_or(Dialect::Tei, Operation::dialect);
    match dispatch(service, request, &path, found).await {
        Ok(response) => response,
        Err(problem) => dialect.response(&problem),
    }
}

async fn dispatch(
    service: &Service,
    request: Request,
    path: &str,
    found: Option<Operation>,
) -> Result<Response, Problem> {
    let Some(operation) = found else {
        return Err(Problem::NotFound {
            path: path.to_owned(),
            known: service.paths(),
        });
    };
    if request.method != operation.method() && !is_head_of(&request.method, operation) {
        return Err(Problem::Method {
            allowed: operation.method().as_str().to_owned(),
        });
    }
    if operation.task().is_some_and(|task| task != service.task()) {
        return Err(Problem::WrongTask {
            path: path.to_owned(),
        });
    }
    match operation {
        Operation::Embed => tei::embed(service, request).await,
        Operation::EmbedAll => tei::embed_all(service, request).await,
        Operation::Similarity => tei::similarity(service, request).await,
        Operation::Rerank => tei::rerank(service, request).await,
        Operation::Predict => tei::predict(service, request).await,
        Operation::Tokenize => tei::tokenize(service, request).await,
        Operation::Decode => tei::decode(service, request).await,
        Operation::Info => tei::info(service),
        Operation::Health => tei::health(service),
        Operation::Embeddings => openai::embeddings(service, request).await,
        Operation::Models => openai::models(service, path.strip_prefix(MODEL_PREFIX)),
        Operation::RerankV1 => cohere::rerank(service, request, cohere::Version::V1).await,
        Operation::RerankV2 => cohere::rerank(service, request, cohere::Version::V2).await,
        Operation::Infer => infer::infer(service, request).await,
        Operation::OpenApi => Ok(Response::json(StatusCode::OK, openapi::DOCUMENT)),
    }
}

fn is_head_of(method: &Method, operation: Operation) -> bool {
    method == Method::HEAD && operation.method() == Method::GET
}

/// The operation of a path below the prefix. A prefix that is itself an operation's path
/// (`route_prefix: /infer`) is that operation, and `/` is what the task does by default.
fn find(path: &str, prefix: &str, task: Task) -> Option<Operation> {
    let path = match path.trim_end_matches('/') {
        "" => "/",
        trimmed => trimmed,
    };
    let exact = |path: &str| {
        let known = PATHS.iter().find(|(known, _)| *known == path);
        known.map(|(_, operation)| *operation)
    };
    if path != "/" {
        let model = || path.starts_with(MODEL_PREFIX).then_some(Operation::Models);
        return exact(path).or_else(model);
    }
    let by_prefix = PATHS
        .iter()
        .filter(|(known, _)| prefix.ends_with(known))
        .max_by_key(|(known, _)| known.len())
        .map(|(_, operation)| *operation);
    by_prefix.or(Some(match task {
        Task::Embed => Operation::Embed,
        Task::Rerank => Operation::Rerank,
        Task::Classify => Operation::Infer,
    }))
}

// === impl Operation ===

impl Operation {
    /// The method it is asked with.
    pub fn method(self) -> Method {
        match self {
            Operation::Info | Operation::Health | Operation::Models | Operation::OpenApi => {
                Method::GET
            }
            Operation::Embed
            | Operation::EmbedAll
            | Operation::Similarity
            | Operation::Rerank
            | Operation::Predict
            | Operation::Tokenize
            | Operation::Decode
            | Operation::Embeddings
            | Operation::RerankV1
            | Operation::RerankV2
            | Operation::Infer => Method::POST,
        }
    }

    /// The task whose model can answer it; `None`: any can.
    pub fn task(self) -> Option<Task> {
        match self {
            Operation::Embed
            | Operation::EmbedAll
            | Operation::Similarity
            | Operation::Embeddings => Some(Task::Embed),
            Operation::Rerank | Operation::RerankV1 | Operation::RerankV2 => Some(Task::Rerank),
            Operation::Predict | Operation::Infer => Some(Task::Classify),
            Operation::Tokenize
            | Operation::Decode
            | Operation::Info
            | Operation::Health
            | Operation::Models
            | Operation::OpenApi => None,
        }
    }

    /// Whose shape its errors have.
    pub fn dialect(self) -> Dialect {
        match self {
            Operation::Embed
            | Operation::EmbedAll
            | Operation::Similarity
            | Operation::Rerank
            | Operation::Predict
            | Operation::Tokenize
            | Operation::Decode
            | Operation::Info
            | Operation::Health
            | Operation::OpenApi => Dialect::Tei,
            Operation::Embeddings | Operation::Models => Dialect::OpenAi,
            Operation::RerankV1 | Operation::RerankV2 => Dialect::Cohere,
            Operation::Infer => Dialect::Infer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_a_prefix_or_the_task_names_the_operation() {
        for (path, prefix, task, operation) in [
            ("/embed", "/", Task::Embed, Some(Operation::Embed)),
            ("/embed/", "/rag", Task::Embed, Some(Operation::Embed)),
            ("/", "/", Task::Embed, Some(Operation::Embed)),
            ("/", "/infer", Task::Classify, Some(Operation::Infer)),
            ("/", "/predict", Task::Classify, Some(Operation::Predict)),
            (
                "/",
                "/api/v1/rerank",
                Task::Rerank,
                Some(Operation::RerankV1),
            ),
            (
                "/v1/models/org/name",
                "/",
                Task::Embed,
                Some(Operation::Models),
            ),
            ("/nothing", "/infer", Task::Classify, None),
        ] {
            assert_eq!(find(path, prefix, task), operation, "{path} {prefix}");
        }
    }

    #[test]
    fn the_document_describes_every_path() {
        let document: serde_json::Value = serde_json::from_str(openapi::DOCUMENT).unwrap();
        let paths = document["paths"].as_object().unwrap();
        for (path, operation) in PATHS {
            let method = operation.method().as_str().to_ascii_lowercase();
            assert!(
                paths.get(*path).is_some_and(|at| at.get(&method).is_some()),
                "{path}"
            );
        }
    }
}
