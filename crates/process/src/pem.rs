//! PEM files: what is read of them, and mistakes in the words of whoever named the file, which is
//! a field of the config or a flag.
//!
//! Not here: what becomes of them (`identity`, `https`, `tls`), and when they are read again
//! (`follow`).

use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::encrypted_key::{Protection, Sealed, decrypt, protection};

/// A certificate chain, a key or a set of authorities is a few kilobytes.
const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// One file: who named it, where it is, what it holds. Not to be printed: it may be a key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pem {
    field: &'static str,
    path: PathBuf,
    bytes: Vec<u8>,
}

/// The password of an encrypted key, and the field that it is from. Not to be printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password {
    pub field: &'static str,
    pub text: Option<String>,
}

/// A certificate cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CertificateError {
    /// A file cannot be read, or does not hold what it should.
    #[error("{field}: {path}: {cause}")]
    File {
        /// Who named it: "ssl_certfile", "--tls-cert".
        field: &'static str,
        /// Which.
        path: PathBuf,
        /// What is wrong, and what is allowed.
        cause: String,
    },
    /// A field that is no file is wrong.
    #[error("{field}: {cause}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong, and what is allowed.
        cause: String,
    },
}

// === impl Pem ===

impl Pem {
    /// Reads a file. Blocks.
    pub(crate) fn read(field: &'static str, path: &Path) -> Result<Pem, CertificateError> {
        let failed = |cause: String| CertificateError::File {
            field,
            path: path.to_owned(),
            cause,
        };
        let about = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?;
        if about.len() > PEM_BYTES_MAX {
            return Err(failed(format!("larger than {PEM_BYTES_MAX} bytes")));
        }
        Ok(Pem {
            field,
            path: path.to_owned(),
            bytes: std::fs::read(path).map_err(|error| failed(error.to_string()))?,
        })
    }

    /// All certificates, at least one.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
        let found: Vec<_> = CertificateDer::pem_slice_iter(&self.bytes)
            .collect::<Result<_, _>>()
            .map_err(|error| self.wrong(format!("is not PEM: {error}")))?;
        match found.is_empty() {
            true => Err(self.wrong("holds no certificate in PEM")),
            false => Ok(found),
        }
    }

    /// The authorities that the file holds: while one takes the place of another, both.
    pub(crate) fn authorities(&self) -> Result<RootCertStore, CertificateError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots.add(certificate).map_err(|error| {
                self.wrong(format!(
                    "holds a certificate that is none of an authority: {error}"
                ))
            })?;
        }
        Ok(roots)
    }

    /// The one private key. Decrypting one takes a moment.
    pub(crate) fn private_key(
        &self,
        password: Option<&Password>,
    ) -> Result<PrivateKeyDer<'static>, CertificateError> {
        const NEW_FORM: &str = "`openssl pkcs8 -topk8 -v2 aes-256-cbc -in KEY -out NEW` makes \
                                one that can be used";
        let section = match protection(&self.bytes) {
            // What the parser says could quote the file.
            Protection::None => {
                return PrivateKeyDer::from_pem_slice(&self.bytes)
                    .map_err(|_| self.wrong("holds no private key in PEM"));
            }
            Protection::OldForm => {
                let cause = format!("is encrypted in the old form of OpenSSL; {NEW_FORM}");
                return Err(self.wrong(cause));
            }
            Protection::Pkcs8(section) => section,
        };
        let Some(password) = password else {
            let cause = "is encrypted; `openssl pkcs8 -in KEY -out NEW` makes one that is not";
            return Err(self.wrong(cause));
        };
        let Some(text) = &password.text else {
            let field = password.field;
            return Err(self.wrong(format!("is encrypted; {field} has to say by what password")));
        };
        match decrypt(section, text) {
            Ok(key) => Ok(key.into()),
            Err(Sealed::Unreadable) => Err(self.wrong(format!(
                "is not encrypted with AES and SHA-2 in PKCS #8, or is damaged; {NEW_FORM}"
            ))),
            Err(Sealed::WrongPassword) => Err(CertificateError::Field {
                field: password.field,
                cause: format!("is not the password of the key in {}", self.field),
            }),
        }
    }

    /// Who named the file.
    pub(crate) fn field(&self) -> &'static str {
        self.field
    }

    /// An error that names field and file.
    pub(crate) fn wrong(&self, cause: impl Into<String>) -> CertificateError {
        CertificateError::File {
            field: self.field,
            path: self.path.clone(),
            cause: cause.into(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    impl Pem {
        /// What a file of that name would hold.
        pub(crate) fn of(field: &'static str, bytes: &[u8]) -> Pem {
            Pem {
                field,
                path: "/x.pem".into(),
                bytes: bytes.to_vec(),
            }
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_its_field() {
        let error = Pem::read("--tls-cert", Path::new("/no/such/cert.pem"));
        let error = error.err().unwrap().to_string();
        assert!(
            error.starts_with("--tls-cert: /no/such/cert.pem: No such file"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large.pem");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(PEM_BYTES_MAX + 1).unwrap();
        let error = Pem::read("--tls-ca", &path).err().unwrap().to_string();
        assert!(error.ends_with("larger than 1048576 bytes"), "{error}");
    }

    #[test]
    fn a_bundle_of_an_old_and_a_new_authority_is_two_authorities() {
        let made = || {
            let name = vec!["localhost".to_owned()];
            rcgen::generate_simple_self_signed(name).unwrap().cert.pem()
        };
        let both = Pem::of("--tls-ca", [made(), made()].concat().as_bytes());
        assert_eq!(both.authorities().unwrap().len(), 2);
    }

    #[test]
    fn a_key_in_the_place_of_authorities_is_refused_without_being_quoted() {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        for wrong in [key.as_str(), "", "-----BEGIN CERTIFICATE-----\nAA"] {
            let error = Pem::of("--tls-ca", wrong.as_bytes()).authorities();
            let error = error.err().unwrap().to_string();
            assert!(error.starts_with("--tls-ca: /x.pem: "), "{error}");
            assert!(error.len() < 120, "{error}");
        }
    }
}
