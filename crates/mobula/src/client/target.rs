//! The admin API that a command speaks to, how to believe it, and the token that it wants.
//!
//! Token and authorities are found where Ray's own command line finds them, so that a shell that
//! is set up for one is set up for the other.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use mobula_process::client_tls::{ClientFiles, Trust};
use mobula_process::follow::{Current, Files};
use mobula_process::token::Token;

use crate::args::AddressArgs;

/// Where requests go, and what they show.
#[derive(Clone)]
pub struct Target {
    pub address: String,
    pub token: Option<Token>,
    /// For an address of https.
    pub trust: Option<Trust>,
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
            trust: trust(args)?,
        })
    }
}

/// Ray's clients are Python's `requests`, which knows the variable.
fn trust(args: &AddressArgs) -> Result<Option<Trust>> {
    if !args.address.starts_with("https://") {
        return Ok(None);
    }
    let (ca_flag, ca) = authorities(args.ca_file.as_deref(), |name| std::env::var(name).ok());
    let files = ClientFiles {
        ca_flag,
        ca,
        identity: None,
        protocols: &[],
    };
    let tls = ClientFiles::make(&files.read()?)?;
    Ok(Some(Current::fixed(tls).trust()))
}

/// Where the authorities are, and what says so; none: those that the system believes.
fn authorities(
    flag: Option<&Path>,
    env: impl Fn(&str) -> Option<String>,
) -> (&'static str, Option<PathBuf>) {
    const FLAG: &str = "--ca-file";
    const VARIABLE: &str = "REQUESTS_CA_BUNDLE";
    let variable = || env(VARIABLE).filter(|path| !path.trim().is_empty());
    match flag {
        Some(path) => (FLAG, Some(path.to_owned())),
        None => match variable() {
            Some(path) => (VARIABLE, Some(path.into())),
            None => (FLAG, None),
        },
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
    fn authorities_are_found_where_rays_clients_look_for_them_unless_the_flag_says_otherwise() {
        let variable = |value: &'static str| {
            move |name: &str| (name == "REQUESTS_CA_BUNDLE").then(|| value.to_owned())
        };
        let found = authorities(Some(Path::new("/flag")), variable("/variable"));
        assert_eq!(found, ("--ca-file", Some("/flag".into())));
        let found = authorities(None, variable("/variable"));
        assert_eq!(found, ("REQUESTS_CA_BUNDLE", Some("/variable".into())));
        assert_eq!(authorities(None, variable("")), ("--ca-file", None));
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
