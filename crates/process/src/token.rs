//! A secret that whoever wants in has to know: read from a file, compared in constant time,
//! never shown.
//!
//! Not here: who asks for it. `access` does between our own processes, the admin API does of its
//! clients.

use std::fmt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;

/// Shorter ones can be guessed: 16 random bytes cannot.
pub const TOKEN_BYTES_MIN: usize = 16;
/// Longer ones would not fit into the headers that servers accept.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// How a token is announced in a header.
const SCHEME: &str = "Bearer ";

/// The secret. Its text leaves this type only in [`Token::bearer`].
#[derive(Clone)]
pub struct Token {
    text: String,
    digest: [u8; 32],
}

/// A file or text that holds no usable token. Says nothing of what it holds.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("token file {path}: {cause}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Too short, too long.
    #[error("a token has {least} to {TOKEN_BYTES_MAX} bytes, this one has {has}")]
    Length {
        /// The fewest that are allowed.
        least: usize,
        /// How many there are.
        has: usize,
    },
    /// Holds what a header cannot.
    #[error("a token is one word of printable ASCII characters")]
    Characters,
}

// === impl Token ===

impl Token {
    /// Reads the one token of a file. White space around it, such as the newline at the end of
    /// a file, does not belong to it.
    ///
    /// # Errors
    /// When the file cannot be read or holds no usable token.
    pub fn read(path: &Path) -> Result<Token, TokenError> {
        let text = std::fs::read_to_string(path).map_err(|cause| TokenError::File {
            path: path.to_owned(),
            cause,
        })?;
        Token::new(&text)
    }

    /// The token that `text` holds.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(text: &str) -> Result<Token, TokenError> {
        Token::of_length(text, TOKEN_BYTES_MIN)
    }

    /// A token for somebody else's door: how short it may be is for them to say.
    ///
    /// # Errors
    /// When it fits no header.
    pub fn to_show(text: &str) -> Result<Token, TokenError> {
        Token::of_length(text, 1)
    }

    fn of_length(text: &str, least: usize) -> Result<Token, TokenError> {
        let text = text.trim();
        if !(least..=TOKEN_BYTES_MAX).contains(&text.len()) {
            let has = text.len();
            return Err(TokenError::Length { least, has });
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Characters);
        }
        Ok(Token {
            text: text.to_owned(),
            digest: digest(text.as_bytes()),
        })
    }

    /// The value of an `authorization` header.
    pub fn bearer(&self) -> String {
        format!("{SCHEME}{}", self.text)
    }

    /// Whether `offered` is this token. Takes the same time wherever they differ: digests are
    /// compared, so not even the length shows.
    pub fn is(&self, offered: &[u8]) -> bool {
        self.digest.ct_eq(&digest(offered)).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// What an `authorization` header offers; None when it is of another kind. The scheme's letters
/// may be of either case.
pub fn offered(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(SCHEME.len())?;
    scheme
        .eq_ignore_ascii_case(SCHEME.as_bytes())
        .then_some(token.trim_ascii())
}

fn digest(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "0123456789abcdef";

    #[test]
    fn white_space_around_the_token_does_not_belong_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, format!(" {GOOD}\n\n")).unwrap();
        let token = Token::read(&path).unwrap();
        assert!(token.is(GOOD.as_bytes()));
        assert_eq!(token.bearer(), format!("Bearer {GOOD}"));
    }

    #[test]
    fn what_could_be_guessed_or_does_not_fit_a_header_is_refused_without_being_shown() {
        for text in [
            "",
            "   \n",
            "0123456789abcde",
            &"a".repeat(TOKEN_BYTES_MAX + 1),
            "two words 0123456789",
            "one-line-0123456\nand-another",
            "schlüssel-0123456789",
        ] {
            let error = Token::new(text).unwrap_err();
            assert!(
                text.trim().is_empty() || !error.to_string().contains(text.trim()),
                "{error}"
            );
        }
        let error = Token::read(Path::new("/no/such/file")).unwrap_err();
        assert!(error.to_string().contains("/no/such/file"), "{error}");
    }

    #[test]
    fn a_token_for_somebody_elses_door_may_be_short_but_not_empty() {
        assert!(Token::to_show("short").unwrap().is(b"short"));
        assert!(Token::to_show("\n").is_err());
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = Token::new(GOOD).unwrap();
        for wrong in [
            "",
            "0123456789abcde",
            "0123456789abcdeF",
            "0123456789abcdef0",
        ] {
            assert!(!token.is(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_not_shown_by_debug() {
        let shown = format!("{:?}", Token::new(GOOD).unwrap());
        assert!(!shown.contains(GOOD), "{shown}");
    }

    #[test]
    fn a_header_offers_a_token_only_under_its_scheme() {
        assert_eq!(offered(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(offered(b"bearer  abc "), Some(&b"abc"[..]));
        assert_eq!(offered(b"Basic abc"), None);
        assert_eq!(offered(b"abc"), None);
        assert_eq!(offered(b""), None);
    }
}
