//! Where in the text a token came from. Pure.
//!
//! The tokenizer gives ids alone, so tokens are laid along the text again: each character is
//! normalized by itself, white space is skipped, and a token stands where its characters come
//! next. What cannot be laid (an unknown word) has no place, and the next token that can be is
//! looked for a little further on.

use std::ops::Range;

/// How far ahead the next token is looked for behind one that has no place, in characters.
const RESYNC_CHARS_MAX: usize = 128;

/// A character after normalization and the bytes of the text it came from.
struct Piece {
    char: char,
    bytes: Range<usize>,
}

/// The byte range of each token in `text`. `tokens` are the tokens' surface forms without marks
/// of continuation; an empty one has no place.
pub fn align(
    text: &str,
    tokens: &[String],
    normalize: impl Fn(&str) -> String,
) -> Vec<Option<Range<usize>>> {
    let mut pieces = Vec::new();
    for (start, char) in text.char_indices() {
        let bytes = start..start + char.len_utf8();
        let normalized = normalize(&text[bytes.clone()]);
        let visible = normalized.chars().filter(|char| !char.is_whitespace());
        pieces.extend(visible.map(|char| Piece {
            char,
            bytes: bytes.clone(),
        }));
    }
    let mut at = 0;
    let mut synced = true;
    let mut ranges = Vec::with_capacity(tokens.len());
    for token in tokens {
        let reach = if synced { 0 } else { RESYNC_CHARS_MAX };
        let found = (at..=at + reach).find(|&from| matches(&pieces, from, token));
        match found {
            Some(from) if !token.is_empty() => {
                at = from + token.chars().count();
                let bytes = pieces[from].bytes.start..pieces[at - 1].bytes.end;
                ranges.push(Some(bytes));
                synced = true;
            }
            Some(_) | None => {
                ranges.push(None);
                synced = false;
            }
        }
    }
    ranges
}

fn matches(pieces: &[Piece], from: usize, token: &str) -> bool {
    let mut rest = pieces.get(from..).unwrap_or(&[]).iter();
    token
        .chars()
        .all(|char| rest.next().is_some_and(|piece| piece.char == char))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn places(text: &str, tokens: &[&str]) -> Vec<Option<String>> {
        let tokens: Vec<String> = tokens.iter().map(|&token| token.to_owned()).collect();
        let ranges = align(text, &tokens, str::to_lowercase);
        ranges
            .into_iter()
            .map(|range| range.map(|range| text[range].to_owned()))
            .collect()
    }

    #[test]
    fn tokens_find_their_place_through_case_and_white_space() {
        let found = places("Hello,  WORLD", &["hell", "o", ",", "world"]);
        let expected = ["Hell", "o", ",", "WORLD"].map(|text| Some(text.to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn an_unknown_word_has_no_place_and_the_next_token_is_found_again() {
        let found = places("a ☃☃ b", &["a", "[UNK]", "b"]);
        assert_eq!(found, [Some("a".to_owned()), None, Some("b".to_owned())]);
    }

    proptest! {
        #[test]
        fn every_place_lies_in_the_text_on_character_boundaries(
            text in "\\PC{0,60}",
            tokens in proptest::collection::vec("\\PC{0,4}", 0..20),
        ) {
            for range in align(&text, &tokens, str::to_lowercase).into_iter().flatten() {
                prop_assert!(text.get(range).is_some());
            }
        }
    }
}
