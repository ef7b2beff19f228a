//! text-embeddings-inference's API.

mod embed;
mod inputs;
mod rank;
mod tokens;

pub(crate) use embed::{check_dimensions, shorten};
pub(super) use embed::{embed, embed_all, similarity};
pub(super) use inputs::{Inputs, TextInputs, encode_inputs};
pub(super) use rank::{predict, rerank};
pub(super) use tokens::{decode, health, info, tokenize};
