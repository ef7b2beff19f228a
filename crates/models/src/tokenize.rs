//! Text to token ids. The tokenizer library is named in this file alone.
//!
//! The library reads only its own canonical files, so an older `tokenizer.json` is rewritten in
//! memory first. Padding and truncation that a file may ask for are not used: batches are padded
//! by the engine, and whether a long text is cut is the request's choice.

use std::path::Path;

use tokenizers::pipeline::{EncodeOptions, Input, Inputs, Override, PipelineTokenizer};
use tokenizers::{TruncationDirection, TruncationParams, TruncationStrategy};

use crate::ModelError;
use crate::batch::Tokens;

/// Turns text into tokens. Cheap to clone, used from any thread.
#[derive(Clone)]
pub struct Tokenizer {
    inner: PipelineTokenizer,
    /// The longest input the model takes.
    tokens_max: usize,
}

/// One text, or two that the model reads side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// A single text.
    One(String),
    /// A pair: query and document.
    Pair(String, String),
}

/// A token as `/tokenize` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenText {
    /// Vocabulary id.
    pub id: u32,
    /// As the vocabulary writes it.
    pub text: String,
    /// Whether the tokenizer added it.
    pub special: bool,
}

// === impl Tokenizer ===

impl Tokenizer {
    /// Loads a `tokenizer.json`, canonical or older.
    pub fn load(path: &Path, tokens_max: usize) -> Result<Tokenizer, ModelError> {
        let bad = |reason: String| ModelError::BadFile {
            path: path.to_owned(),
            reason,
        };
        let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
        let canonical = tokenizers::canonicalize_str(&text).map_err(|e| bad(e.to_string()))?;
        let inner = tokenizers::from_json(&canonical).map_err(|e| bad(e.to_string()))?;
        Ok(Tokenizer { inner, tokens_max })
    }

    /// The longest input in tokens, special tokens included.
    pub fn tokens_max(&self) -> usize {
        self.tokens_max
    }

    /// The id that fills short rows.
    pub fn pad_id(&self) -> u32 {
        self.inner.get_padding().map_or(0, |padding| padding.pad_id)
    }

    /// Encodes one text. A text that is too long is cut if `truncate`, else refused.
    pub fn encode(&self, text: &Text, truncate: bool) -> Result<Tokens, ModelError> {
        let tokens = self.encode_with(text, truncate, true)?;
        if tokens.ids.len() > self.tokens_max {
            return Err(ModelError::Input(format!(
                "the input has {} tokens, at most {} are allowed; set truncate to cut it",
                tokens.ids.len(),
                self.tokens_max
            )));
        }
        Ok(tokens)
    }

    /// Encodes a text of any length and shows its tokens.
    pub fn tokenize(&self, text: &str, specials: bool) -> Result<Vec<TokenText>, ModelError> {
        let text = Text::One(text.to_owned());
        let tokens = self.encode_with(&text, false, specials)?;
        let bare = if specials {
            self.encode_with(&text, false, false)?
        } else {
            tokens.clone()
        };
        // Special tokens stand before and behind the text's own.
        let before = tokens
            .ids
            .windows(bare.ids.len().max(1))
            .position(|window| window == bare.ids)
            .unwrap_or(0);
        let own = before..before + bare.ids.len();
        let show = |(at, &id): (usize, &u32)| TokenText {
            id,
            text: self.token(id),
            special: !own.contains(&at),
        };
        Ok(tokens.ids.iter().enumerate().map(show).collect())
    }

    /// Text of token ids.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, ModelError> {
        self.inner
            .decode(ids, skip_special)
            .map_err(|error| ModelError::Input(error.to_string()))
    }

    /// Whether the vocabulary has such an id.
    pub fn knows(&self, id: u32) -> bool {
        !self.inner.decode_tokens(&[id], false).is_empty()
    }

    fn token(&self, id: u32) -> String {
        let mut tokens = self.inner.decode_tokens(&[id], false);
        tokens.pop().unwrap_or_default()
    }

    fn encode_with(
        &self,
        text: &Text,
        truncate: bool,
        specials: bool,
    ) -> Result<Tokens, ModelError> {
        let truncation = if truncate {
            Override::With(TruncationParams {
                direction: TruncationDirection::Right,
                max_length: self.tokens_max,
                strategy: TruncationStrategy::LongestFirst,
                stride: 0,
            })
        } else {
            Override::Off
        };
        let options = EncodeOptions {
            add_special_tokens: specials,
            // As everybody else: a text that spells out [SEP] gets that token.
            encode_special_tokens: false,
            padding: Override::Off,
            truncation,
        };
        let input = match text {
            Text::One(text) => Input::Single(text.clone()),
            Text::Pair(first, second) => Input::Pair(first.clone(), second.clone()),
        };
        let encodings = self.inner.encode(Inputs::Single(input), &options).wait();
        let encoding = encodings
            .map_err(|error| ModelError::Input(format!("tokenization failed: {error}")))?
            .pop()
            .ok_or_else(|| ModelError::Engine("the tokenizer gave nothing".to_owned()))?;
        Ok(Tokens {
            ids: encoding.ids().iter().map(|token| token.id()).collect(),
            types: encoding.type_ids().map(<[u8]>::to_vec).unwrap_or_default(),
        })
    }
}
