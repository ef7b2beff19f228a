//! text-embeddings-inference's API.

use mobula_app::{Body, Request, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::service::{Service, counted};
use super::{Problem, json};
use crate::batch::Tokens;
use crate::pool;
use crate::resolve::Task;
use crate::tokenize::{Cut, Text};

/// One input or many; each a text or token ids.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a string, a list of strings, a list of token ids or a list of such lists"
)]
pub(super) enum Inputs {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    IdLists(Vec<Vec<u32>>),
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Direction {
    #[serde(alias = "Left")]
    Left,
    #[default]
    #[serde(alias = "Right")]
    Right,
}

#[derive(Debug, Deserialize)]
struct EmbedRequest {
    inputs: Inputs,
    truncate: Option<bool>,
    #[serde(default)]
    truncation_direction: Direction,
    prompt_name: Option<String>,
    normalize: Option<bool>,
    dimensions: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct RerankRequest {
    query: String,
    texts: Vec<String>,
    truncate: Option<bool>,
    #[serde(default)]
    truncation_direction: Direction,
    #[serde(default)]
    raw_scores: bool,
    #[serde(default)]
    return_text: bool,
}

#[derive(Debug, Serialize)]
struct Rank {
    index: usize,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

#[derive(Debug, Deserialize)]
struct PredictRequest {
    inputs: PredictInputs,
    truncate: Option<bool>,
    #[serde(default)]
    truncation_direction: Direction,
    #[serde(default)]
    raw_scores: bool,
}

/// A text, a pair `[text, text]`, or a batch of `[text]` and `[text, text]`.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a string, a pair of strings or a list of [string] and [string, string]"
)]
enum PredictInputs {
    One(String),
    Row(Vec<String>),
    Batch(Vec<Vec<String>>),
}

#[derive(Debug, Serialize)]
struct Prediction {
    score: f32,
    label: String,
}

/// One text or many.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub(super) enum TextInputs {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize)]
struct TokenizeRequest {
    inputs: TextInputs,
    add_special_tokens: Option<bool>,
    prompt_name: Option<String>,
}

#[derive(Debug, Serialize)]
struct SimpleToken {
    id: u32,
    text: String,
    special: bool,
    start: Option<usize>,
    stop: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct DecodeRequest {
    ids: DecodeIds,
    skip_special_tokens: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a list of token ids or a list of such lists"
)]
enum DecodeIds {
    One(Vec<u32>),
    Many(Vec<Vec<u32>>),
}

#[derive(Debug, Deserialize)]
struct SimilarityRequest {
    inputs: SimilarityInputs,
    #[serde(default)]
    parameters: SimilarityParameters,
}

#[derive(Debug, Deserialize)]
struct SimilarityInputs {
    source_sentence: String,
    sentences: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
struct SimilarityParameters {
    truncate: Option<bool>,
    #[serde(default)]
    truncation_direction: Direction,
    prompt_name: Option<String>,
}

// === impl TextInputs ===

impl TextInputs {
    pub(super) fn into_texts(self) -> Vec<String> {
        match self {
            TextInputs::One(text) => vec![text],
            TextInputs::Many(texts) => texts,
        }
    }
}

pub(super) async fn embed(service: &Service, request: Request) -> Result<Response, Problem> {
    let request: EmbedRequest = json::read(request.body).await?;
    counted(service, async {
        let normalize = request.normalize.unwrap_or(true);
        let dimensions = check_dimensions(service, request.dimensions)?;
        let rows = rows_of(service, request).await?;
        let mut vectors = service.model().embed(rows, normalize).await?;
        shorten(&mut vectors, dimensions, normalize);
        json::write(&vectors)
    })
    .await
}

pub(super) async fn embed_all(service: &Service, request: Request) -> Result<Response, Problem> {
    let request: EmbedRequest = json::read(request.body).await?;
    counted(service, async {
        let rows = rows_of(service, request).await?;
        json::write(&service.model().embed_tokens(rows).await?)
    })
    .await
}

pub(super) async fn similarity(service: &Service, request: Request) -> Result<Response, Problem> {
    let request: SimilarityRequest = json::read(request.body).await?;
    let parameters = request.parameters;
    no_prompt(parameters.prompt_name.as_deref())?;
    let sentences = request.inputs.sentences;
    service.check_rows("inputs.sentences", sentences.len())?;
    counted(service, async {
        let from_left = parameters.truncation_direction == Direction::Left;
        let cut = service.cut(parameters.truncate, from_left);
        let source = std::iter::once(request.inputs.source_sentence);
        let texts = source.chain(sentences).map(Text::One).collect();
        let rows = service.encode(texts, cut).await?;
        let vectors = service.model().embed(rows, true).await?;
        let Some((source, others)) = vectors.split_first() else {
            return Err(Problem::Empty("inputs"));
        };
        let cosines: Vec<f32> = others.iter().map(|other| dot(source, other)).collect();
        json::write(&cosines)
    })
    .await
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let products = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b));
    products.sum::<f64>() as f32
}

pub(super) async fn rerank(service: &Service, request: Request) -> Result<Response, Problem> {
    let request: RerankRequest = json::read(request.body).await?;
    service.check_rows("texts", request.texts.len())?;
    if request.query.is_empty() {
        return Err(Problem::Empty("query"));
    }
    counted(service, async {
        let from_left = request.truncation_direction == Direction::Left;
        let cut = service.cut(request.truncate, from_left);
        let scores = score(service, &request.query, &request.texts, cut).await?;
        let texts = request.texts.into_iter();
        let mut ranks: Vec<Rank> = scores
            .into_iter()
            .zip(texts)
            .enumerate()
            .map(|(index, (score, text))| Rank {
                index,
                score: if request.raw_scores {
                    score
                } else {
                    pool::sigmoid(score)
                },
                text: request.return_text.then_some(text),
            })
            .collect();
        ranks.sort_by(|a, b| b.score.total_cmp(&a.score));
        json::write(&ranks)
    })
    .await
}

/// The raw score of each text for a query.
pub(super) async fn score(
    service: &Service,
    query: &str,
    texts: &[String],
    cut: Cut,
) -> Result<Vec<f32>, Problem> {
    let pair = |text: &String| Text::Pair(query.to_owned(), text.clone());
    let rows = service
        .encode(texts.iter().map(pair).collect(), cut)
        .await?;
    Ok(service.model().score(rows).await?)
}

pub(super) async fn predict(service: &Service, request: Request) -> Result<Response, Problem> {
    let request: PredictRequest = json::read(request.body).await?;
    let (rows, single) = match request.inputs {
        PredictInputs::One(text) => (vec![vec![text]], true),
        PredictInputs::Row(row) => (vec![row], true),
        PredictInputs::Batch(rows) => (rows, false),
    };
    service.check_rows("inputs", rows.len())?;
    let texts = rows
        .into_iter()
        .map(sequence)
        .collect::<Result<Vec<_>, _>>()?;
    counted(service, async {
        let from_left = request.truncation_direction == Direction::Left;
        let rows = service
            .encode(texts, service.cut(request.truncate, from_left))
            .await?;
        let labels = service.model().classify(rows, request.raw_scores).await?;
        let mut predictions: Vec<Vec<Prediction>> = labels
            .into_iter()
            .map(|row| {
                row.into_iter()
                    .map(|label| Prediction {
                        score: label.score,
                        label: label.name,
                    })
                    .collect()
            })
            .collect();
        match predictions.pop() {
            Some(only) if single => json::write(&only),
            last => {
                predictions.extend(last);
                json::write(&predictions)
            }
        }
    })
    .await
}

fn sequence(row: Vec<String>) -> Result<Text, Problem> {
    let mut texts = row.into_iter();
    match (texts.next(), texts.next(), texts.next()) {
        (Some(text), None, _) => Ok(Text::One(text)),
        (Some(first), Some(second), None) => Ok(Text::Pair(first, second)),
        (None, ..) => Err(Problem::Empty("inputs")),
        (Some(_), Some(_), Some(_)) => Err(Problem::value(
            "inputs",
            "expected a string, a pair of strings [string, string] or a batch of mixed strings \
             and pairs [[string], [string, string], ...]",
        )),
    }
}

pub(super) async fn tokenize(service: &Service, request: Request) -> Result<Response, Problem> {
    let request: TokenizeRequest = json::read(request.body).await?;
    no_prompt(request.prompt_name.as_deref())?;
    let texts = request.inputs.into_texts();
    service.check_rows("inputs", texts.len())?;
    let specials = request.add_special_tokens.unwrap_or(true);
    let model = service.shared_model();
    let rows = service
        .off_thread(move || {
            let tokenize = |text: &String| model.tokenizer().tokenize(text, specials);
            texts.iter().map(tokenize).collect::<Result<Vec<_>, _>>()
        })
        .await?;
    let shown = |row: Vec<crate::tokenize::TokenText>| -> Vec<SimpleToken> {
        row.into_iter()
            .map(|token| SimpleToken {
                id: token.id,
                text: token.text,
                special: token.special,
                start: token.place.as_ref().map(|place| place.start),
                stop: token.place.as_ref().map(|place| place.end),
            })
            .collect()
    };
    json::write(&rows.into_iter().map(shown).collect::<Vec<_>>())
}

pub(super) async fn decode(service: &Service, request: Request) -> Result<Response, Problem> {
    let request: DecodeRequest = json::read(request.body).await?;
    let lists = match request.ids {
        DecodeIds::One(ids) => vec![ids],
        DecodeIds::Many(lists) => lists,
    };
    service.check_rows("ids", lists.len())?;
    let skip = request.skip_special_tokens.unwrap_or(true);
    let model = service.shared_model();
    let texts = service
        .off_thread(move || {
            let decode = |ids: &Vec<u32>| model.tokenizer().decode(ids, skip);
            lists.iter().map(decode).collect::<Result<Vec<_>, _>>()
        })
        .await?;
    json::write(&texts)
}

pub(super) fn info(service: &Service) -> Result<Response, Problem> {
    let (model, options) = (service.model(), service.options());
    let facts = model.facts();
    json::write(&json!({
        "model_id": facts.name,
        "model_sha": facts.revision,
        "model_dtype": "float32",
        "model_type": model_type(service),
        "max_concurrent_requests": options.calls_max,
        "max_input_length": facts.tokens_max,
        "max_batch_tokens": options.batch_tokens_max,
        "max_batch_requests": options.batch_rows_max,
        "max_client_batch_size": options.rows_max,
        "auto_truncate": options.auto_truncate,
        "tokenization_workers": model.engine().sessions(),
        "version": env!("CARGO_PKG_VERSION"),
        "sha": Value::Null,
        "docker_label": Value::Null,
    }))
}

fn model_type(service: &Service) -> Value {
    let model = service.model();
    let labels = || {
        let id2label: serde_json::Map<String, Value> = model
            .labels()
            .iter()
            .enumerate()
            .map(|(id, label)| (id.to_string(), json!(label)))
            .collect();
        let label2id: serde_json::Map<String, Value> = model
            .labels()
            .iter()
            .enumerate()
            .map(|(id, label)| (label.clone(), json!(id)))
            .collect();
        json!({"id2label": id2label, "label2id": label2id})
    };
    match model.task() {
        Task::Embed => json!({"embedding": {"pooling": model.facts().pooling.name()}}),
        Task::Rerank => json!({"reranker": labels()}),
        Task::Classify => json!({"classifier": labels()}),
    }
}

pub(super) fn health(service: &Service) -> Result<Response, Problem> {
    service.check_alive()?;
    let mut response = Response::text("");
    response.body = Body::empty();
    Ok(response)
}

async fn rows_of(service: &Service, request: EmbedRequest) -> Result<Vec<Tokens>, Problem> {
    no_prompt(request.prompt_name.as_deref())?;
    let cut = service.cut(
        request.truncate,
        request.truncation_direction == Direction::Left,
    );
    encode_inputs(service, request.inputs, cut, "inputs").await
}

/// Tokens of texts, or of ids that the caller made itself.
pub(super) async fn encode_inputs(
    service: &Service,
    inputs: Inputs,
    cut: Cut,
    field: &'static str,
) -> Result<Vec<Tokens>, Problem> {
    let lists = match inputs {
        Inputs::Text(text) => return service.encode(vec![Text::One(text)], cut).await,
        Inputs::Texts(texts) => {
            service.check_rows(field, texts.len())?;
            let texts = texts.into_iter().map(Text::One).collect();
            return service.encode(texts, cut).await;
        }
        Inputs::Ids(ids) => vec![ids],
        Inputs::IdLists(lists) => lists,
    };
    service.check_rows(field, lists.len())?;
    if lists.iter().any(Vec::is_empty) {
        return Err(Problem::Empty(field));
    }
    let model = service.shared_model();
    let encode = move || {
        let encode = |ids: &Vec<u32>| model.tokenizer().encode_ids(ids, cut);
        lists.iter().map(encode).collect::<Result<Vec<_>, _>>()
    };
    service.off_thread(encode).await
}

/// How many of a vector's values are wanted.
pub(crate) fn check_dimensions(
    service: &Service,
    dimensions: Option<usize>,
) -> Result<Option<usize>, Problem> {
    let width = service.model().width();
    match (dimensions, width) {
        (Some(wanted), Some(width)) if wanted == 0 || wanted > width => Err(Problem::value(
            "dimensions",
            format!("{wanted} is not between 1 and {width}, the length of this model's vectors"),
        )),
        (Some(0), None) => Err(Problem::value("dimensions", "0 is not at least 1")),
        (dimensions, _) => Ok(dimensions),
    }
}

/// Keeps the first values of each vector, scaled again if they were before.
pub(crate) fn shorten(vectors: &mut [Vec<f32>], dimensions: Option<usize>, normalize: bool) {
    let Some(dimensions) = dimensions else {
        return;
    };
    for vector in vectors {
        vector.truncate(dimensions);
        if normalize {
            pool::normalize(vector);
        }
    }
}

fn no_prompt(name: Option<&str>) -> Result<(), Problem> {
    match name {
        None => Ok(()),
        Some(_) => Err(Problem::value(
            "prompt_name",
            "this model has no prompts; leave it out",
        )),
    }
}
