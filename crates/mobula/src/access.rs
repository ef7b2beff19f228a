//! What the command line says about who may come: the join token and certificates of a cluster,
//! the token of the admin API.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use mobula_process::access::Credentials;
use mobula_process::client_tls::{ClientFiles, Trust};
use mobula_process::follow::{Credential, Current, Files, Followed};
use mobula_process::https::{ADMIN, Https, HttpsFiles};
use mobula_process::net::Addr;
use mobula_process::tls::TlsFiles;
use mobula_process::token::{Token, TokenFile};
use tokio::task::JoinSet;

use crate::args::EtcdArgs;

/// Who may use the admin API, and what they see of it on the way.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// File with the token that clients of the admin API must send, or several of which they
    /// send one; without it, everybody may who reaches --admin-addr
    #[arg(long)]
    pub admin_token_file: Option<PathBuf>,
    /// PEM file with the certificate of the admin API, which then speaks https
    #[arg(long, requires = "admin_tls_key")]
    pub admin_tls_cert: Option<PathBuf>,
    /// PEM file with the key of --admin-tls-cert
    #[arg(long, requires = "admin_tls_cert")]
    pub admin_tls_key: Option<PathBuf>,
}

/// Who may join the cluster.
#[derive(Debug, Args)]
pub struct AccessArgs {
    /// File with the token that all processes of the cluster share, at least 16 bytes; several,
    /// separated by white space, while one is replaced
    #[arg(long)]
    pub join_token_file: Option<PathBuf>,
    /// PEM file with this process's certificate, for the DNS name mobula.internal
    #[arg(long, requires_all = ["tls_key", "tls_ca"])]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the certificate's key
    #[arg(long, requires_all = ["tls_cert", "tls_ca"])]
    pub tls_key: Option<PathBuf>,
    /// PEM file with the authority that signs the certificates of all processes
    #[arg(long, requires_all = ["tls_cert", "tls_key"])]
    pub tls_ca: Option<PathBuf>,
    /// Use addresses that other machines can reach, with neither token nor certificate
    #[arg(long)]
    pub insecure: bool,
}

/// Looks at the files of credentials again and again, until it is dropped.
#[derive(Default)]
pub struct Following(JoinSet<()>);

impl Following {
    /// What the files hold, now and whenever they change.
    pub fn current<F: Files>(
        &mut self,
        credential: Credential,
        files: F,
    ) -> Result<Current<F::Made>> {
        let followed = Followed::open(credential, files)?;
        let current = followed.current();
        self.0.spawn(async move { followed.follow().await });
        Ok(current)
    }

    fn token(
        &mut self,
        flag: &'static str,
        credential: Credential,
        file: Option<&Path>,
    ) -> Result<Option<Current<Token>>> {
        let file = file.map(|path| TokenFile(path.to_owned()));
        let token = file.map(|file| self.current(credential, file));
        token.transpose().context(flag)
    }
}

/// The credentials of a role, if the addresses that it uses may be used with them.
pub fn credentials(
    args: &AccessArgs,
    addrs: &[(&'static str, &Addr)],
    following: &mut Following,
) -> Result<Credentials> {
    let file = args.join_token_file.as_deref();
    let token = following.token("--join-token-file", Credential::JoinToken, file)?;
    let tls = match (&args.tls_cert, &args.tls_key, &args.tls_ca) {
        (Some(cert), Some(key), Some(ca)) => {
            let (cert, key, ca) = (cert.clone(), key.clone(), ca.clone());
            let files = TlsFiles { cert, key, ca };
            Some(following.current(Credential::ClusterCertificate, files)?)
        }
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
pub fn admin_token(
    args: &AdminArgs,
    addr: SocketAddr,
    following: &mut Following,
) -> Result<Option<Current<Token>>> {
    let file = args.admin_token_file.as_deref();
    let token = following.token("--admin-token-file", Credential::AdminToken, file)?;
    if token.is_none() && !addr.ip().is_loopback() {
        tracing::warn!(%addr, "everybody who reaches the admin API may deploy; see --admin-token-file");
    }
    Ok(token)
}

/// What the admin API is opened with, where that is TLS.
pub fn admin_https(args: &AdminArgs, following: &mut Following) -> Result<Option<Current<Https>>> {
    // The command line takes both or none.
    let files = args.admin_tls_cert.clone().zip(args.admin_tls_key.clone());
    let https = files.map(|(cert, key)| {
        let files = HttpsFiles {
            port: ADMIN,
            cert,
            key,
            password: None,
            client_ca: None,
        };
        following.current(Credential::AdminCertificate, files)
    });
    https.transpose()
}

/// How to believe the other heads, whose admin APIs are as this one's.
pub fn admin_trust(args: &EtcdArgs, following: &mut Following) -> Result<Trust> {
    let files = ClientFiles {
        ca_flag: "--admin-tls-ca",
        ca: args.admin_tls_ca.clone(),
        identity: None,
        protocols: &[],
    };
    let current = following.current(Credential::AdminAuthorities, files)?;
    Ok(current.trust())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_of_the_network_wants_a_token_or_an_explicit_yes() {
        let mut args = AccessArgs {
            join_token_file: None,
            tls_cert: None,
            tls_key: None,
            tls_ca: None,
            insecure: false,
        };
        let addr: Addr = "0.0.0.0:6380".parse().unwrap();
        let mut following = Following::default();
        let addrs = [("--cluster-addr", &addr)];
        let refused = credentials(&args, &addrs, &mut following).err().unwrap();
        let refusal = refused.to_string();
        assert!(refusal.contains("--cluster-addr 0.0.0.0:6380"), "{refusal}");
        args.insecure = true;
        assert!(credentials(&args, &addrs, &mut following).is_ok());
        args.insecure = false;
        let file = tempfile::NamedTempFile::new().unwrap();
        args.join_token_file = Some(file.path().to_owned());
        let refused = credentials(&args, &addrs, &mut following).err().unwrap();
        let refusal = format!("{refused:#}");
        let path = file.path().display();
        assert!(
            refusal.contains(&format!(
                "--join-token-file: token file {path}: 1 to 4 tokens"
            )),
            "{refusal}"
        );
        std::fs::write(file.path(), "0123456789abcdef\n").unwrap();
        assert!(credentials(&args, &addrs, &mut following).is_ok());
    }
}
