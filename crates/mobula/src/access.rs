//! What the command line says about who may come: the join token and certificates of a cluster,
//! the token of the admin API.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use mobula_process::access::Credentials;
use mobula_process::net::Addr;
use mobula_process::tls::Tls;
use mobula_process::token::Token;

use crate::args::{AccessArgs, AdminTokenArgs};

/// The credentials of a role, if the addresses that it uses may be used with them.
pub fn credentials(args: &AccessArgs, addrs: &[(&'static str, &Addr)]) -> Result<Credentials> {
    let token = args.join_token_file.as_deref().map(Token::read);
    let token = token.transpose().context("--join-token-file")?;
    let tls = match (&args.tls_cert, &args.tls_key, &args.tls_ca) {
        (Some(cert), Some(key), Some(ca)) => Some(Tls::read(cert, key, ca).context("--tls-*")?),
        // The command line takes all three or none.
        _ => None,
    };
    let credentials = Credentials::new(token, tls);
    if !args.insecure {
        for (what, addr) in addrs {
            credentials.allow(what, addr)?;
        }
    }
    Ok(credentials)
}

/// The token of the admin API.
pub fn admin_token(args: &AdminTokenArgs, addr: SocketAddr) -> Result<Option<Token>> {
    let token = args.admin_token_file.as_deref().map(Token::read);
    let token = token.transpose().context("--admin-token-file")?;
    if token.is_none() && !addr.ip().is_loopback() {
        tracing::warn!(%addr, "everybody who reaches the admin API may deploy; see --admin-token-file");
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_the_network_wants_a_token_or_an_explicit_yes() {
        let mut args = AccessArgs {
            join_token_file: None,
            tls_cert: None,
            tls_key: None,
            tls_ca: None,
            insecure: false,
        };
        let addr: Addr = "0.0.0.0:6380".parse().unwrap();
        let addrs = [("--cluster-addr", &addr)];
        let refusal = credentials(&args, &addrs).err().unwrap().to_string();
        assert!(refusal.contains("--cluster-addr 0.0.0.0:6380"), "{refusal}");
        args.insecure = true;
        assert!(credentials(&args, &addrs).is_ok());
        args.insecure = false;
        let file = tempfile::NamedTempFile::new().unwrap();
        args.join_token_file = Some(file.path().to_owned());
        let refusal = credentials(&args, &addrs).err().unwrap();
        assert!(
            format!("{refusal:#}").contains("--join-token-file: a token has 16"),
            "{refusal:#}"
        );
        std::fs::write(file.path(), "0123456789abcdef\n").unwrap();
        assert!(credentials(&args, &addrs).is_ok());
    }
}
