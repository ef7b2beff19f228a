//! The certificate of the HTTP ingress, read again when its files change: connections that are
//! open keep what they were opened with, new ones get the new one. Files that cannot be used
//! change nothing, and are told of.

use std::sync::Arc;

use arc_swap::ArcSwap;
use metrics::{Counter, counter};
use mobula_process::https::{HttpsError, HttpsFiles, HttpsPem};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use crate::limits::{CERTIFICATE_LOOK_INTERVAL, HANDSHAKE_SECONDS_MAX};
use crate::metrics::CERTIFICATES_READ;

/// What new connections are opened with.
pub struct Certificate {
    files: HttpsFiles,
    in_force: ArcSwap<ServerConfig>,
    first: HttpsPem,
}

/// What a look at the files found; an error as its text, so that it can be compared.
type Found = Result<HttpsPem, String>;

/// What was seen so far.
struct Seen {
    in_force: HttpsPem,
    /// At the last look, when it cannot be used: somebody may be in the middle of writing.
    unusable: Option<Found>,
    told: bool,
}

/// What follows from a look.
enum Next {
    Nothing,
    Take(Box<ServerConfig>),
    Tell(String),
}

// === impl Certificate ===

impl Certificate {
    /// Reads the files for the first time.
    pub async fn open(files: HttpsFiles) -> Result<Certificate, HttpsError> {
        let first = read(&files).await?;
        let config = first.server_config()?;
        Ok(Certificate {
            files,
            in_force: ArcSwap::from_pointee(config),
            first,
        })
    }

    /// Opens a connection; none when the client does not get it done in time.
    pub async fn accept(&self, socket: TcpStream) -> Option<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.in_force.load_full());
        let opened = tokio::time::timeout(HANDSHAKE_SECONDS_MAX, acceptor.accept(socket)).await;
        match opened {
            Ok(Ok(stream)) => Some(stream),
            // The client's doing, and there may be any number of them.
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake failed");
                None
            }
            Err(_) => None,
        }
    }

    /// Looks at the files, for ever.
    pub async fn follow(&self) {
        let [taken, refused]: [Counter; 2] =
            ["taken", "refused"].map(|outcome| counter!(CERTIFICATES_READ, "outcome" => outcome));
        let mut seen = Seen::new(self.first.clone());
        loop {
            tokio::time::sleep(CERTIFICATE_LOOK_INTERVAL).await;
            let found = read(&self.files).await.map_err(|error| error.to_string());
            match seen.look(found) {
                Next::Nothing => {}
                Next::Take(config) => {
                    self.in_force.store(Arc::from(config));
                    taken.increment(1);
                    tracing::info!(file = %self.files.cert.display(), "new certificate in force");
                }
                Next::Tell(error) => {
                    refused.increment(1);
                    tracing::error!(error, "the certificate is not replaced, the old one stays");
                }
            }
        }
    }
}

async fn read(files: &HttpsFiles) -> Result<HttpsPem, HttpsError> {
    let files = files.clone();
    let reading = tokio::task::spawn_blocking(move || files.read());
    reading.await.unwrap_or_else(|error| {
        Err(HttpsError::Unusable {
            field: "ssl_certfile",
            cause: format!("could not be read: {error}"),
        })
    })
}

// === impl Seen ===

impl Seen {
    fn new(in_force: HttpsPem) -> Seen {
        Seen {
            in_force,
            unusable: None,
            told: false,
        }
    }

    /// Certificate and key are two files, so for a moment they do not fit: only what is found
    /// twice is a mistake.
    fn look(&mut self, found: Found) -> Next {
        let error = match &found {
            Ok(pem) if *pem == self.in_force => {
                *self = Seen::new(self.in_force.clone());
                return Next::Nothing;
            }
            Ok(pem) => match pem.server_config() {
                Ok(config) => {
                    *self = Seen::new(pem.clone());
                    return Next::Take(Box::new(config));
                }
                Err(error) => error.to_string(),
            },
            Err(error) => error.clone(),
        };
        if self.unusable.as_ref() != Some(&found) {
            self.unusable = Some(found);
            self.told = false;
            return Next::Nothing;
        }
        if std::mem::replace(&mut self.told, true) {
            return Next::Nothing;
        }
        Next::Tell(error)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn write(dir: &Path) -> HttpsFiles {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let files = HttpsFiles {
            cert: dir.join("cert.pem"),
            key: dir.join("key.pem"),
            password: None,
            client_ca: None,
        };
        std::fs::write(&files.cert, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        files
    }

    fn found(files: &HttpsFiles) -> Found {
        files.read().map_err(|error| error.to_string())
    }

    #[test]
    fn a_new_pair_is_taken_at_once_and_the_same_again_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut seen = Seen::new(write(dir.path()).read().unwrap());
        let files = write(dir.path());
        assert!(matches!(seen.look(found(&files)), Next::Take(_)));
        assert!(matches!(seen.look(found(&files)), Next::Nothing));
    }

    #[test]
    fn a_pair_that_does_not_fit_is_told_once_when_it_stays_so_and_never_taken() {
        let dir = tempfile::tempdir().unwrap();
        let files = write(dir.path());
        let mut seen = Seen::new(files.read().unwrap());
        let (old, other) = (std::fs::read(&files.key).unwrap(), write(dir.path()));
        let new = std::fs::read(&other.key).unwrap();
        std::fs::write(&files.key, &old).unwrap();
        assert!(matches!(seen.look(found(&files)), Next::Nothing));
        let Next::Tell(error) = seen.look(found(&files)) else {
            panic!("a mistake that stays is told");
        };
        assert!(error.starts_with("ssl_keyfile: "), "{error}");
        assert!(matches!(seen.look(found(&files)), Next::Nothing));
        std::fs::write(&files.key, &new).unwrap();
        assert!(matches!(seen.look(found(&files)), Next::Take(_)));
    }

    #[test]
    fn files_that_are_gone_and_come_back_unchanged_leave_nothing_to_tell_later() {
        let dir = tempfile::tempdir().unwrap();
        let files = write(dir.path());
        let pem = files.read().unwrap();
        let mut seen = Seen::new(pem.clone());
        for _ in 0..2 {
            assert!(matches!(seen.look(Err("gone".to_owned())), Next::Nothing));
            assert!(matches!(seen.look(Ok(pem.clone())), Next::Nothing));
        }
        assert!(matches!(seen.look(Err("gone".to_owned())), Next::Nothing));
        assert!(matches!(seen.look(Err("gone".to_owned())), Next::Tell(_)));
    }
}
