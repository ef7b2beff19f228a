//! Certificates as an operator writes them: into a directory, one file each.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType, date_time_ymd,
};

use crate::house::flags;

pub type Authority = CertifiedIssuer<'static, KeyPair>;

pub fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for `name` that ends with that year, and its key.
pub fn leaf(name: &str, issuer: &Authority, until: i32) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_after = date_time_ymd(until, 1, 1);
    let cert = params.signed_by(&key, issuer).unwrap();
    (cert.pem(), key.serialize_pem())
}

/// A certificate for 127.0.0.1, and its key.
pub fn leaf_for_loopback(issuer: &Authority) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
    let cert = params.signed_by(&key, issuer).unwrap();
    (cert.pem(), key.serialize_pem())
}

pub fn bundle(trusted: &[&Authority]) -> String {
    trusted.iter().map(|authority| authority.pem()).collect()
}

/// Writes a new certificate for `name`, its key, and the authorities to trust.
pub fn write(dir: &Path, name: &str, issuer: &Authority, trusted: &[&Authority]) {
    std::fs::create_dir_all(dir).unwrap();
    let (cert, key) = leaf(name, issuer, 2040);
    std::fs::write(dir.join("tls.crt"), cert).unwrap();
    std::fs::write(dir.join("tls.key"), key).unwrap();
    std::fs::write(dir.join("ca.crt"), bundle(trusted)).unwrap();
}

/// The flags by which a process uses what is written there.
pub fn flags_of(dir: &Path) -> Vec<String> {
    flags(&[
        ("--tls-cert", &dir.join("tls.crt")),
        ("--tls-key", &dir.join("tls.key")),
        ("--tls-ca", &dir.join("ca.crt")),
    ])
}
