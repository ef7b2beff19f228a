//! TLS between our own processes: both sides show a certificate, and both sides check it.
//!
//! Workers come and go at addresses that nobody knows beforehand, so a certificate does not name
//! an address. It names the cluster: every certificate has the DNS name [`TLS_NAME`] and is
//! signed by the cluster's own authority. All processes may share one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig};

/// The DNS name that every certificate of a cluster holds.
pub const TLS_NAME: &str = "mobula.internal";

/// How long a handshake may take; a peer that says nothing costs a socket for no longer.
pub const HANDSHAKE_SECONDS_MAX: Duration = Duration::from_secs(5);

/// A certificate chain, a key or a set of authorities is a few kilobytes.
pub(crate) const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// What a process shows and whom it believes.
#[derive(Clone)]
pub struct Tls {
    client: ClientTlsConfig,
    server: ServerTlsConfig,
}

/// TLS cannot be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{what} {path}: {cause}")]
    File {
        /// "certificate", "key", "authorities".
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// What the files hold does not fit together.
    #[error("certificate, key and authorities cannot be used together: {0}")]
    Unusable(String),
}

// === impl Tls ===

impl Tls {
    /// Reads PEM files: the own certificate with its chain, its key, and the authorities that
    /// sign the certificates of all others.
    ///
    /// # Errors
    /// When a file cannot be read or what they hold cannot be used.
    pub fn read(cert: &Path, key: &Path, ca: &Path) -> Result<Tls, TlsError> {
        let cert = pem("certificate", cert)?;
        let key = pem("key", key)?;
        Tls::new(&cert, &key, &pem("authorities", ca)?)
    }

    /// The same from PEM texts.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn new(cert: &[u8], key: &[u8], ca: &[u8]) -> Result<Tls, TlsError> {
        let identity = Identity::from_pem(cert, key);
        let ca = Certificate::from_pem(ca);
        let client = ClientTlsConfig::new()
            .domain_name(TLS_NAME)
            .ca_certificate(ca.clone())
            .identity(identity.clone())
            .timeout(HANDSHAKE_SECONDS_MAX);
        let server = ServerTlsConfig::new()
            .identity(identity)
            .client_ca_root(ca)
            .timeout(HANDSHAKE_SECONDS_MAX);
        let tls = Tls { client, server };
        // Files that cannot be used should be told at the start, not at the first connection.
        tls.secure_endpoint(Endpoint::from_static("https://mobula.internal"))
            .and_then(|_| tls.secure_server(tonic::transport::Server::builder()))?;
        Ok(tls)
    }

    pub(crate) fn secure_endpoint(&self, endpoint: Endpoint) -> Result<Endpoint, TlsError> {
        endpoint.tls_config(self.client.clone()).map_err(unusable)
    }

    pub(crate) fn secure_server(
        &self,
        server: tonic::transport::Server,
    ) -> Result<tonic::transport::Server, TlsError> {
        server.tls_config(self.server.clone()).map_err(unusable)
    }
}

fn unusable(error: tonic::transport::Error) -> TlsError {
    TlsError::Unusable(crate::net::root_cause(&error))
}

fn pem(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |cause: String| TlsError::File {
        what,
        path: path.to_owned(),
        cause,
    };
    let length = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if length.len() > PEM_BYTES_MAX {
        return Err(failed(format!("larger than {PEM_BYTES_MAX} bytes")));
    }
    std::fs::read(path).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> (Vec<u8>, Vec<u8>) {
        let made = rcgen::generate_simple_self_signed(vec![TLS_NAME.to_owned()]).unwrap();
        (
            made.cert.pem().into_bytes(),
            made.signing_key.serialize_pem().into_bytes(),
        )
    }

    #[test]
    fn what_cannot_be_used_is_refused_before_anybody_connects() {
        let (cert, key) = certificate();
        let (_, other_key) = certificate();
        assert!(Tls::new(&cert, &key, &cert).is_ok());
        for (cert, key, ca, why) in [
            (&cert, &other_key, &cert, "the key of another certificate"),
            (&cert, &Vec::new(), &cert, "no key"),
            (&Vec::new(), &key, &cert, "no certificate"),
            (&cert, &key, &Vec::new(), "no authority"),
            (&cert, &key, &key, "a key in the place of the authority"),
        ] {
            assert!(Tls::new(cert, key, ca).is_err(), "{why}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let missing = Path::new("/no/such/cert.pem");
        let error = Tls::read(missing, missing, missing).err().unwrap();
        let error = error.to_string();
        assert!(error.contains("certificate /no/such/cert.pem"), "{error}");
    }
}
