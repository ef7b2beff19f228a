//! TLS as a client of servers that are not our own processes: whom to believe, and what to show
//! where that is asked for.
//!
//! Not here: connections (whoever opens them), and when files are read again (`follow`).

use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::ring;

use crate::follow::Files;
use crate::identity::Identity;
use crate::pem::{CertificateError, Pem};

/// Where a client has its certificates, and what the flags are called that say so.
#[derive(Clone)]
pub struct ClientFiles {
    /// The authorities of the server's certificate.
    pub ca: PathBuf,
    /// The certificate to show, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The flags of the three.
    pub flags: ClientFlags,
    /// What is offered by ALPN, best first.
    pub protocols: &'static [&'static [u8]],
}

/// Names of flags, for messages.
#[derive(Clone, Copy)]
pub struct ClientFlags {
    /// "--etcd-ca".
    pub ca: &'static str,
    /// "--etcd-cert".
    pub cert: &'static str,
    /// "--etcd-key".
    pub key: &'static str,
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientPem {
    ca: Pem,
    identity: Option<(Pem, Pem)>,
    protocols: &'static [&'static [u8]],
}

/// What new connections are opened with.
pub struct ClientTls {
    /// For `tokio_rustls::TlsConnector`.
    pub config: Arc<ClientConfig>,
    expires_at: Option<u64>,
}

// === impl ClientFiles ===

impl Files for ClientFiles {
    type Held = ClientPem;
    type Made = ClientTls;
    type Error = CertificateError;

    fn read(&self) -> Result<ClientPem, CertificateError> {
        let flags = self.flags;
        let identity = match &self.identity {
            Some((cert, key)) => Some((Pem::read(flags.cert, cert)?, Pem::read(flags.key, key)?)),
            None => None,
        };
        Ok(ClientPem {
            ca: Pem::read(flags.ca, &self.ca)?,
            identity,
            protocols: self.protocols,
        })
    }

    fn make(held: &ClientPem) -> Result<ClientTls, CertificateError> {
        let provider = Arc::new(ring::default_provider());
        let identity = match &held.identity {
            Some((cert, key)) => Some(Identity::new(cert, key, None, &provider)?),
            None => None,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| held.ca.wrong(error.to_string()))?
            .with_root_certificates(held.ca.authorities()?);
        let expires_at = identity.as_ref().and_then(|identity| identity.expires_at);
        let mut config = match identity {
            Some(identity) => builder.with_client_cert_resolver(identity.resolver),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = held.protocols.iter().map(|name| name.to_vec()).collect();
        Ok(ClientTls {
            config: Arc::new(config),
            expires_at,
        })
    }

    fn expires_at(made: &ClientTls) -> Option<u64> {
        made.expires_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(ca: &str, identity: Option<(&str, &str)>) -> String {
        let made = ClientFiles::make(&ClientPem {
            ca: Pem::of("--etcd-ca", ca.as_bytes()),
            identity: identity.map(|(cert, key)| {
                let cert = Pem::of("--etcd-cert", cert.as_bytes());
                (cert, Pem::of("--etcd-key", key.as_bytes()))
            }),
            protocols: &[b"h2"],
        });
        made.err().map_or(String::new(), |error| error.to_string())
    }

    #[test]
    fn a_mistake_is_told_by_flag_and_file() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        assert_eq!(refusal(&cert, None), "");
        assert_eq!(refusal(&cert, Some((&cert, &key))), "");
        for (ca, identity, why) in [
            ("", None, "--etcd-ca: /x.pem: holds no certificate"),
            (&*key, None, "--etcd-ca: /x.pem: holds no certificate"),
            (
                &*cert,
                Some((&*cert, &*other)),
                "--etcd-key: /x.pem: is not the key of the certificate in --etcd-cert",
            ),
            (
                &cert,
                Some(("", &key)),
                "--etcd-cert: /x.pem: holds no certificate",
            ),
            (
                &cert,
                Some((&cert, "")),
                "--etcd-key: /x.pem: holds no private key",
            ),
        ] {
            let said = refusal(ca, identity);
            assert!(said.starts_with(why), "{said} / {why}");
        }
    }
}
