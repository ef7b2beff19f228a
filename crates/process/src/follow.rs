//! Certificates and tokens that change on disk, taken while the process runs: what is new is opened
//! with what the files hold now, what is open goes on. Files that cannot be used change nothing,
//! and are told of.
//!
//! The files are read, not watched: that sees every way of writing them, also Kubernetes' swap of a
//! symbolic link, and their content says whether they changed.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::{counter, gauge};

use crate::metrics::{CERTIFICATE_EXPIRY, RELOAD_SUCCESSFUL, RELOADS};

/// How often the files are looked at; they are a few kilobytes.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Which of a process's credentials it is, in metrics and log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// `--tls-cert`, `--tls-key`, `--tls-ca`.
    ClusterCertificate,
    /// `--etcd-ca`, `--etcd-cert`, `--etcd-key`.
    EtcdCertificate,
    /// `ssl_certfile` and its like.
    IngressCertificate,
    /// `--join-token-file`.
    JoinToken,
    /// `--admin-token-file`.
    AdminToken,
    /// `--admin-tls-cert`, `--admin-tls-key`.
    AdminCertificate,
    /// `--admin-tls-ca`.
    AdminAuthorities,
}

/// Files that together are one credential.
pub trait Files: Clone + Send + Sync + 'static {
    /// What they hold.
    type Held: Clone + PartialEq + Send + Sync + 'static;
    /// What is made of it.
    type Made: Send + Sync + 'static;
    /// Names the file and what is wrong with it, and nothing secret.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Reads all of them. Blocks.
    ///
    /// # Errors
    /// When one cannot be read.
    fn read(&self) -> Result<Self::Held, Self::Error>;

    /// Makes what is used, or says why that cannot be done.
    ///
    /// # Errors
    /// When they hold nothing that can be used.
    fn make(held: &Self::Held) -> Result<Self::Made, Self::Error>;

    /// Of a certificate: when it ends, in seconds since 1970.
    fn expires_at(made: &Self::Made) -> Option<u64>;
}

/// What is in force, wherever it is used.
pub struct Current<T>(Arc<ArcSwap<T>>);

/// Files, and what of them is in force.
pub struct Followed<F: Files> {
    credential: Credential,
    files: F,
    current: Current<F::Made>,
    first: F::Held,
}

/// What was seen of the files so far. Pure.
struct Seen<H> {
    in_force: H,
    /// At the last look, when it cannot be used: somebody may be in the middle of writing. An
    /// error as its text, so that it can be compared.
    unusable: Option<Result<H, String>>,
    told: bool,
}

/// What follows from a look.
#[derive(Debug, PartialEq, Eq)]
enum Next<M> {
    /// The files hold what is in force.
    Keep,
    /// They hold what cannot be used, which is not worth a word, or not yet.
    Wait,
    Take(M),
    Tell(String),
}

// === impl Current ===

impl<T> Current<T> {
    /// What never changes.
    pub fn fixed(value: T) -> Current<T> {
        Current(Arc::new(ArcSwap::from_pointee(value)))
    }

    /// What is in force now.
    pub fn get(&self) -> Arc<T> {
        self.0.load_full()
    }
}

impl<T> Clone for Current<T> {
    fn clone(&self) -> Current<T> {
        Current(Arc::clone(&self.0))
    }
}

// === impl Credential ===

impl Credential {
    fn name(self) -> &'static str {
        match self {
            Credential::ClusterCertificate => "cluster_certificate",
            Credential::EtcdCertificate => "etcd_certificate",
            Credential::IngressCertificate => "ingress_certificate",
            Credential::JoinToken => "join_token",
            Credential::AdminCertificate => "admin_certificate",
            Credential::AdminAuthorities => "admin_authorities",
            Credential::AdminToken => "admin_token",
        }
    }

    fn note_outcome(self, is_good: bool) {
        gauge!(RELOAD_SUCCESSFUL, "credential" => self.name()).set(f64::from(u8::from(is_good)));
    }

    fn count(self, outcome: &'static str) {
        counter!(RELOADS, "credential" => self.name(), "outcome" => outcome).increment(1);
    }

    fn note_expiry(self, expires_at: f64) {
        gauge!(CERTIFICATE_EXPIRY, "credential" => self.name()).set(expires_at);
    }
}

// === impl Followed ===

impl<F: Files> Followed<F> {
    /// Reads the files for the first time. Blocks.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn open(credential: Credential, files: F) -> Result<Followed<F>, F::Error> {
        let first = files.read()?;
        let made = F::make(&first)?;
        let followed = Followed {
            credential,
            files,
            current: Current::fixed(made),
            first,
        };
        followed.note(true);
        Ok(followed)
    }

    /// What is in force, now and later.
    pub fn current(&self) -> Current<F::Made> {
        self.current.clone()
    }

    /// Looks at the files, for ever.
    pub async fn follow(&self) {
        let mut seen = Seen::new(self.first.clone());
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let files = self.files.clone();
            let reading = tokio::task::spawn_blocking(move || files.read());
            let found = match reading.await {
                Ok(found) => found.map_err(|error| error.to_string()),
                Err(error) => Err(format!("could not be read: {error}")),
            };
            let make = |held: &F::Held| F::make(held).map_err(|error| error.to_string());
            self.act(seen.look(found, make));
        }
    }

    fn act(&self, next: Next<F::Made>) {
        let credential = self.credential.name();
        match next {
            Next::Wait => {}
            Next::Keep => self.credential.note_outcome(true),
            Next::Take(made) => {
                self.current.0.store(Arc::new(made));
                self.note(true);
                self.credential.count("taken");
                tracing::info!(credential, "changed files taken, what is new uses them");
            }
            Next::Tell(error) => {
                self.credential.note_outcome(false);
                self.credential.count("refused");
                tracing::error!(
                    credential,
                    error,
                    "changed files refused, the old ones stay in force"
                );
            }
        }
    }

    fn note(&self, is_good: bool) {
        self.credential.note_outcome(is_good);
        if let Some(expires_at) = F::expires_at(&self.current.get()) {
            self.credential.note_expiry(expires_at as f64);
        }
    }
}

/// What is no longer in force ends at no time, and its files are of no concern.
impl<F: Files> Drop for Followed<F> {
    fn drop(&mut self) {
        let name = self.credential.name();
        gauge!(RELOAD_SUCCESSFUL, "credential" => name).set(f64::NAN);
        if F::expires_at(&self.current.get()).is_some() {
            self.credential.note_expiry(f64::NAN);
        }
    }
}

// === impl Seen ===

impl<H: Clone + PartialEq> Seen<H> {
    fn new(in_force: H) -> Seen<H> {
        Seen {
            in_force,
            unusable: None,
            told: false,
        }
    }

    /// What belongs together may be several files, so for a moment they do not fit: only what is
    /// found twice is a mistake.
    fn look<M>(
        &mut self,
        found: Result<H, String>,
        make: impl FnOnce(&H) -> Result<M, String>,
    ) -> Next<M> {
        let error = match &found {
            Ok(held) if *held == self.in_force => {
                *self = Seen::new(self.in_force.clone());
                return Next::Keep;
            }
            // Making it again would tell the same, and may take a moment.
            Ok(_) if self.told && self.unusable.as_ref() == Some(&found) => return Next::Wait,
            Ok(held) => match make(held) {
                Ok(made) => {
                    *self = Seen::new(held.clone());
                    return Next::Take(made);
                }
                Err(error) => error,
            },
            Err(error) => error.clone(),
        };
        if self.unusable.as_ref() != Some(&found) {
            self.unusable = Some(found);
            self.told = false;
            return Next::Wait;
        }
        if std::mem::replace(&mut self.told, true) {
            return Next::Wait;
        }
        Next::Tell(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes what does not begin with "bad".
    fn make(held: &&'static str) -> Result<&'static str, String> {
        match held.strip_prefix("bad") {
            Some(why) => Err(format!("bad:{why}")),
            None => Ok(held),
        }
    }

    fn look(
        seen: &mut Seen<&'static str>,
        found: Result<&'static str, &str>,
    ) -> Next<&'static str> {
        seen.look(found.map_err(str::to_owned), make)
    }

    #[test]
    fn what_is_new_is_taken_at_once_and_the_same_again_is_nothing() {
        let mut seen = Seen::new("old");
        assert_eq!(look(&mut seen, Ok("old")), Next::Keep);
        assert_eq!(look(&mut seen, Ok("new")), Next::Take("new"));
        assert_eq!(look(&mut seen, Ok("new")), Next::Keep);
        assert_eq!(look(&mut seen, Ok("old")), Next::Take("old"));
    }

    #[test]
    fn what_cannot_be_used_is_told_once_when_it_stays_so_and_never_taken() {
        let mut seen = Seen::new("old");
        assert_eq!(look(&mut seen, Ok("bad pair")), Next::Wait);
        assert_eq!(
            look(&mut seen, Ok("bad pair")),
            Next::Tell("bad: pair".to_owned())
        );
        assert_eq!(look(&mut seen, Ok("bad pair")), Next::Wait);
        assert_eq!(
            look(&mut seen, Ok("bad key")),
            Next::Wait,
            "another mistake"
        );
        assert_eq!(
            look(&mut seen, Ok("bad key")),
            Next::Tell("bad: key".to_owned())
        );
        assert_eq!(look(&mut seen, Ok("new")), Next::Take("new"));
    }

    #[test]
    fn files_that_are_gone_and_come_back_unchanged_leave_nothing_to_tell_later() {
        let mut seen = Seen::new("old");
        for _ in 0..2 {
            assert_eq!(look(&mut seen, Err("gone")), Next::Wait);
            assert_eq!(look(&mut seen, Ok("old")), Next::Keep);
        }
        assert_eq!(look(&mut seen, Err("gone")), Next::Wait);
        assert_eq!(look(&mut seen, Err("gone")), Next::Tell("gone".to_owned()));
    }

    #[test]
    fn what_was_made_is_seen_wherever_it_is_used() {
        let current = Current::fixed(1);
        let elsewhere = current.clone();
        current.0.store(Arc::new(2));
        assert_eq!(*elsewhere.get(), 2);
    }
}
