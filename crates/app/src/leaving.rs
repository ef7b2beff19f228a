//! Word that something without an end of its own, a WebSocket, has to come to one: its router or
//! its replica stops.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// What happens is cut off at the limit; whoever is to say goodbye needs this long before it.
const GOODBYE_SECONDS_MAX: Duration = Duration::from_secs(5);

/// Why, and by when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leave {
    /// The close code that the client is told.
    pub code: u16,
    /// What still goes on then is broken off.
    pub by: Instant,
}

/// Where the word comes from, and where it is waited for. The first word counts.
#[derive(Clone, Debug, Default)]
pub struct Leaving {
    told: CancellationToken,
    word: Arc<OnceLock<Leave>>,
    above: Option<Arc<OnceLock<Leave>>>,
}

// === impl Leave ===

impl Leave {
    /// The server goes away (1001): the client comes back to another one.
    pub const GOING_AWAY: u16 = 1001;
    /// The service restarts (1012): the client comes back at once.
    pub const RESTART: u16 = 1012;

    /// With so long until all is cut off.
    pub fn within(code: u16, limit: Duration, now: Instant) -> Leave {
        let goodbye = GOODBYE_SECONDS_MAX.min(limit / 2);
        // A limit beyond all time is none: the goodbye then waits for the code.
        let by = now.checked_add(limit - goodbye).unwrap_or(now);
        Leave { code, by }
    }
}

// === impl Leaving ===

impl Leaving {
    /// One that hears this one's word, and may be told by itself.
    pub fn child(&self) -> Leaving {
        Leaving {
            told: self.told.child_token(),
            word: Arc::default(),
            above: Some(Arc::clone(&self.word)),
        }
    }

    /// Tells it.
    pub fn tell(&self, leave: Leave) {
        // It was told before.
        let _ = self.word.set(leave);
        self.told.cancel();
    }

    /// Waits for the word.
    pub async fn told(&self) -> Leave {
        self.told.cancelled().await;
        let above = || self.above.as_ref().and_then(|above| above.get());
        match self.word.get().or_else(above) {
            Some(leave) => *leave,
            // The word is set before the token, so there is one.
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_hears_its_own_word_and_the_one_above_and_keeps_the_first() {
        let now = Instant::now();
        let restart = Leave::within(Leave::RESTART, Duration::from_secs(20), now);
        let away = Leave::within(Leave::GOING_AWAY, Duration::from_secs(60), now);
        let replica = Leaving::default();
        let (one, other) = (replica.child(), replica.child());
        one.tell(away);
        replica.tell(restart);
        assert_eq!(one.told().await, away);
        assert_eq!(other.told().await, restart);
        assert_eq!(replica.child().told().await, restart);
    }

    #[test]
    fn the_goodbye_has_five_seconds_or_half_of_what_there_is() {
        let now = Instant::now();
        for (limit, by) in [(60.0, 55.0), (20.0, 15.0), (4.0, 2.0), (0.0, 0.0)] {
            let leave = Leave::within(Leave::RESTART, Duration::from_secs_f64(limit), now);
            assert_eq!(leave.by - now, Duration::from_secs_f64(by));
        }
    }
}
