//! Text to token ids. The tokenizer library is named in this file alone.
//!
//! The library reads only its own canonical files, so an older `tokenizer.json` is rewritten in
//! memory first. Padding and truncation that a file may ask for are not used: batches are padded
//! by the engine, and whether a long text is cut is the request's choice.

use std::ops::Range;
use std::path::Path;

use tokenizers::pipeline::{
    EncodeOptions, Input, Inputs, Override, PipelineTokenizer, normalize_all,
};
use tokenizers::{TruncationDirection, TruncationParams, TruncationStrategy};

use crate::ModelError;
use crate::batch::Tokens;
use crate::offsets;

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

/// Whether a text that is too long is cut, and at which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It is refused.
    Never,
    /// Its end goes.
    End,
    /// Its beginning goes.
    Beginning,
}

/// A token as `/tokenize` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenText {
    /// Vocabulary id.
    pub id: u32,
    /// The piece of the text, or the vocabulary's word where it has no place in it.
    pub text: String,
    /// Whether it is one of the tokenizer's own marks.
    pub special: bool,
    /// Its bytes in the text.
    pub place: Option<Range<usize>>,
}

// === impl Text ===

impl Text {
    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Text::One(text) => text.len(),
            Text::Pair(first, second) => first.len() + second.len(),
        }
    }
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

    /// Encodes one text. A text that is too long is cut, or refused.
    pub fn encode(&self, text: &Text, cut: Cut) -> Result<Tokens, ModelError> {
        let tokens = self.encode_with(text, cut, true)?;
        self.check_length(tokens.ids.len())?;
        Ok(tokens)
    }

    /// Makes tokens of ids that the caller has from this vocabulary. The marks that open and close
    /// a text are added where they are missing.
    pub fn encode_ids(&self, ids: &[u32], cut: Cut) -> Result<Tokens, ModelError> {
        if let Some(unknown) = ids.iter().find(|&&id| !self.knows(id)) {
            return Err(ModelError::Input(format!(
                "the vocabulary has no token id {unknown}"
            )));
        }
        let frame = self
            .encode_with(&Text::One(String::new()), Cut::Never, true)?
            .ids;
        let (open, close) = match frame.as_slice() {
            [open, close] => (Some(*open), Some(*close)),
            _ => (None, None),
        };
        let framed = open.is_none() || ids.first().copied() == open;
        let (open, close) = if framed { (None, None) } else { (open, close) };
        let around = usize::from(open.is_some()) + usize::from(close.is_some());
        let room = self.tokens_max.saturating_sub(around);
        let kept = match cut {
            Cut::Never => ids,
            Cut::End => &ids[..ids.len().min(room)],
            Cut::Beginning => &ids[ids.len() - ids.len().min(room)..],
        };
        self.check_length(kept.len() + around)?;
        let ids = open.into_iter().chain(kept.iter().copied()).chain(close);
        Ok(Tokens {
            ids: ids.collect(),
            types: Vec::new(),
        })
    }

    fn check_length(&self, tokens: usize) -> Result<(), ModelError> {
        if tokens <= self.tokens_max {
            return Ok(());
        }
        Err(ModelError::TooLong {
            tokens,
            tokens_max: self.tokens_max,
        })
    }

    /// Encodes a text of any length and shows its tokens.
    pub fn tokenize(&self, text: &str, specials: bool) -> Result<Vec<TokenText>, ModelError> {
        let tokens = self.encode_with(&Text::One(text.to_owned()), Cut::Never, specials)?;
        let words: Vec<(u32, String, bool)> = tokens
            .ids
            .iter()
            .map(|&id| {
                let word = self.token(id);
                let special = self.inner.get_added_vocabulary().is_special_token(&word);
                (id, word, special)
            })
            .collect();
        let surfaces: Vec<String> = words
            .iter()
            .map(|(id, word, special)| {
                if *special {
                    String::new()
                } else {
                    self.surface(*id, word)
                }
            })
            .collect();
        let places = offsets::align(text, &surfaces, |piece| self.normalize(piece));
        let shown = words
            .into_iter()
            .zip(places)
            .map(|((id, word, special), place)| TokenText {
                id,
                text: place.clone().map_or(word, |place| text[place].to_owned()),
                special,
                place,
            });
        Ok(shown.collect())
    }

    /// A token's characters in the normalized text, without marks of continuation.
    fn surface(&self, id: u32, word: &str) -> String {
        if let Some(rest) = word.strip_prefix("##") {
            return rest.to_owned();
        }
        let decoded = self.inner.decode(&[id], false);
        let visible = |text: String| text.chars().filter(|char| !char.is_whitespace()).collect();
        decoded.map_or_else(|_| word.to_owned(), visible)
    }

    fn normalize(&self, piece: &str) -> String {
        normalize_all(self.inner.get_normalizers(), piece, 0)
            .map_or_else(|_| piece.to_owned(), |text| text.into_owned())
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

    fn encode_with(&self, text: &Text, cut: Cut, specials: bool) -> Result<Tokens, ModelError> {
        let to_length = |direction| {
            Override::With(TruncationParams {
                direction,
                max_length: self.tokens_max,
                strategy: TruncationStrategy::LongestFirst,
                stride: 0,
            })
        };
        let truncation = match cut {
            Cut::Never => Override::Off,
            Cut::End => to_length(TruncationDirection::Right),
            Cut::Beginning => to_length(TruncationDirection::Left),
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
