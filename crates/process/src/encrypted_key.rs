//! Private keys in PEM that a password protects, in the form of PKCS #8.

use pkcs8::der::pem::PemLabel as _;
use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

const BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const END: &str = "-----END ENCRYPTED PRIVATE KEY-----";

/// How OpenSSL marks a key that it encrypted in its own old form.
const OLD_FORM: &str = "Proc-Type: 4,ENCRYPTED";

/// Why a key cannot be decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sealed {
    /// Not PEM, not PKCS #8, or by another cipher than AES or another hash than SHA-2.
    Unreadable,
    /// Not by this password.
    WrongPassword,
}

/// What a key file says about itself.
pub(crate) enum Protection<'a> {
    None,
    /// The PEM section.
    Pkcs8(&'a str),
    OldForm,
}

/// Looks whether the file holds an encrypted key.
pub(crate) fn protection(pem: &[u8]) -> Protection<'_> {
    let Ok(text) = std::str::from_utf8(pem) else {
        return Protection::None;
    };
    if text.contains(OLD_FORM) {
        return Protection::OldForm;
    }
    let Some((_, rest)) = text.split_once(BEGIN) else {
        return Protection::None;
    };
    let body = rest.find(END).unwrap_or(rest.len());
    let begin = text.len() - rest.len() - BEGIN.len();
    let end = (begin + BEGIN.len() + body + END.len()).min(text.len());
    Protection::Pkcs8(text.get(begin..end).unwrap_or_default())
}

/// Decrypts a section of PEM.
pub(crate) fn decrypt(
    section: &str,
    password: &str,
) -> Result<PrivatePkcs8KeyDer<'static>, Sealed> {
    let (label, document) = SecretDocument::from_pem(section).map_err(|_| Sealed::Unreadable)?;
    EncryptedPrivateKeyInfoRef::validate_pem_label(label).map_err(|_| Sealed::Unreadable)?;
    let info = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes());
    let info = info.map_err(|_| Sealed::Unreadable)?;
    let plain = info.decrypt(password).map_err(|_| Sealed::WrongPassword)?;
    Ok(plain.as_bytes().to_vec().into())
}
