//! Cohere's rerank, in both versions, and Jina's, which is the first with a usage count.

use mobula_app::{Request, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::service::{Service, counted};
use super::{Problem, json};
use crate::pool;

/// Fields of a document that are read where the request does not name them.
const RANK_FIELD_DEFAULT: &str = "text";

/// Of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

#[derive(Debug, Deserialize)]
struct RerankRequest {
    model: Option<String>,
    query: String,
    documents: Vec<Document>,
    top_n: Option<i64>,
    rank_fields: Option<Vec<String>>,
    #[serde(default)]
    return_documents: Option<bool>,
    /// Not Cohere's: false refuses documents that are too long instead of cutting them.
    truncate: Option<bool>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(
    untagged,
    expecting = "expected a document to be a string or an object"
)]
enum Document {
    Text(String),
    Fields(Map<String, Value>),
}

#[derive(Debug, Serialize)]
struct RankedDocument {
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Value>,
}

pub(super) async fn rerank(
    service: &Service,
    request: Request,
    version: Version,
) -> Result<Response, Problem> {
    let id = request.context.request_id.clone();
    let request: RerankRequest = json::read(request.body).await?;
    service.check_model(request.model.as_deref())?;
    service.check_rows("documents", request.documents.len())?;
    if request.query.is_empty() {
        return Err(Problem::Empty("query"));
    }
    let top_n = check_top_n(request.top_n, request.documents.len())?;
    counted(service, async {
        let fields = request.rank_fields.as_deref();
        let texts = request
            .documents
            .iter()
            .map(|document| document.text(fields))
            .collect::<Result<Vec<_>, _>>()?;
        // Cohere cuts documents that are too long; so does this, unless told not to.
        let cut = service.cut(request.truncate.or(Some(true)), false);
        let pair = |text: &String| crate::tokenize::Text::Pair(request.query.clone(), text.clone());
        let rows = service
            .encode(texts.iter().map(pair).collect(), cut)
            .await?;
        let tokens: usize = rows.iter().map(|row| row.ids.len()).sum();
        let scores = service.model().score(rows).await?;
        let mut results: Vec<RankedDocument> = scores
            .into_iter()
            .enumerate()
            .map(|(index, score)| RankedDocument {
                index,
                relevance_score: pool::sigmoid(score),
                document: None,
            })
            .collect();
        results.sort_by(|a, b| b.relevance_score.total_cmp(&a.relevance_score));
        results.truncate(top_n);
        if request.return_documents == Some(true) {
            for result in &mut results {
                let document = request.documents.get(result.index);
                result.document = document.map(Document::shown);
            }
        }
        json::write(&shown(version, &id, service, &results, tokens))
    })
    .await
}

fn shown(
    version: Version,
    id: &str,
    service: &Service,
    results: &[RankedDocument],
    tokens: usize,
) -> Value {
    let number = match version {
        Version::V1 => "1",
        Version::V2 => "2",
    };
    json!({
        "id": id,
        "model": service.model().facts().name,
        "results": results,
        "meta": {
            "api_version": {"version": number},
            "billed_units": {"search_units": 1},
        },
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    })
}

fn check_top_n(top_n: Option<i64>, documents: usize) -> Result<usize, Problem> {
    match top_n {
        None => Ok(documents),
        Some(top_n) if top_n >= 1 => Ok(usize::try_from(top_n).unwrap_or(documents)),
        Some(top_n) => Err(Problem::value(
            "top_n",
            format!("{top_n} is not at least 1"),
        )),
    }
}

// === impl Document ===

impl Document {
    /// What is ranked: the text, or the named fields one below the other.
    fn text(&self, rank_fields: Option<&[String]>) -> Result<String, Problem> {
        let fields = match self {
            Document::Text(text) => return Ok(text.clone()),
            Document::Fields(fields) => fields,
        };
        let own = [RANK_FIELD_DEFAULT.to_owned()];
        let names = rank_fields
            .filter(|names| !names.is_empty())
            .unwrap_or(&own);
        let found: Vec<String> = names
            .iter()
            .filter_map(|name| fields.get(name))
            .map(|value| {
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned)
            })
            .collect();
        if found.is_empty() {
            let text = format!("a document has none of the fields {}", names.join(", "));
            return Err(Problem::value("documents", text));
        }
        Ok(found.join("\n"))
    }

    fn shown(&self) -> Value {
        match self {
            Document::Text(text) => json!({"text": text}),
            Document::Fields(fields) => Value::Object(fields.clone()),
        }
    }
}
