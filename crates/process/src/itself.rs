//! A process that asks its own port: it believes the certificate that it shows itself, whatever
//! name that is for and whoever signed it.

use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
};

use crate::client_tls::Trust;
use crate::follow::Current;
use crate::https::Https;

#[derive(Debug)]
struct Own {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl Current<Https> {
    /// What to open a connection with to a port of this process.
    ///
    /// # Errors
    /// When the provider has no ciphers, which ours does.
    pub fn trust_in_itself(&self) -> Result<Trust, Error> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let current = self.clone();
        Ok(Arc::new(move || {
            let own = Own {
                certificate: current.get().leaf.clone(),
                provider: Arc::clone(&provider),
            };
            let builder = builder.clone().dangerous();
            let builder = builder.with_custom_certificate_verifier(Arc::new(own));
            Arc::new(builder.with_no_client_auth())
        }))
    }
}

impl ServerCertVerifier for Own {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match *end_entity == self.certificate {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::follow::Files;
    use crate::https::{ADMIN, HttpsFiles};

    fn shows_a_certificate_for_elsewhere() -> Current<Https> {
        let made = rcgen::generate_simple_self_signed(vec!["elsewhere.example".to_owned()]);
        let (made, dir) = (made.unwrap(), tempfile::tempdir().unwrap());
        let files = HttpsFiles {
            port: ADMIN,
            cert: dir.path().join("tls.crt"),
            key: dir.path().join("tls.key"),
            password: None,
            client_ca: None,
        };
        std::fs::write(&files.cert, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        Current::fixed(HttpsFiles::make(&files.read().unwrap()).unwrap())
    }

    async fn believes(server: &Current<Https>, client: &Trust) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let https = server.get();
        let serving = async {
            let (socket, _) = listener.accept().await.unwrap();
            https.accept(socket, Duration::from_secs(60)).await.is_ok()
        };
        let asking = async {
            let socket = TcpStream::connect(addr).await.unwrap();
            let name = ServerName::try_from("127.0.0.1").unwrap();
            let asked = TlsConnector::from(client()).connect(name, socket).await;
            asked.is_ok()
        };
        let (_, asked) = tokio::join!(serving, asking);
        asked
    }

    #[tokio::test]
    async fn a_process_believes_itself_whatever_its_certificate_is_for_and_nobody_else() {
        let own = shows_a_certificate_for_elsewhere();
        let trust = own.trust_in_itself().unwrap();
        assert!(believes(&own, &trust).await);
        let other = shows_a_certificate_for_elsewhere();
        assert!(!believes(&other, &trust).await);
    }
}
