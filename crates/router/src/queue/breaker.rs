//! Leaves a replica out whose calls fail one after the other. Pure: the back-off is somebody
//! else's clock, which says when it is over.
//!
//! ```text
//!            failures in a row            the pause is over
//!   In ─────────────────────────► Out ─────────────────────────► Trial
//!   ▲                              ▲         fails                 │
//!   │                              └───────────────────────────────┤
//!   └──────────────────────────── answers ◄────────────────────────┘
//! ```
//!
//! On trial it gets one request at a time. Not here: which replicas may be left out at once
//! (`replicas`), and how long the pause is (`deployment`).

use crate::limits::FAILURES_IN_A_ROW_MAX;

/// How a call ended, as far as it says something about the replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: refused, or nobody waited for it any more.
    #[default]
    Unknown,
    /// The replica answered, whatever status its answer has: a 500 that the user's code makes
    /// is an answer.
    Answered,
    /// It raised an error or panicked, died, broke off its answer, or lost the connection.
    Failed,
}

/// Where a replica is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// Gets requests.
    #[default]
    In,
    /// Gets none.
    Out,
    /// Gets one at a time.
    Trial,
}

/// The breaker of one replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Breaker {
    phase: Phase,
    failures_in_a_row: u32,
    /// How often it was left out since it last answered on trial.
    times_out: u32,
}

// === impl Breaker ===

impl Breaker {
    pub fn phase(self) -> Phase {
        self.phase
    }

    /// A call ended. `may_leave`: there are enough others. When the replica is left out from
    /// now on: how often in a row, to say for how long.
    pub fn ended(&mut self, outcome: Outcome, may_leave: bool) -> Option<u32> {
        match (self.phase, outcome) {
            // What was sent before it was left out says nothing new.
            (_, Outcome::Unknown) | (Phase::Out, _) => None,
            (Phase::In, Outcome::Answered) => {
                self.failures_in_a_row = 0;
                None
            }
            (Phase::Trial, Outcome::Answered) => {
                *self = Breaker::default();
                None
            }
            (Phase::In, Outcome::Failed) => {
                self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
                (may_leave && self.failures_in_a_row >= FAILURES_IN_A_ROW_MAX).then(|| self.leave())
            }
            (Phase::Trial, Outcome::Failed) => Some(self.leave()),
        }
    }

    /// The pause is over.
    pub fn pause_over(&mut self) {
        if self.phase == Phase::Out {
            self.phase = Phase::Trial;
        }
    }

    fn leave(&mut self) -> u32 {
        self.phase = Phase::Out;
        self.failures_in_a_row = 0;
        self.times_out = self.times_out.saturating_add(1);
        self.times_out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failed(breaker: &mut Breaker, times: u32) -> Option<u32> {
        (0..times).fold(None, |_, _| breaker.ended(Outcome::Failed, true))
    }

    #[test]
    fn only_failures_in_a_row_leave_a_replica_out() {
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            assert_eq!(failed(&mut breaker, FAILURES_IN_A_ROW_MAX - 1), None);
            assert_eq!(breaker.ended(Outcome::Unknown, true), None);
            assert_eq!(breaker.ended(Outcome::Answered, true), None);
        }
        assert_eq!(failed(&mut breaker, FAILURES_IN_A_ROW_MAX), Some(1));
        assert_eq!(breaker.phase(), Phase::Out);
    }

    #[test]
    fn a_trial_that_fails_leaves_it_out_again_and_one_that_is_answered_ends_it() {
        let mut breaker = Breaker::default();
        failed(&mut breaker, FAILURES_IN_A_ROW_MAX);
        for times in 2..5 {
            breaker.pause_over();
            assert_eq!(breaker.phase(), Phase::Trial);
            assert_eq!(breaker.ended(Outcome::Failed, false), Some(times));
        }
        breaker.pause_over();
        breaker.ended(Outcome::Answered, true);
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn one_that_may_not_leave_stays_and_leaves_as_soon_as_it_may() {
        let mut breaker = Breaker::default();
        for _ in 0..2 * FAILURES_IN_A_ROW_MAX {
            assert_eq!(breaker.ended(Outcome::Failed, false), None);
        }
        assert_eq!(breaker.phase(), Phase::In);
        assert_eq!(breaker.ended(Outcome::Failed, true), Some(1));
    }

    proptest! {
        /// Otherwise it would stay out for ever, or be tried while it is to be left alone.
        #[test]
        fn it_is_out_exactly_while_a_pause_runs(
            events in proptest::collection::vec((0u8..4, any::<bool>()), 0..100),
        ) {
            let mut breaker = Breaker::default();
            let mut pauses = 0;
            for (event, may_leave) in events {
                match event {
                    0 => pauses += i32::from(breaker.ended(Outcome::Failed, may_leave).is_some()),
                    1 => prop_assert_eq!(breaker.ended(Outcome::Answered, may_leave), None),
                    2 => prop_assert_eq!(breaker.ended(Outcome::Unknown, may_leave), None),
                    _ if pauses > 0 => {
                        breaker.pause_over();
                        pauses -= 1;
                    }
                    _ => {}
                }
                prop_assert_eq!(pauses, i32::from(breaker.phase() == Phase::Out));
            }
        }
    }
}
