//! TLS as a client of servers that are not our own processes: whom to believe, and what to show
//! where that is asked for.
//!
//! Not here: connections (whoever opens them), and when files are read again (`follow`).

use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::follow::{Current, Files};
use crate::identity::Identity;
use crate::pem::{CertificateError, Pem};

/// What each new connection to a server is opened with. Asked for each, so it may change.
pub type Trust = Arc<dyn Fn() -> Arc<ClientConfig> + Send + Sync>;

/// Where a client has its certificates, and the flags that say so, for messages.
#[derive(Clone)]
pub struct ClientFiles {
    /// "--etcd-ca".
    pub ca_flag: &'static str,
    /// The authorities of the server's certificate; none: those that the system believes.
    pub ca: Option<PathBuf>,
    /// What to show, where the server asks for it.
    pub identity: Option<ClientIdentity>,
    /// What is offered by ALPN, best first.
    pub protocols: &'static [&'static [u8]],
}

/// A certificate to show, and its key.
#[derive(Clone)]
pub struct ClientIdentity {
    /// "--etcd-cert".
    pub cert_flag: &'static str,
    /// The certificate, then those between it and its authority.
    pub cert: PathBuf,
    /// "--etcd-key".
    pub key_flag: &'static str,
    /// Its key.
    pub key: PathBuf,
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientPem {
    ca_flag: &'static str,
    ca: Option<Pem>,
    identity: Option<(Pem, Pem)>,
    protocols: &'static [&'static [u8]],
}

/// What new connections are opened with.
pub struct ClientTls {
    config: Arc<ClientConfig>,
    expires_at: Option<u64>,
}

// === impl Current<ClientTls> ===

impl Current<ClientTls> {
    /// For whoever opens connections.
    pub fn trust(&self) -> Trust {
        let current = self.clone();
        Arc::new(move || Arc::clone(&current.get().config))
    }
}

// === impl ClientFiles ===

impl Files for ClientFiles {
    type Held = ClientPem;
    type Made = ClientTls;
    type Error = CertificateError;

    fn read(&self) -> Result<ClientPem, CertificateError> {
        let identity = match &self.identity {
            Some(own) => Some((
                Pem::read(own.cert_flag, &own.cert)?,
                Pem::read(own.key_flag, &own.key)?,
            )),
            None => None,
        };
        let ca = self.ca.as_deref();
        Ok(ClientPem {
            ca_flag: self.ca_flag,
            ca: ca.map(|path| Pem::read(self.ca_flag, path)).transpose()?,
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
        let roots = match &held.ca {
            Some(pem) => pem.authorities()?,
            None => of_the_system(held.ca_flag)?,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(held.ca_flag, error.to_string()))?
            .with_root_certificates(roots);
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

/// What the system believes, be it in files or where `$SSL_CERT_FILE` says.
fn of_the_system(flag: &'static str) -> Result<RootCertStore, CertificateError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    match roots.is_empty() {
        true => Err(wrong(
            flag,
            "is needed where the system has no authorities that it believes",
        )),
        false => Ok(roots),
    }
}

fn wrong(field: &'static str, cause: impl Into<String>) -> CertificateError {
    CertificateError::Field {
        field,
        cause: cause.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(ca: &str, identity: Option<(&str, &str)>) -> String {
        let made = ClientFiles::make(&ClientPem {
            ca: Some(Pem::of("--etcd-ca", ca.as_bytes())),
            ca_flag: "--etcd-ca",
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
