//! The rules of an election inside one process, as a value: time is an argument.

use std::time::Duration;

use crate::election::{Candidate, Leader};

/// Who leads, and until when.
#[derive(Debug, Default)]
pub struct Ballot {
    seat: Option<Seat>,
    terms: u64,
}

#[derive(Debug)]
struct Seat {
    leader: Leader,
    expires_at: Duration,
}

// === impl Ballot ===

impl Ballot {
    /// The candidate leads now, or has to wait at least until the time in the error if nobody
    /// resigns.
    pub fn campaign(
        &mut self,
        candidate: &Candidate,
        now: Duration,
        lease: Duration,
    ) -> Result<Leader, Duration> {
        if let Some(seat) = self.occupied(now) {
            return Err(seat.expires_at);
        }
        self.terms += 1;
        let leader = Leader {
            candidate: candidate.clone(),
            revision: self.terms,
        };
        self.seat = Some(Seat {
            leader: leader.clone(),
            expires_at: now + lease,
        });
        Ok(leader)
    }

    /// Whether the leadership still holds, and if so, it does for a whole lease again.
    pub fn renew(&mut self, revision: u64, now: Duration, lease: Duration) -> bool {
        let holds = self.holds(revision, now);
        if let (true, Some(seat)) = (holds, &mut self.seat) {
            seat.expires_at = now + lease;
        }
        holds
    }

    /// Ends a leadership; nothing happens if it is another one's time.
    pub fn resign(&mut self, revision: u64) {
        if self
            .seat
            .as_ref()
            .is_some_and(|seat| seat.leader.revision == revision)
        {
            self.seat = None;
        }
    }

    pub fn holds(&self, revision: u64, now: Duration) -> bool {
        self.occupied(now)
            .is_some_and(|seat| seat.leader.revision == revision)
    }

    /// Who leads, and until when at least.
    pub fn leader(&self, now: Duration) -> Option<(&Leader, Duration)> {
        self.occupied(now)
            .map(|seat| (&seat.leader, seat.expires_at))
    }

    fn occupied(&self, now: Duration) -> Option<&Seat> {
        self.seat.as_ref().filter(|seat| now < seat.expires_at)
    }
}

#[cfg(test)]
#[path = "ballot_tests.rs"]
mod tests;
