//! TLS as clients of the ingress see it: a certificate and its key, from PEM files whose fields
//! in the config are `ssl_certfile` and `ssl_keyfile`.
//!
//! Not here: TLS between our own processes (`tls`), and when files are read again (the router).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{Error as RustlsError, ServerConfig};

use crate::tls::PEM_BYTES_MAX;

/// What is offered by ALPN, best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// How the header of an encrypted key begins, in either form that OpenSSL writes.
const ENCRYPTED: [&[u8]; 2] = [b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsFiles {
    /// `ssl_certfile`: the certificate, then those between it and its authority.
    pub cert: PathBuf,
    /// `ssl_keyfile`.
    pub key: PathBuf,
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpsPem {
    cert: Vec<u8>,
    key: Vec<u8>,
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
    /// Reads both files. Blocks.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn read(&self) -> Result<HttpsPem, HttpsError> {
        Ok(HttpsPem {
            cert: read("ssl_certfile", &self.cert)?,
            key: read("ssl_keyfile", &self.key)?,
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
    /// What a server needs, HTTP/2 and HTTP/1.1 offered.
    ///
    /// # Errors
    /// When the files do not hold a certificate and its key.
    pub fn server_config(&self) -> Result<ServerConfig, HttpsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.cert)
            .collect::<Result<_, _>>()
            .map_err(|error| unusable("ssl_certfile", format!("is not PEM: {error}")))?;
        if chain.is_empty() {
            return Err(unusable("ssl_certfile", "holds no certificate in PEM"));
        }
        let key = self.private_key()?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("ssl_certfile", error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(explain)?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(config)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, HttpsError> {
        let found = |text: &&[u8]| self.key.windows(text.len()).any(|window| window == *text);
        if ENCRYPTED.iter().any(found) {
            return Err(unusable(
                "ssl_keyfile",
                "is encrypted, which is not supported; `openssl pkey -in KEY -out PLAIN` decrypts it",
            ));
        }
        // What the parser says could quote the file.
        PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| unusable("ssl_keyfile", "holds no private key in PEM"))
    }
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

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let files = HttpsFiles {
            cert: "/no/such/cert.pem".into(),
            key: "/no/such/key.pem".into(),
        };
        let error = files.read().err().unwrap().to_string();
        assert!(
            error.starts_with("ssl_certfile: /no/such/cert.pem: "),
            "{error}"
        );
    }
}
