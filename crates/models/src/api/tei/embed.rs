//! Texts to vectors.

use mobula_app::{Request, Response};
use serde::Deserialize;

use super::super::service::{Service, counted};
use super::super::{Problem, json};
use super::inputs::{Direction, Inputs, encode_inputs, no_prompt};
use crate::batch::Tokens;
use crate::pool;
use crate::tokenize::Text;

/// Tokens that one `/embed_all` may ask for: each gives a whole vector, 13 MB in all at 384
/// dimensions and some 80 MB as JSON.
const EMBED_ALL_TOKENS_MAX: usize = 8192;

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

pub(in crate::api) async fn embed(
    service: &Service,
    request: Request,
) -> Result<Response, Problem> {
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

pub(in crate::api) async fn embed_all(
    service: &Service,
    request: Request,
) -> Result<Response, Problem> {
    let request: EmbedRequest = json::read(request.body).await?;
    counted(service, async {
        let rows = rows_of(service, request).await?;
        let tokens: usize = rows.iter().map(|row| row.ids.len()).sum();
        if tokens > EMBED_ALL_TOKENS_MAX {
            return Err(Problem::TooLong(format!(
                "the inputs have {tokens} tokens together, at most {EMBED_ALL_TOKENS_MAX} are \
                 allowed where each gives a vector"
            )));
        }
        json::write(&service.model().embed_tokens(rows).await?)
    })
    .await
}

pub(in crate::api) async fn similarity(
    service: &Service,
    request: Request,
) -> Result<Response, Problem> {
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

async fn rows_of(service: &Service, request: EmbedRequest) -> Result<Vec<Tokens>, Problem> {
    no_prompt(request.prompt_name.as_deref())?;
    let cut = service.cut(
        request.truncate,
        request.truncation_direction == Direction::Left,
    );
    encode_inputs(service, request.inputs, cut, "inputs").await
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
