//! A secret that whoever wants in has to know: read from a file, compared in constant time,
//! never shown.
//!
//! While one takes the place of another the file holds both, separated by white space: whoever
//! shows one that the other side knows comes in, and all are shown. So every process and client may
//! change over at its own time.
//!
//! Not here: who asks for it. `access` does between our own processes, the admin API does of its
//! clients.

use std::fmt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use thiserror::Error;

use crate::follow::Files;

/// Shorter ones can be guessed: 16 random bytes cannot.
pub const TOKEN_BYTES_MIN: usize = 16;
/// All of a file together: more would not fit into the headers that servers accept.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// Two are needed to replace one. Each one that is shown is compared with each that is known.
pub const TOKENS_MAX: usize = 4;

/// How a token is announced in a header.
const SCHEME: &str = "Bearer ";

/// The secret, or several while one replaces another. Their text leaves this type only in
/// [`Token::bearer`]. Equality tells that a file changed; who is let in is for [`Token::is`].
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Separated by single spaces.
    text: String,
    digests: Vec<[u8; 32]>,
}

/// Where a token is.
#[derive(Clone, Debug)]
pub struct TokenFile(pub PathBuf);

/// A file or text that holds no usable token. Says nothing of what it holds.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file cannot be read, or holds no usable token.
    #[error("token file {path}: {cause}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// Too short.
    #[error("a token has at least {least} bytes, this one has {has}")]
    Short {
        /// The fewest that are allowed.
        least: usize,
        /// How many there are.
        has: usize,
    },
    /// Too long.
    #[error("at most {TOKEN_BYTES_MAX} bytes are allowed, these are {0}")]
    Long(usize),
    /// None at all, or more than anybody needs.
    #[error("1 to {TOKENS_MAX} tokens separated by white space are allowed, these are {0}")]
    Count(usize),
    /// Holds what a header cannot.
    #[error("a token is made of printable ASCII characters")]
    Characters,
}

// === impl Token ===

impl Token {
    /// Reads the tokens of a file.
    ///
    /// # Errors
    /// When the file cannot be read or holds no usable token.
    pub fn read(path: &Path) -> Result<Token, TokenError> {
        let failed = |cause: String| TokenError::File {
            path: path.to_owned(),
            cause,
        };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        Token::new(&text).map_err(|error| failed(error.to_string()))
    }

    /// The tokens that `text` holds.
    ///
    /// # Errors
    /// When it holds none, too many, or one that cannot be used.
    pub fn new(text: &str) -> Result<Token, TokenError> {
        Token::of_length(text, TOKEN_BYTES_MIN)
    }

    /// Tokens for somebody else's door: how short they may be is for them to say.
    ///
    /// # Errors
    /// When they fit no header.
    pub fn to_show(text: &str) -> Result<Token, TokenError> {
        Token::of_length(text, 1)
    }

    fn of_length(text: &str, least: usize) -> Result<Token, TokenError> {
        let text = text.trim();
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Long(text.len()));
        }
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        if !(1..=TOKENS_MAX).contains(&words.len()) {
            return Err(TokenError::Count(words.len()));
        }
        if let Some(short) = words.iter().find(|word| word.len() < least) {
            let has = short.len();
            return Err(TokenError::Short { least, has });
        }
        if !words
            .iter()
            .all(|word| word.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(TokenError::Characters);
        }
        Ok(Token {
            text: words.join(" "),
            digests: words.iter().map(|word| digest(word.as_bytes())).collect(),
        })
    }

    /// The value of an `authorization` header.
    pub fn bearer(&self) -> String {
        format!("{SCHEME}{}", self.text)
    }

    /// Whether one of those that are offered is one of these. Takes the same time wherever they
    /// differ: digests are compared, so not even the length shows.
    pub fn is(&self, offered: &[u8]) -> bool {
        let offered = offered.split(u8::is_ascii_whitespace);
        let words = offered.filter(|word| !word.is_empty()).take(TOKENS_MAX);
        let mut found = Choice::from(0);
        for word in words {
            let word = digest(word);
            for known in &self.digests {
                found |= known.ct_eq(&word);
            }
        }
        found.into()
    }
}

impl Files for TokenFile {
    type Held = Token;
    type Made = Token;
    type Error = TokenError;

    fn read(&self) -> Result<Token, TokenError> {
        Token::read(&self.0)
    }

    fn make(held: &Token) -> Result<Token, TokenError> {
        Ok(held.clone())
    }

    fn expires_at(_made: &Token) -> Option<u64> {
        None
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// What an `authorization` header offers, one token or several; None when it is of another kind. The scheme's letters
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
        let many = [GOOD; TOKENS_MAX + 1].join(" ");
        for (text, why) in [
            ("", "1 to 4 tokens"),
            ("   \n", "1 to 4 tokens"),
            (
                &many,
                "1 to 4 tokens separated by white space are allowed, these are 5",
            ),
            ("0123456789abcde", "at least 16 bytes, this one has 15"),
            (
                "0123456789abcdef\nshort",
                "at least 16 bytes, this one has 5",
            ),
            (&"a".repeat(TOKEN_BYTES_MAX + 1), "at most 4096 bytes"),
            ("schlüssel-0123456789", "printable ASCII"),
        ] {
            let error = Token::new(text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            for word in text.split_whitespace() {
                assert!(!error.contains(word), "{error}");
            }
        }
        for (path, why) in [
            ("/no/such/file", "No such file"),
            ("/dev/null", "1 to 4 tokens"),
        ] {
            let error = Token::read(Path::new(path)).unwrap_err().to_string();
            assert!(error.contains(path) && error.contains(why), "{error}");
        }
    }

    #[test]
    fn while_a_token_is_replaced_whoever_knows_one_of_both_comes_in_on_either_side() {
        let (old, new) = ("an-old-token-0123", "a-new-token-01234");
        let before = Token::new(old).unwrap();
        let both = Token::new(&format!("{old}\n{new}\n")).unwrap();
        let after = Token::new(new).unwrap();
        let lets_in = |door: &Token, comes: &Token| {
            let header = comes.bearer();
            door.is(offered(header.as_bytes()).unwrap())
        };
        for (one, other, expected) in [
            (&before, &both, true),
            (&both, &both, true),
            (&both, &after, true),
            (&before, &after, false),
        ] {
            assert_eq!(lets_in(one, other), expected);
            assert_eq!(lets_in(other, one), expected);
        }
    }

    #[test]
    fn no_more_tokens_are_looked_at_than_anybody_has() {
        let wrong = ["another-token-0123"; TOKENS_MAX].join(" ");
        assert!(
            !Token::new(GOOD)
                .unwrap()
                .is(format!("{wrong} {GOOD}").as_bytes())
        );
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
            "0123456 789abcdef",
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
