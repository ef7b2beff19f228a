//! TLS as clients see it that are not our own processes: those of the ingress, and those of the
//! admin API. A certificate and its key, and whose certificates clients have to show.
//!
//! Not here: TLS between our own processes (`tls`), and when files are read again (`follow`).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
pub use tokio_rustls::server::TlsStream;

use crate::follow::Files;
use crate::identity::Identity;
use crate::pem::{CertificateError, Password, Pem};

/// The fields or flags that name the files of a port, and what it offers by ALPN, best first.
#[derive(Debug, PartialEq, Eq)]
pub struct HttpsPort {
    cert: &'static str,
    key: &'static str,
    /// None where a key with a password cannot be used.
    password: Option<&'static str>,
    /// None where clients are not asked for certificates.
    client_ca: Option<&'static str>,
    protocols: &'static [&'static [u8]],
}

/// The HTTP ingress.
pub const INGRESS: &HttpsPort = &HttpsPort {
    cert: "ssl_certfile",
    key: "ssl_keyfile",
    password: Some("ssl_keyfile_password"),
    client_ca: Some("ssl_ca_certs"),
    protocols: &[b"h2", b"http/1.1"],
};

/// The admin API.
pub const ADMIN: &HttpsPort = &HttpsPort {
    cert: "--admin-tls-cert",
    key: "--admin-tls-key",
    password: None,
    client_ca: None,
    protocols: &[b"http/1.1"],
};

/// Where a port has certificate and key. Not to be printed: it holds the password.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpsFiles {
    /// Whose they are.
    pub port: &'static HttpsPort,
    /// The certificate, then those between it and its authority.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Of the key; not looked at when that is not encrypted.
    pub password: Option<String>,
    /// Clients have to show a certificate that one of these signed.
    pub client_ca: Option<PathBuf>,
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpsPem {
    port: &'static HttpsPort,
    cert: Pem,
    key: Pem,
    password: Option<Password>,
    client_ca: Option<Pem>,
}

/// What new connections are opened with.
pub struct Https {
    config: Arc<ServerConfig>,
    /// The certificate itself.
    pub(crate) leaf: CertificateDer<'static>,
    expires_at: Option<u64>,
}

// === impl Https ===

impl Https {
    /// Opens a connection, if the client gets it done in time.
    ///
    /// # Errors
    /// When it does not.
    pub async fn accept(
        &self,
        socket: TcpStream,
        within: Duration,
    ) -> io::Result<TlsStream<TcpStream>> {
        let accepting = TlsAcceptor::from(Arc::clone(&self.config)).accept(socket);
        tokio::time::timeout(within, accepting).await?
    }
}

// === impl HttpsFiles ===

impl Files for HttpsFiles {
    type Held = HttpsPem;
    type Made = Https;
    type Error = CertificateError;

    fn read(&self) -> Result<HttpsPem, CertificateError> {
        let port = self.port;
        let client_ca = self.client_ca.as_deref();
        let client_ca = port.client_ca.zip(client_ca);
        let client_ca = client_ca.map(|(field, path)| Pem::read(field, path));
        Ok(HttpsPem {
            port,
            cert: Pem::read(port.cert, &self.cert)?,
            key: Pem::read(port.key, &self.key)?,
            password: port.password.map(|field| Password {
                field,
                text: self.password.clone(),
            }),
            client_ca: client_ca.transpose()?,
        })
    }

    /// Decrypting a key takes a moment.
    fn make(held: &HttpsPem) -> Result<Https, CertificateError> {
        let provider = Arc::new(ring::default_provider());
        let password = held.password.as_ref();
        let identity = Identity::new(&held.cert, &held.key, password, &provider)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| held.cert.wrong(error.to_string()))?;
        let builder = match &held.client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => builder.with_client_cert_verifier(client_verifier(pem, provider)?),
        };
        let mut config = builder.with_cert_resolver(identity.resolver);
        let protocols = held.port.protocols.iter();
        config.alpn_protocols = protocols.map(|name| name.to_vec()).collect();
        Ok(Https {
            config: Arc::new(config),
            leaf: identity.leaf,
            expires_at: identity.expires_at,
        })
    }

    fn expires_at(made: &Https) -> Option<u64> {
        made.expires_at
    }
}

/// Takes clients that show a certificate of one of these authorities, and no others.
pub(crate) fn client_verifier(
    authorities: &Pem,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
    let roots = Arc::new(authorities.authorities()?);
    WebPkiClientVerifier::builder_with_provider(roots, provider)
        .build()
        .map_err(|error| authorities.wrong(format!("cannot be used: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> HttpsPem {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        HttpsPem {
            port: INGRESS,
            cert: Pem::of("ssl_certfile", made.cert.pem().as_bytes()),
            key: Pem::of("ssl_keyfile", made.signing_key.serialize_pem().as_bytes()),
            password: password(None),
            client_ca: None,
        }
    }

    fn password(text: Option<&str>) -> Option<Password> {
        INGRESS.password.map(|field| Password {
            field,
            text: text.map(str::to_owned),
        })
    }

    fn refusal(pem: &HttpsPem) -> String {
        let made = HttpsFiles::make(pem);
        made.err().map_or(String::new(), |error| error.to_string())
    }

    #[test]
    fn a_certificate_with_its_key_offers_http2_before_http1() {
        let https = HttpsFiles::make(&made()).unwrap();
        assert_eq!(https.config.alpn_protocols, [&b"h2"[..], b"http/1.1"]);
    }

    /// The key of `testdata` in every form, its password is `secret`.
    const SEALED: [(&[u8], &str); 4] = [
        (include_bytes!("../testdata/pbkdf2.pem"), ""),
        (include_bytes!("../testdata/scrypt.pem"), ""),
        (
            include_bytes!("../testdata/3des.pem"),
            "ssl_keyfile: /x.pem: is not encrypted with AES and SHA-2",
        ),
        (
            include_bytes!("../testdata/old.pem"),
            "ssl_keyfile: /x.pem: is encrypted in the old form of OpenSSL",
        ),
    ];

    #[test]
    fn an_encrypted_key_is_read_with_its_password_and_any_other_form_is_named() {
        let cert = include_bytes!("../testdata/cert.pem");
        for (key, why) in SEALED {
            let said = |text: Option<&str>| {
                refusal(&HttpsPem {
                    port: INGRESS,
                    cert: Pem::of("ssl_certfile", cert),
                    // As it may stand in one file with the certificate.
                    key: Pem::of("ssl_keyfile", &[cert, key].concat()),
                    password: password(text),
                    client_ca: None,
                })
            };
            let with = said(Some("secret"));
            assert!(with.starts_with(why), "{with}");
            assert_eq!(with.is_empty(), why.is_empty());
            if why.is_empty() {
                let wrong = "ssl_keyfile_password: is not the password";
                assert!(said(Some("public")).starts_with(wrong));
                let none = "ssl_keyfile: /x.pem: is encrypted; ssl_keyfile_password has to say";
                assert!(said(None).starts_with(none));
            }
        }
    }

    #[test]
    fn authorities_of_clients_that_are_none_are_refused_by_the_name_of_their_field() {
        let with = |client_ca: &[u8]| {
            let client_ca = Some(Pem::of("ssl_ca_certs", client_ca));
            refusal(&HttpsPem {
                client_ca,
                ..made()
            })
        };
        let cert = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        assert_eq!(with(cert.cert.pem().as_bytes()), "");
        let key = cert.signing_key.serialize_pem();
        for wrong in [&b""[..], key.as_bytes()] {
            let said = with(wrong);
            assert!(
                said.starts_with("ssl_ca_certs: /x.pem: holds no certificate"),
                "{said}"
            );
        }
    }
}
