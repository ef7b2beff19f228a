//! What several requests share: the forms of input, and their tokens.

use serde::Deserialize;

use super::super::Problem;
use super::super::service::Service;
use crate::batch::Tokens;
use crate::tokenize::{Cut, Text};

/// One input or many; each a text or token ids.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a string, a list of strings, a list of token ids or a list of such lists"
)]
pub(in crate::api) enum Inputs {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    IdLists(Vec<Vec<u32>>),
}

/// One text or many.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub(in crate::api) enum TextInputs {
    One(String),
    Many(Vec<String>),
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Direction {
    #[serde(alias = "Left")]
    Left,
    #[default]
    #[serde(alias = "Right")]
    Right,
}

// === impl TextInputs ===

impl TextInputs {
    pub(in crate::api) fn into_texts(self) -> Vec<String> {
        match self {
            TextInputs::One(text) => vec![text],
            TextInputs::Many(texts) => texts,
        }
    }
}

/// Tokens of texts, or of ids that the caller made itself.
pub(in crate::api) async fn encode_inputs(
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

pub(super) fn no_prompt(name: Option<&str>) -> Result<(), Problem> {
    match name {
        None => Ok(()),
        Some(_) => Err(Problem::value(
            "prompt_name",
            "this model has no prompts; leave it out",
        )),
    }
}
