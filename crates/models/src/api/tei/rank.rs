//! Scores of texts for a query, and labels of texts.

use mobula_app::{Request, Response};
use serde::{Deserialize, Serialize};

use super::super::service::{Service, counted};
use super::super::{Problem, json};
use super::inputs::Direction;
use crate::pool;
use crate::tokenize::Text;

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

pub(in crate::api) async fn rerank(
    service: &Service,
    request: Request,
) -> Result<Response, Problem> {
    let request: RerankRequest = json::read(request.body).await?;
    service.check_rows("texts", request.texts.len())?;
    if request.query.is_empty() {
        return Err(Problem::Empty("query"));
    }
    counted(service, async {
        let from_left = request.truncation_direction == Direction::Left;
        let cut = service.cut(request.truncate, from_left);
        let pair = |text: &String| Text::Pair(request.query.clone(), text.clone());
        let rows = service
            .encode(request.texts.iter().map(pair).collect(), cut)
            .await?;
        let scores = service.model().score(rows).await?;
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

pub(in crate::api) async fn predict(
    service: &Service,
    request: Request,
) -> Result<Response, Problem> {
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
