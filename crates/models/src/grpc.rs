//! The gRPC side: messages in, the same work as the HTTP APIs, messages out.
//!
//! The router speaks gRPC with the client; here arrive bare messages and leave bare messages or
//! statuses.

use mobula_app::{GrpcRoute, Request, Response};
use prost::Message;

use crate::api::{Problem, Service};
use crate::pool;
use crate::resolve::Task;
use crate::tokenize::Text;

/// The messages of `proto/mobula/inference/v1/inference.proto`.
#[expect(missing_docs, reason = "generated; the proto file has the comments")]
#[allow(clippy::all, reason = "generated")]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/mobula.inference.v1.rs"));
}

/// The encoded `FileDescriptorSet`, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.descriptors"));

/// The service's full name.
pub const SERVICE: &str = "mobula.inference.v1.Inference";

/// The method that a task's model answers.
pub fn method_of(task: Task) -> &'static str {
    match task {
        Task::Embed => "Embed",
        Task::Rerank => "Rerank",
        Task::Classify => "Classify",
    }
}

/// The route of a task's method to a deployment.
pub fn route(task: Task, deployment: &str) -> GrpcRoute {
    GrpcRoute {
        service: SERVICE.to_owned(),
        method: method_of(task).to_owned(),
        deployment: deployment.to_owned(),
        streaming: false,
    }
}

/// Answers a unary call. Never fails: what is wrong becomes a status.
pub async fn answer(service: &Service, request: Request) -> Response {
    let started = std::time::Instant::now();
    let answer = dispatch(service, request).await;
    service.answered(started.elapsed());
    answer.unwrap_or_else(|problem| problem.grpc())
}

async fn dispatch(service: &Service, request: Request) -> Result<Response, Problem> {
    let expected = format!("/{SERVICE}/{}", method_of(service.task()));
    if request.path != expected {
        return Err(Problem::NotFound {
            path: request.path,
            known: expected,
        });
    }
    let body = crate::api::collect(request.body).await?;
    match service.task() {
        Task::Embed => embed(service, decode(&body)?).await,
        Task::Rerank => rerank(service, decode(&body)?).await,
        Task::Classify => classify(service, decode(&body)?).await,
    }
}

fn decode<M: Message + Default>(body: &[u8]) -> Result<M, Problem> {
    M::decode(body).map_err(|error| Problem::Value {
        field: None,
        text: format!("the message cannot be decoded: {error}"),
    })
}

async fn embed(service: &Service, request: v1::EmbedRequest) -> Result<Response, Problem> {
    service.check_rows("texts", request.texts.len())?;
    let normalize = request.normalize.unwrap_or(true);
    let wanted = usize::try_from(request.dimensions)
        .ok()
        .filter(|&wanted| wanted > 0);
    let dimensions = crate::api::check_dimensions(service, wanted)?;
    let texts = request.texts.into_iter().map(Text::One).collect();
    let rows = service
        .encode(texts, service.cut(request.truncate, false))
        .await?;
    let tokens: usize = rows.iter().map(|row| row.ids.len()).sum();
    let mut vectors = service.model().embed(rows, normalize).await?;
    crate::api::shorten(&mut vectors, dimensions, normalize);
    let embeddings = vectors.into_iter().map(|values| v1::Embedding { values });
    let response = v1::EmbedResponse {
        embeddings: embeddings.collect(),
        model: service.model().facts().name.clone(),
        tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
    };
    Ok(Response::grpc(response.encode_to_vec()))
}

async fn rerank(service: &Service, request: v1::RerankRequest) -> Result<Response, Problem> {
    service.check_rows("texts", request.texts.len())?;
    if request.query.is_empty() {
        return Err(Problem::Empty("query"));
    }
    let pair = |text: &String| Text::Pair(request.query.clone(), text.clone());
    let texts = request.texts.iter().map(pair).collect();
    let rows = service
        .encode(texts, service.cut(request.truncate, false))
        .await?;
    let scores = service.model().score(rows).await?;
    let mut ranks: Vec<v1::Rank> = scores
        .into_iter()
        .zip(request.texts)
        .zip(0_u32..)
        .map(|((score, text), index)| v1::Rank {
            index,
            score: if request.raw_scores {
                score
            } else {
                pool::sigmoid(score)
            },
            text: if request.return_texts {
                text
            } else {
                String::new()
            },
        })
        .collect();
    ranks.sort_by(|a, b| b.score.total_cmp(&a.score));
    keep(&mut ranks, request.top_n);
    let model = service.model().facts().name.clone();
    Ok(Response::grpc(
        v1::RerankResponse { ranks, model }.encode_to_vec(),
    ))
}

async fn classify(service: &Service, request: v1::ClassifyRequest) -> Result<Response, Problem> {
    service.check_rows("texts", request.texts.len())?;
    let texts = request.texts.into_iter().map(Text::One).collect();
    let rows = service
        .encode(texts, service.cut(request.truncate, false))
        .await?;
    let labels = service.model().classify(rows, request.raw_scores).await?;
    let classification = |row: Vec<crate::model::Label>| {
        let named = |label: crate::model::Label| v1::Label {
            name: label.name,
            score: label.score,
        };
        let mut labels: Vec<v1::Label> = row.into_iter().map(named).collect();
        keep(&mut labels, request.top_k);
        v1::Classification { labels }
    };
    let response = v1::ClassifyResponse {
        classifications: labels.into_iter().map(classification).collect(),
        model: service.model().facts().name.clone(),
    };
    Ok(Response::grpc(response.encode_to_vec()))
}

/// Keeps the first so many; 0 keeps all.
fn keep<T>(list: &mut Vec<T>, count: u32) {
    if count > 0 {
        list.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    }
}
