//! TLS as clients of the ingress see it: a certificate and its key, from PEM files whose fields
//! in the config are `ssl_certfile` and `ssl_keyfile`, the password of the key
//! (`ssl_keyfile_password`), and whose certificates clients have to show (`ssl_ca_certs`).
//!
//! Not here: TLS between our own processes (`tls`), and when files are read again (the router).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{Error as RustlsError, RootCertStore, ServerConfig};

use crate::encrypted_key::{Protection, Sealed, decrypt, protection};
use crate::tls::PEM_BYTES_MAX;

/// What is offered by ALPN, best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where certificate and key are. Not to be printed: it holds the password.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpsFiles {
    /// `ssl_certfile`: the certificate, then those between it and its authority.
    pub cert: PathBuf,
    /// `ssl_keyfile`.
    pub key: PathBuf,
    /// `ssl_keyfile_password`; not looked at when the key is not encrypted.
    pub password: Option<String>,
    /// `ssl_ca_certs`: clients have to show a certificate that one of these signed.
    pub client_ca: Option<PathBuf>,
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpsPem {
    cert: Vec<u8>,
    key: Vec<u8>,
    password: Option<String>,
    client_ca: Option<Vec<u8>>,
}

/// HTTPS cannot be served with the files.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum HttpsError {
    /// A file cannot be read.
    #[error("{field}: {path}: {cause}")]
    File {
        /// Of the config.
        field: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// What a file holds cannot be used.
    #[error("{field}: {cause}")]
    Unusable {
        /// Of the config.
        field: &'static str,
        /// What is wrong, and what is allowed.
        cause: String,
    },
}

// === impl HttpsFiles ===

impl HttpsFiles {
    /// Reads all files. Blocks.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn read(&self) -> Result<HttpsPem, HttpsError> {
        Ok(HttpsPem {
            cert: read("ssl_certfile", &self.cert)?,
            key: read("ssl_keyfile", &self.key)?,
            password: self.password.clone(),
            client_ca: match &self.client_ca {
                None => None,
                Some(path) => Some(read("ssl_ca_certs", path)?),
            },
        })
    }
}

fn read(field: &'static str, path: &Path) -> Result<Vec<u8>, HttpsError> {
    let failed = |cause: String| HttpsError::File {
        field,
        path: path.to_owned(),
        cause,
    };
    let about = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if about.len() > PEM_BYTES_MAX {
        return Err(failed(format!("larger than {PEM_BYTES_MAX} bytes")));
    }
    std::fs::read(path).map_err(|error| failed(error.to_string()))
}

// === impl HttpsPem ===

impl HttpsPem {
    /// What a server needs, HTTP/2 and HTTP/1.1 offered. Decrypting a key takes a moment.
    ///
    /// # Errors
    /// When the files do not hold a certificate and its key.
    pub fn server_config(&self) -> Result<ServerConfig, HttpsError> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates("ssl_certfile", &self.cert)?;
        let key = self.private_key()?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("ssl_certfile", error.to_string()))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => builder.with_client_cert_verifier(client_verifier(pem, provider)?),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(explain)?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(config)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, HttpsError> {
        const NEW_FORM: &str = "`openssl pkcs8 -topk8 -v2 aes-256-cbc -in KEY -out NEW` makes \
                                one that can be used";
        let sealed = match (protection(&self.key), &self.password) {
            // What the parser says could quote the file.
            (Protection::None, _) => {
                return PrivateKeyDer::from_pem_slice(&self.key)
                    .map_err(|_| unusable("ssl_keyfile", "holds no private key in PEM"));
            }
            (Protection::Pkcs8(_), None) => {
                let cause = "is encrypted; ssl_keyfile_password has to say by what password";
                return Err(unusable("ssl_keyfile", cause));
            }
            (Protection::Pkcs8(section), Some(password)) => match decrypt(section, password) {
                Ok(key) => return Ok(key.into()),
                Err(sealed) => sealed,
            },
            (Protection::OldForm, _) => Sealed::OldForm,
        };
        Err(match sealed {
            Sealed::OldForm => unusable(
                "ssl_keyfile",
                format!("is encrypted in the old form of OpenSSL; {NEW_FORM}"),
            ),
            Sealed::Unreadable => unusable(
                "ssl_keyfile",
                format!(
                    "is not encrypted with AES and SHA-2 in PKCS #8, or is damaged; {NEW_FORM}"
                ),
            ),
            Sealed::WrongPassword => unusable(
                "ssl_keyfile_password",
                "is not the password of the key in ssl_keyfile",
            ),
        })
    }
}

fn certificates(
    field: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, HttpsError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(field, format!("is not PEM: {error}")))?;
    match found.is_empty() {
        true => Err(unusable(field, "holds no certificate in PEM")),
        false => Ok(found),
    }
}

/// Takes clients that show a certificate of one of these authorities, and no others.
fn client_verifier(
    pem: &[u8],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, HttpsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ssl_ca_certs", pem)? {
        roots.add(certificate).map_err(|error| {
            let cause = format!("holds a certificate that is none of an authority: {error}");
            unusable("ssl_ca_certs", cause)
        })?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| unusable("ssl_ca_certs", format!("cannot be used: {error}")))
}

fn explain(error: RustlsError) -> HttpsError {
    match error {
        RustlsError::InconsistentKeys(_) => unusable(
            "ssl_keyfile",
            "is not the key of the certificate in ssl_certfile",
        ),
        RustlsError::InvalidCertificate(why) => unusable(
            "ssl_certfile",
            format!("holds a certificate that is none: {why}"),
        ),
        other => unusable("ssl_keyfile", format!("cannot be used: {other}")),
    }
}

fn unusable(field: &'static str, cause: impl Into<String>) -> HttpsError {
    HttpsError::Unusable {
        field,
        cause: cause.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> HttpsPem {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        HttpsPem {
            cert: made.cert.pem().into_bytes(),
            key: made.signing_key.serialize_pem().into_bytes(),
            password: None,
            client_ca: None,
        }
    }

    #[test]
    fn a_certificate_with_its_key_offers_http2_before_http1() {
        let config = made().server_config().unwrap();
        assert_eq!(config.alpn_protocols, [&b"h2"[..], b"http/1.1"]);
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_the_name_of_its_field() {
        let good = made();
        let with = |cert: &[u8], key: &[u8]| {
            let pem = HttpsPem {
                cert: cert.to_vec(),
                key: key.to_vec(),
                ..made()
            };
            pem.server_config().err().map(|error| error.to_string())
        };
        let encrypted =
            b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n";
        for (cert, key, why) in [
            (
                &good.cert,
                &made().key,
                "ssl_keyfile: is not the key of the certificate",
            ),
            (&good.cert, &Vec::new(), "ssl_keyfile: holds no private key"),
            (&Vec::new(), &good.key, "ssl_certfile: holds no certificate"),
            (&good.key, &good.key, "ssl_certfile: holds no certificate"),
            (&good.cert, &encrypted.to_vec(), "ssl_keyfile: is encrypted"),
        ] {
            let said = with(cert, key).unwrap_or_default();
            assert!(said.starts_with(why), "{said} / {why}");
        }
        assert_eq!(with(&good.cert, &good.key), None);
    }

    /// The key of `testdata` in every form, its password is `secret`.
    const SEALED: [(&[u8], &str); 4] = [
        (include_bytes!("../testdata/pbkdf2.pem"), ""),
        (include_bytes!("../testdata/scrypt.pem"), ""),
        (
            include_bytes!("../testdata/3des.pem"),
            "ssl_keyfile: is not encrypted with AES and SHA-2",
        ),
        (
            include_bytes!("../testdata/old.pem"),
            "ssl_keyfile: is encrypted in the old form of OpenSSL",
        ),
    ];

    #[test]
    fn an_encrypted_key_is_read_with_its_password_and_any_other_form_is_named() {
        let cert = include_bytes!("../testdata/cert.pem");
        for (key, why) in SEALED {
            let said = |password: Option<&str>| {
                let pem = HttpsPem {
                    cert: cert.to_vec(),
                    // As it may stand in one file with the certificate.
                    key: [cert, key].concat(),
                    password: password.map(str::to_owned),
                    client_ca: None,
                };
                pem.server_config()
                    .err()
                    .map_or(String::new(), |error| error.to_string())
            };
            assert!(
                said(Some("secret")).starts_with(why),
                "{}",
                said(Some("secret"))
            );
            assert_eq!(said(Some("secret")).is_empty(), why.is_empty());
            if why.is_empty() {
                let wrong = "ssl_keyfile_password: is not the password";
                assert!(said(Some("public")).starts_with(wrong));
                assert!(said(None).starts_with("ssl_keyfile: is encrypted; ssl_keyfile_password"));
            }
        }
    }

    #[test]
    fn authorities_of_clients_that_are_none_are_refused_by_the_name_of_their_field() {
        let with = |client_ca: &[u8]| {
            let pem = HttpsPem {
                client_ca: Some(client_ca.to_vec()),
                ..made()
            };
            pem.server_config().err().map(|error| error.to_string())
        };
        assert_eq!(with(&made().cert), None);
        for wrong in [&b""[..], &made().key] {
            let said = with(wrong).unwrap_or_default();
            assert!(
                said.starts_with("ssl_ca_certs: holds no certificate"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let files = HttpsFiles {
            cert: "/no/such/cert.pem".into(),
            key: "/no/such/key.pem".into(),
            password: None,
            client_ca: None,
        };
        let error = files.read().err().unwrap().to_string();
        assert!(
            error.starts_with("ssl_certfile: /no/such/cert.pem: "),
            "{error}"
        );
    }
}
