//! Whether the store that decides who leads can be asked. While it cannot, the head waits and
//! says so: it may come back at any time, and nothing of ours would be better for a restart.

use std::sync::Arc;
use std::time::Duration;

use mobula_store::{Election, StoreError};
use tokio::sync::watch;
use tracing::{info, warn};

/// The pause between two questions. One that fails takes some seconds by itself, so that is how
/// often the log says that the store is away.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// What is known of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Contact {
    /// Not asked yet.
    Unknown,
    /// It answers.
    Good,
    /// It does not, and why.
    Away(String),
}

/// Asks again and again. Ends with an error when a store that was never reached refuses what it
/// is asked: a wrong password is wrong for good. One that was reached before may be in the
/// middle of a change.
pub(super) async fn watch_store(
    election: Arc<dyn Election>,
    mut reached: bool,
    contact: watch::Sender<Contact>,
) -> StoreError {
    loop {
        let newest = match election.leader().await {
            Ok(_) => {
                if matches!(*contact.borrow(), Contact::Away(_)) {
                    info!("the state store is back");
                }
                reached = true;
                Contact::Good
            }
            Err(error @ StoreError::Invalid(_)) if !reached => return error,
            Err(error) => {
                warn!(%error, "waiting for the state store");
                Contact::Away(error.to_string())
            }
        };
        contact.send_if_modified(|held| {
            let changed = *held != newest;
            if changed {
                *held = newest;
            }
            changed
        });
        tokio::time::sleep(ASK_EVERY).await;
    }
}

// === impl Contact ===

impl Contact {
    /// What is said when nobody is known to lead.
    pub(super) fn nobody_leads(&self) -> String {
        match self {
            Contact::Unknown | Contact::Good => "no head leads at the moment; try again".to_owned(),
            Contact::Away(why) => format!("no head leads: {why}; try again"),
        }
    }
}
