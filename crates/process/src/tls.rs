//! TLS between our own processes: both sides show a certificate, and both sides check it.
//!
//! Workers come and go at addresses that nobody knows beforehand, so a certificate does not name
//! an address. It names the cluster: every certificate has the DNS name [`TLS_NAME`] and is
//! signed by the cluster's own authority. All processes may share one.
//!
//! Each connection is opened with what is in force then (`follow`).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::follow::Files;
use crate::https::client_verifier;
use crate::identity::Identity;
use crate::pem::{CertificateError, Pem};

/// The DNS name that every certificate of a cluster holds.
pub const TLS_NAME: &str = "mobula.internal";

/// How long a handshake may take; a peer that says nothing costs a socket for no longer.
pub const HANDSHAKE_SECONDS_MAX: Duration = Duration::from_secs(5);

/// What our processes speak with each other.
const PROTOCOL: &[u8] = b"h2";

/// Where a process of a cluster has its certificate, its key and the authorities of all.
#[derive(Clone)]
pub struct TlsFiles {
    /// `--tls-cert`: the certificate, then those between it and its authority.
    pub cert: PathBuf,
    /// `--tls-key`.
    pub key: PathBuf,
    /// `--tls-ca`: who signs the certificates of all others.
    pub ca: PathBuf,
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsPem {
    cert: Pem,
    key: Pem,
    ca: Pem,
}

/// What a process shows and whom it believes.
pub struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    expires_at: Option<u64>,
}

// === impl TlsFiles ===

impl Files for TlsFiles {
    type Held = TlsPem;
    type Made = Tls;
    type Error = CertificateError;

    fn read(&self) -> Result<TlsPem, CertificateError> {
        Ok(TlsPem {
            cert: Pem::read("--tls-cert", &self.cert)?,
            key: Pem::read("--tls-key", &self.key)?,
            ca: Pem::read("--tls-ca", &self.ca)?,
        })
    }

    fn make(held: &TlsPem) -> Result<Tls, CertificateError> {
        let provider = Arc::new(ring::default_provider());
        let unusable = |error: tokio_rustls::rustls::Error| held.cert.wrong(error.to_string());
        let identity = Identity::new(&held.cert, &held.key, None, &provider)?;
        let verifier = client_verifier(&held.ca, Arc::clone(&provider))?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(identity.resolver.clone());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(held.ca.authorities()?)
            .with_client_cert_resolver(identity.resolver);
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Tls {
            server: Arc::new(server),
            client: Arc::new(client),
            expires_at: identity.expires_at,
        })
    }

    fn expires_at(made: &Tls) -> Option<u64> {
        made.expires_at
    }
}

// === impl Tls ===

impl Tls {
    /// Opens a connection that came in, within [`HANDSHAKE_SECONDS_MAX`].
    pub(crate) async fn accept(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let accepting = TlsAcceptor::from(Arc::clone(&self.server)).accept(socket);
        let accepted = tokio::time::timeout(HANDSHAKE_SECONDS_MAX, accepting).await??;
        Ok(accepted.into())
    }

    /// Opens a connection to a server of the cluster, for as long as the caller waits.
    pub(crate) async fn connect(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(TLS_NAME).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(&self.client));
        let opened = connector.connect(name, socket).await?;
        match opened.get_ref().1.alpn_protocol() {
            Some(PROTOCOL) => Ok(opened.into()),
            _ => Err(io::Error::other("speaks TLS, but not HTTP/2")),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    type Authority = CertifiedIssuer<'static, KeyPair>;

    pub(crate) fn authority() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// A member signed by `issuer` that believes those whom one of `trusted` signed.
    pub(crate) fn member(issuer: &Authority, trusted: &[&Authority]) -> Tls {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![TLS_NAME.to_owned()]).unwrap();
        let cert = params.signed_by(&key, issuer).unwrap();
        let ca: String = trusted.iter().map(|authority| authority.pem()).collect();
        let made = TlsFiles::make(&TlsPem {
            cert: Pem::of("--tls-cert", cert.pem().as_bytes()),
            key: Pem::of("--tls-key", key.serialize_pem().as_bytes()),
            ca: Pem::of("--tls-ca", ca.as_bytes()),
        });
        made.unwrap()
    }

    /// Whether a byte gets from one to the other.
    async fn believe_each_other(server: &Tls, client: &Tls) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = async {
            let (socket, _) = listener.accept().await.unwrap();
            let mut stream = server.accept(socket).await?;
            stream.write_all(b"!").await?;
            stream.shutdown().await
        };
        let asking = async {
            let socket = TcpStream::connect(addr).await?;
            // A server that refuses the client says so after the client's handshake.
            client.connect(socket).await?.read_u8().await
        };
        let (served, asked) = tokio::join!(serving, asking);
        served.is_ok() && asked.is_ok()
    }

    #[tokio::test]
    async fn while_the_authority_changes_a_bundle_of_both_believes_and_is_believed_by_either() {
        let (old, new) = (authority(), authority());
        let before = member(&old, &[&old]);
        let bundle = member(&old, &[&old, &new]);
        let renewed = member(&new, &[&old, &new]);
        let after = member(&new, &[&new]);
        for (server, client, expected) in [
            (&before, &bundle, true),
            (&bundle, &before, true),
            (&bundle, &renewed, true),
            (&renewed, &bundle, true),
            (&renewed, &after, true),
            (&after, &renewed, true),
            (&before, &renewed, false),
            (&after, &bundle, false),
        ] {
            assert_eq!(believe_each_other(server, client).await, expected);
        }
    }

    #[test]
    fn a_mistake_is_told_by_flag_and_file() {
        let cert = rcgen::generate_simple_self_signed(vec![TLS_NAME.to_owned()]).unwrap();
        let key = cert.signing_key.serialize_pem();
        let made = TlsFiles::make(&TlsPem {
            cert: Pem::of("--tls-cert", cert.cert.pem().as_bytes()),
            key: Pem::of("--tls-key", key.as_bytes()),
            ca: Pem::of("--tls-ca", key.as_bytes()),
        });
        let error = made.err().unwrap().to_string();
        assert_eq!(error, "--tls-ca: /x.pem: holds no certificate in PEM");
    }
}
