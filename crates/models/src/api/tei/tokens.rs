//! Tokens of texts and texts of tokens; the model's facts and health.

use mobula_app::{Body, Request, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::service::Service;
use super::super::{Problem, json};
use super::inputs::{TextInputs, no_prompt};
use crate::resolve::Task;
use crate::tokenize::TokenText;

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

pub(in crate::api) async fn tokenize(
    service: &Service,
    request: Request,
) -> Result<Response, Problem> {
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
    let shown = |row: Vec<TokenText>| -> Vec<SimpleToken> {
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

pub(in crate::api) async fn decode(
    service: &Service,
    request: Request,
) -> Result<Response, Problem> {
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

pub(in crate::api) fn info(service: &Service) -> Result<Response, Problem> {
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

pub(in crate::api) fn health(service: &Service) -> Result<Response, Problem> {
    service.check_alive()?;
    let mut response = Response::text("");
    response.body = Body::empty();
    Ok(response)
}
