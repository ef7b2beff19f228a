//! A certificate and its key, checked to belong together, and when the certificate ends.

use std::sync::Arc;

use pkcs8::der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use pkcs8::der::{Decode, Reader, SliceReader, Tag, Tagged};
use tokio_rustls::rustls::Error as RustlsError;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::pem::{CertificateError, Password, Pem};

/// What a process shows, as a server and as a client.
pub(crate) struct Identity {
    pub resolver: Arc<SingleCertAndKey>,
    /// The certificate itself.
    pub leaf: CertificateDer<'static>,
    /// Seconds since 1970 at which the first certificate of the chain ends; none where that
    /// cannot be read.
    pub expires_at: Option<u64>,
}

// === impl Identity ===

impl Identity {
    /// Of a certificate with those between it and its authority, and its key.
    pub(crate) fn new(
        cert: &Pem,
        key: &Pem,
        password: Option<&Password>,
        provider: &CryptoProvider,
    ) -> Result<Identity, CertificateError> {
        let chain = cert.certificates()?;
        let ends = chain
            .iter()
            .filter_map(|certificate| not_after(certificate));
        let expires_at = ends.min();
        let leaf = chain.first().cloned();
        let leaf = leaf.ok_or_else(|| cert.wrong("holds no certificate in PEM"))?;
        let private = key.private_key(password)?;
        let certified = CertifiedKey::from_der(chain, private, provider)
            .map_err(|error| explain(error, cert, key))?;
        Ok(Identity {
            resolver: Arc::new(SingleCertAndKey::from(certified)),
            leaf,
            expires_at,
        })
    }
}

fn explain(error: RustlsError, cert: &Pem, key: &Pem) -> CertificateError {
    match error {
        RustlsError::InconsistentKeys(_) => {
            let field = cert.field();
            key.wrong(format!("is not the key of the certificate in {field}"))
        }
        RustlsError::InvalidCertificate(why) => {
            cert.wrong(format!("holds a certificate that is none: {why}"))
        }
        other => key.wrong(format!("cannot be used: {other}")),
    }
}

/// `notAfter` of a certificate in DER, in seconds since 1970.
///
/// RFC 5280, 4.1: `Certificate` starts with `TBSCertificate`, which starts with version, serial
/// number, algorithm, issuer, and then validity.
fn not_after(certificate: &[u8]) -> Option<u64> {
    let (outer, ..) = first(certificate)?;
    let (inner, ..) = first(outer.value())?;
    let (version, after_version) = first(inner.value())?;
    // The version is left out where it is 1.
    let serial_and_on = match version.tag() {
        Tag::Integer => inner.value(),
        _ => after_version,
    };
    let (_serial, rest) = first(serial_and_on)?;
    let (_algorithm, rest) = first(rest)?;
    let (_issuer, rest) = first(rest)?;
    let (validity, _) = first(rest)?;
    let (_not_before, rest) = first(validity.value())?;
    let (not_after, _) = first(rest)?;
    let since_1970 = match not_after.tag() {
        Tag::UtcTime => not_after.decode_as::<UtcTime>().ok()?.to_unix_duration(),
        _ => {
            let time: GeneralizedTime = not_after.decode_as().ok()?;
            time.to_unix_duration()
        }
    };
    Some(since_1970.as_secs())
}

/// The first value, and what comes after it.
fn first(der: &[u8]) -> Option<(AnyRef<'_>, &[u8])> {
    let mut reader = SliceReader::new(der).ok()?;
    let value = AnyRef::decode(&mut reader).ok()?;
    let rest = der.get(usize::try_from(reader.position()).ok()?..)?;
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use tokio_rustls::rustls::crypto::ring;

    use super::*;

    fn made(year: i32) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    fn identity(cert: &str, key: &str) -> Result<Identity, CertificateError> {
        let cert = Pem::of("--tls-cert", cert.as_bytes());
        let key = Pem::of("--tls-key", key.as_bytes());
        Identity::new(&cert, &key, None, &ring::default_provider())
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_forms_that_times_have() {
        // From 2050 on it is a GeneralizedTime.
        for (year, seconds) in [(2040, 2_208_988_800), (2060, 2_840_140_800)] {
            let (cert, key) = made(year);
            assert_eq!(identity(&cert, &key).unwrap().expires_at, Some(seconds));
        }
    }

    #[test]
    fn a_chain_ends_with_the_first_of_its_certificates() {
        let ((cert, key), (issuer, _)) = (made(2060), made(2040));
        let chain = identity(&format!("{cert}{issuer}"), &key).unwrap();
        assert_eq!(chain.expires_at, Some(2_208_988_800));
    }

    #[test]
    fn what_is_no_certificate_has_no_end_and_no_panic() {
        for wrong in [
            &b""[..],
            b"\x30",
            b"\x30\x03\x02\x01\x01",
            &[0x30, 0x80, 0, 0],
        ] {
            assert_eq!(not_after(wrong), None);
        }
    }

    #[test]
    fn what_does_not_belong_together_is_refused_by_the_file_that_is_wrong() {
        let ((cert, key), (_, other)) = (made(2040), made(2040));
        assert!(identity(&cert, &key).is_ok());
        for (cert, key, why) in [
            (
                &*cert,
                &*other,
                "--tls-key: /x.pem: is not the key of the certificate in --tls-cert",
            ),
            (&cert, "", "--tls-key: /x.pem: holds no private key"),
            ("", &key, "--tls-cert: /x.pem: holds no certificate"),
            (&key, &key, "--tls-cert: /x.pem: holds no certificate"),
        ] {
            let said = identity(cert, key).err().unwrap().to_string();
            assert!(said.starts_with(why), "{said} / {why}");
        }
    }
}
