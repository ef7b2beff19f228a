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
    /// The config's time-out passed before it answered. Says something only while others answer:
    /// where nobody does, it is the requests.
    TimedOut,
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
    /// How many calls all replicas had answered when this one last did.
    answers_before: u64,
    /// How often it was left out since it last answered on trial.
    times_out: u32,
}

// === impl Breaker ===

impl Breaker {
    pub fn phase(self) -> Phase {
        self.phase
    }

    /// A new replica; `answers` as for [`Breaker::ended`].
    pub fn new(answers: u64) -> Breaker {
        Breaker {
            answers_before: answers,
            ..Breaker::default()
        }
    }

    /// A call ended. `may_leave`: there are enough others. `answers`: how many calls all
    /// replicas have answered by now. When the replica is left out from
    /// now on: how often in a row, to say for how long.
    pub fn ended(&mut self, outcome: Outcome, may_leave: bool, answers: u64) -> Option<u32> {
        match (self.phase, self.weighed(outcome, answers)) {
            // What was sent before it was left out says nothing new.
            (_, Outcome::Unknown) | (Phase::Out, _) => None,
            (Phase::In, Outcome::Answered) => {
                self.failures_in_a_row = 0;
                self.answers_before = answers;
                None
            }
            (Phase::Trial, Outcome::Answered) => {
                *self = Breaker::new(answers);
                None
            }
            (Phase::In, Outcome::Failed | Outcome::TimedOut) => {
                self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
                (may_leave && self.failures_in_a_row >= FAILURES_IN_A_ROW_MAX).then(|| self.leave())
            }
            (Phase::Trial, Outcome::Failed | Outcome::TimedOut) => Some(self.leave()),
        }
    }

    /// A time-out counts when since its last answer the others gave more answers than it failed
    /// calls.
    fn weighed(self, outcome: Outcome, answers: u64) -> Outcome {
        let elsewhere = answers.saturating_sub(self.answers_before);
        match outcome {
            Outcome::TimedOut if elsewhere <= self.failures_in_a_row.into() => Outcome::Unknown,
            other => other,
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
        (0..times).fold(None, |_, _| breaker.ended(Outcome::Failed, true, 0))
    }

    #[test]
    fn only_failures_in_a_row_leave_a_replica_out() {
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            assert_eq!(failed(&mut breaker, FAILURES_IN_A_ROW_MAX - 1), None);
            assert_eq!(breaker.ended(Outcome::Unknown, true, 0), None);
            assert_eq!(breaker.ended(Outcome::Answered, true, 0), None);
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
            assert_eq!(breaker.ended(Outcome::Failed, false, 0), Some(times));
        }
        breaker.pause_over();
        breaker.ended(Outcome::Answered, true, 0);
        assert_eq!(breaker, Breaker::new(0));
    }

    #[test]
    fn one_that_may_not_leave_stays_and_leaves_as_soon_as_it_may() {
        let mut breaker = Breaker::default();
        for _ in 0..2 * FAILURES_IN_A_ROW_MAX {
            assert_eq!(breaker.ended(Outcome::Failed, false, 0), None);
        }
        assert_eq!(breaker.phase(), Phase::In);
        assert_eq!(breaker.ended(Outcome::Failed, true, 0), Some(1));
    }

    #[test]
    fn time_outs_leave_a_replica_out_only_while_others_answer() {
        let mut alone = Breaker::default();
        for _ in 0..10 * FAILURES_IN_A_ROW_MAX {
            assert_eq!(alone.ended(Outcome::TimedOut, true, 0), None);
        }
        let max = u64::from(FAILURES_IN_A_ROW_MAX);
        let mut silent = Breaker::new(7);
        for others in 1..max {
            assert_eq!(silent.ended(Outcome::TimedOut, true, 7 + others), None);
        }
        assert_eq!(silent.ended(Outcome::TimedOut, true, 7 + max), Some(1));
        silent.pause_over();
        assert_eq!(silent.ended(Outcome::TimedOut, true, 8 + max), Some(2));
        // One that answers now and then is slow and not silent.
        let mut slow = Breaker::default();
        for answers in 1..100 {
            assert_eq!(slow.ended(Outcome::TimedOut, true, 2 * answers), None);
            assert_eq!(slow.ended(Outcome::Answered, true, 2 * answers + 1), None);
        }
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
                    0 => pauses += i32::from(breaker.ended(Outcome::Failed, may_leave, 0).is_some()),
                    1 => prop_assert_eq!(breaker.ended(Outcome::Answered, may_leave, 0), None),
                    2 => prop_assert_eq!(breaker.ended(Outcome::Unknown, may_leave, 0), None),
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
