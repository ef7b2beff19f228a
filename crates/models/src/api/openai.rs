//! OpenAI's embeddings and models.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mobula_app::{Request, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::service::{ModelCard, Service, counted};
use super::tei::{Inputs, check_dimensions, encode_inputs, shorten};
use super::{Problem, json};

#[derive(Debug, Deserialize)]
struct EmbeddingsRequest {
    input: Inputs,
    model: Option<String>,
    #[serde(default)]
    encoding_format: EncodingFormat,
    dimensions: Option<usize>,
    /// Not OpenAI's: text-embeddings-inference's wish to cut long texts.
    truncate: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum EncodingFormat {
    #[default]
    Float,
    Base64,
}

#[derive(Debug, Serialize)]
struct EmbeddingsResponse<'a> {
    object: &'static str,
    data: Vec<Embedding>,
    model: &'a str,
    usage: Usage,
}

#[derive(Debug, Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Values,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Values {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Debug, Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

pub(super) async fn embeddings(service: &Service, request: Request) -> Result<Response, Problem> {
    let request: EmbeddingsRequest = json::read(request.body).await?;
    service.check_model(request.model.as_deref())?;
    let dimensions = check_dimensions(service, request.dimensions)?;
    if matches!(&request.input, Inputs::Text(text) if text.is_empty()) {
        return Err(Problem::Empty("input"));
    }
    counted(service, async {
        let cut = service.cut(request.truncate, false);
        let rows = encode_inputs(service, request.input, cut, "input").await?;
        let tokens = rows.iter().map(|row| row.ids.len()).sum();
        let mut vectors = service.model().embed(rows, true).await?;
        shorten(&mut vectors, dimensions, true);
        let data = vectors
            .into_iter()
            .enumerate()
            .map(|(index, vector)| Embedding {
                object: "embedding",
                index,
                embedding: match request.encoding_format {
                    EncodingFormat::Float => Values::Float(vector),
                    EncodingFormat::Base64 => Values::Base64(packed(&vector)),
                },
            })
            .collect();
        json::write(&EmbeddingsResponse {
            object: "list",
            data,
            model: &service.model().facts().name,
            usage: Usage {
                prompt_tokens: tokens,
                total_tokens: tokens,
            },
        })
    })
    .await
}

/// Little-endian floats in base64.
fn packed(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    STANDARD.encode(bytes)
}

pub(super) fn models(service: &Service, id: Option<&str>) -> Result<Response, Problem> {
    let own = &service.model().facts().name;
    let names = std::iter::once(own).chain(&service.options().siblings);
    let cards = names.map(|name| ModelCard {
        id: name.clone(),
        created: service.model().facts().created,
    });
    let shown = |card: ModelCard| json!({"id": card.id, "object": "model", "created": card.created, "owned_by": "mobula"});
    let mut cards: Vec<ModelCard> = cards.collect();
    match id {
        None => {
            let data: Vec<_> = cards.into_iter().map(shown).collect();
            json::write(&json!({"object": "list", "data": data}))
        }
        Some(id) => {
            // Clients send a name's slash encoded or as it is.
            let id = id.replace("%2F", "/").replace("%2f", "/");
            let found = cards.iter().position(|card| card.id == id);
            let Some(found) = found else {
                let known: Vec<String> = cards.into_iter().map(|card| card.id).collect();
                return Err(Problem::UnknownModel {
                    name: id,
                    known: known.join(", "),
                });
            };
            json::write(&shown(cards.swap_remove(found)))
        }
    }
}
