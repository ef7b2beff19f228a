//! The plain `/infer`: `{"inputs": ["a", "b"]}` to the best label and its score for each.

use mobula_app::{Request, Response};
use serde::{Deserialize, Serialize};

use super::service::{Service, counted};
use super::tei::TextInputs;
use super::{Problem, json};
use crate::tokenize::Text;

#[derive(Debug, Deserialize)]
struct InferRequest {
    inputs: TextInputs,
    truncate: Option<bool>,
}

#[derive(Debug, Serialize)]
struct Inferred {
    label: String,
    score: f32,
}

pub(super) async fn infer(service: &Service, request: Request) -> Result<Response, Problem> {
    let request: InferRequest = json::read(request.body).await?;
    let texts = request.inputs.into_texts();
    service.check_rows("inputs", texts.len())?;
    counted(service, async {
        let texts = texts.into_iter().map(Text::One).collect();
        let rows = service
            .encode(texts, service.cut(request.truncate, false))
            .await?;
        let labels = service.model().classify(rows, false).await?;
        let best = labels.into_iter().filter_map(|row| row.into_iter().next());
        let answer: Vec<Inferred> = best
            .map(|label| Inferred {
                label: label.name,
                score: label.score,
            })
            .collect();
        json::write(&answer)
    })
    .await
}
