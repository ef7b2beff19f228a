//! The life of one replica: what each report means in each phase.

use super::intent::Phase;
use super::observed::ReportedState;

/// What the worker's newest report says about a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The report is older than the assignment that names it.
    NotYet,
    /// The report should name it and does not.
    Missing,
    /// It is there.
    As(ReportedState),
}

/// What follows for the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing new.
    Stay,
    /// Ready for the first time.
    Started,
    /// Its health checks fail.
    BecameUnhealthy,
    /// Its health checks pass again.
    Recovered,
    /// Did not start; still listed by its worker.
    FailedToStart,
    /// Did not start and is no longer there.
    VanishedStarting,
    /// Died after it was ready; still listed by its worker.
    Died,
    /// Died after it was ready, and is no longer there.
    Vanished,
    /// Its worker drains it unasked.
    LeavesByItself,
    /// It was on its way out and failed instead of ending; nothing in it can be waited for.
    DiedLeaving,
    /// It was on its way out and is gone.
    Gone,
}

/// The table. A worker that drops a replica unasked is treated like a crash: the goal stands.
pub fn next(phase: Phase, seen: Seen) -> Step {
    use ReportedState::{Draining, Failed, Running, Starting, Stopped, Unhealthy, Updating};
    match (phase, seen) {
        (_, Seen::NotYet) => Step::Stay,

        (Phase::Starting, Seen::Missing | Seen::As(Stopped)) => Step::VanishedStarting,
        (Phase::Starting, Seen::As(Starting)) => Step::Stay,
        (Phase::Starting, Seen::As(Running | Updating)) => Step::Started,
        (Phase::Starting, Seen::As(Draining)) => Step::LeavesByItself,
        (Phase::Starting, Seen::As(Failed | Unhealthy)) => Step::FailedToStart,

        (Phase::Running | Phase::Unhealthy, Seen::Missing | Seen::As(Stopped)) => Step::Vanished,
        (Phase::Running | Phase::Unhealthy, Seen::As(Failed)) => Step::Died,
        (Phase::Running | Phase::Unhealthy, Seen::As(Draining)) => Step::LeavesByItself,
        (Phase::Running | Phase::Unhealthy, Seen::As(Starting)) => Step::Stay,
        (Phase::Running, Seen::As(Running | Updating)) => Step::Stay,
        (Phase::Running, Seen::As(Unhealthy)) => Step::BecameUnhealthy,
        (Phase::Unhealthy, Seen::As(Unhealthy)) => Step::Stay,
        (Phase::Unhealthy, Seen::As(Running | Updating)) => Step::Recovered,

        (Phase::Withdrawing { .. } | Phase::Stopping, Seen::Missing | Seen::As(Stopped)) => {
            Step::Gone
        }
        (Phase::Withdrawing { .. }, Seen::As(Failed)) => Step::DiedLeaving,
        (
            Phase::Withdrawing { .. },
            Seen::As(Starting | Running | Updating | Draining | Unhealthy),
        ) => Step::Stay,
        (
            Phase::Stopping,
            Seen::As(Starting | Running | Updating | Draining | Failed | Unhealthy),
        ) => Step::Stay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [ReportedState; 7] = [
        ReportedState::Starting,
        ReportedState::Running,
        ReportedState::Updating,
        ReportedState::Draining,
        ReportedState::Stopped,
        ReportedState::Failed,
        ReportedState::Unhealthy,
    ];

    #[test]
    fn only_a_ready_report_starts_a_replica() {
        for state in STATES {
            let starts = next(Phase::Starting, Seen::As(state)) == Step::Started;
            let ready = matches!(state, ReportedState::Running | ReportedState::Updating);
            assert_eq!(starts, ready, "{state:?}");
        }
    }

    #[test]
    fn a_report_older_than_the_assignment_changes_nothing() {
        for phase in [
            Phase::Starting,
            Phase::Running,
            Phase::Unhealthy,
            Phase::Stopping,
        ] {
            assert_eq!(next(phase, Seen::NotYet), Step::Stay);
        }
    }

    #[test]
    fn a_leaving_replica_never_counts_as_a_failure() {
        let leaving = [
            Phase::Withdrawing {
                table_version: Some(1),
            },
            Phase::Stopping,
        ];
        for phase in leaving {
            for state in STATES {
                let step = next(phase, Seen::As(state));
                assert!(
                    matches!(step, Step::Stay | Step::Gone | Step::DiedLeaving),
                    "{phase:?} {state:?} {step:?}"
                );
            }
        }
    }
}
