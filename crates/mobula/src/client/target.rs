//! The admin API that a command speaks to, and the token that it wants.
//!
//! The token is found where Ray's own command line finds it, so that a shell that is set up for
//! one is set up for the other.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use mobula_process::token::Token;

use crate::args::AddressArgs;

/// Where requests go, and what they show.
#[derive(Clone)]
pub struct Target {
    pub address: String,
    pub token: Option<Token>,
}

/// Where a token is.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    Text(String),
    File(PathBuf),
    Nowhere,
}

impl Target {
    pub fn from_args(args: &AddressArgs) -> Result<Target> {
        let source = match &args.token_file {
            Some(path) => Source::File(path.clone()),
            None => source(|name| std::env::var(name).ok()),
        };
        let token = match source {
            Source::Text(text) => Some(Token::to_show(&text).context("RAY_AUTH_TOKEN")?),
            Source::File(path) => Some(read(&path)?),
            Source::Nowhere => None,
        };
        Ok(Target {
            address: args.address.clone(),
            token,
        })
    }
}

fn read(path: &Path) -> Result<Token> {
    let file = || format!("token file {}", path.display());
    let text = std::fs::read_to_string(path).with_context(file)?;
    Token::to_show(&text).with_context(file)
}

/// Ray's order: the variable, the file it names, and, where tokens are switched on, the file in
/// the home directory.
fn source(env: impl Fn(&str) -> Option<String>) -> Source {
    let set = |name: &str| env(name).filter(|value| !value.trim().is_empty());
    if let Some(text) = set("RAY_AUTH_TOKEN") {
        return Source::Text(text);
    }
    if let Some(path) = set("RAY_AUTH_TOKEN_PATH") {
        return Source::File(path.into());
    }
    let is_on = set("RAY_AUTH_MODE").is_some_and(|mode| mode.eq_ignore_ascii_case("token"));
    match set("HOME") {
        Some(home) if is_on => Source::File(PathBuf::from(home).join(".ray/auth_token")),
        _ => Source::Nowhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)]) -> Source {
        source(|name| {
            let of_name = variables.iter().find(|(key, _)| *key == name);
            of_name.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_token_is_found_where_ray_looks_for_it() {
        let home = ("HOME", "/home/u");
        let (text, path) = (("RAY_AUTH_TOKEN", "t"), ("RAY_AUTH_TOKEN_PATH", "/t"));
        assert_eq!(found(&[home, text, path]), Source::Text("t".to_owned()));
        assert_eq!(found(&[home, path]), Source::File("/t".into()));
        assert_eq!(found(&[home]), Source::Nowhere);
        assert_eq!(
            found(&[home, ("RAY_AUTH_MODE", "token"), ("RAY_AUTH_TOKEN", "")]),
            Source::File("/home/u/.ray/auth_token".into())
        );
        assert_eq!(
            found(&[home, ("RAY_AUTH_MODE", "disabled")]),
            Source::Nowhere
        );
    }
}
