//! The life of a replica: one exhaustive match over (phase, event). Pure.
//!
//! ```text
//! Starting -> Running <-> Updating
//!    |           |  ^-> Unhealthy
//!    v           v
//!  Failed --> Draining -> Stopped
//! ```
//! Not here: what makes the events happen (`replica::actor`), and replacing a replica that failed,
//! which the head does by assigning another one.

use mobula_proto::v1::ReplicaState;

use crate::gate::Mode;

/// Where a replica is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Running,
    /// Serving, `reconfigure` under way.
    Updating,
    /// Serving, but its health checks fail.
    Unhealthy,
    /// Refuses new calls, finishes what it has.
    Draining,
    Stopped,
    /// Did not start, could not be reconfigured, or its actor died.
    Failed,
}

/// What happens to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Constructed, configured, and found healthy once.
    Ready,
    /// A new config goes to the code.
    Reconfigure,
    /// The code took it.
    Reconfigured,
    /// Too many health checks failed in a row.
    HealthLost,
    /// A health check passed again.
    HealthRegained,
    /// No longer assigned.
    Stop,
    /// Nothing is in progress any more, or the time for that is over.
    Drained,
    /// It cannot go on: the start or a `reconfigure` failed, or the actor died.
    Died,
}

/// The phase after `event`; `None` when the event changes nothing in this phase.
pub fn next(phase: Phase, event: Event) -> Option<Phase> {
    match phase {
        Phase::Starting => match event {
            Event::Ready => Some(Phase::Running),
            Event::Stop => Some(Phase::Draining),
            Event::Died => Some(Phase::Failed),
            // A config that comes while starting is applied before Ready.
            Event::Reconfigure
            | Event::Reconfigured
            | Event::HealthLost
            | Event::HealthRegained
            | Event::Drained => None,
        },
        Phase::Running | Phase::Updating | Phase::Unhealthy => serving(phase, event),
        // A death while stopping is a stop: nobody needs a replacement.
        Phase::Draining => match event {
            Event::Drained | Event::Died => Some(Phase::Stopped),
            Event::Ready
            | Event::Reconfigure
            | Event::Reconfigured
            | Event::HealthLost
            | Event::HealthRegained
            | Event::Stop => None,
        },
        // It may still finish what it accepted.
        Phase::Failed => match event {
            Event::Stop => Some(Phase::Draining),
            Event::Ready
            | Event::Reconfigure
            | Event::Reconfigured
            | Event::HealthLost
            | Event::HealthRegained
            | Event::Drained
            | Event::Died => None,
        },
        Phase::Stopped => None,
    }
}

/// The phases in which the replica takes calls.
fn serving(phase: Phase, event: Event) -> Option<Phase> {
    let after = match event {
        Event::Stop => Phase::Draining,
        Event::Died => Phase::Failed,
        Event::HealthLost => Phase::Unhealthy,
        Event::HealthRegained if phase == Phase::Unhealthy => Phase::Running,
        // A config for an unhealthy replica is applied without hiding that it is unhealthy.
        Event::Reconfigure if phase == Phase::Running => Phase::Updating,
        Event::Reconfigured if phase == Phase::Updating => Phase::Running,
        Event::HealthRegained
        | Event::Reconfigure
        | Event::Reconfigured
        | Event::Ready
        | Event::Drained => return None,
    };
    (after != phase).then_some(after)
}

/// Whether the replica takes calls in this phase.
pub fn mode(phase: Phase) -> Mode {
    match phase {
        Phase::Starting | Phase::Stopped | Phase::Failed => Mode::Absent,
        Phase::Running | Phase::Updating | Phase::Unhealthy => Mode::Open,
        Phase::Draining => Mode::Draining,
    }
}

/// The phase in the words of the report to the head.
pub fn reported(phase: Phase) -> ReplicaState {
    match phase {
        Phase::Starting => ReplicaState::Starting,
        Phase::Running => ReplicaState::Running,
        Phase::Updating => ReplicaState::Updating,
        Phase::Unhealthy => ReplicaState::Unhealthy,
        Phase::Draining => ReplicaState::Draining,
        Phase::Stopped => ReplicaState::Stopped,
        Phase::Failed => ReplicaState::Failed,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVENTS: [Event; 8] = [
        Event::Ready,
        Event::Reconfigure,
        Event::Reconfigured,
        Event::HealthLost,
        Event::HealthRegained,
        Event::Stop,
        Event::Drained,
        Event::Died,
    ];

    fn walk(events: &[Event]) -> Vec<Phase> {
        let mut phases = vec![Phase::Starting];
        for event in events {
            let now = phases[phases.len() - 1];
            phases.push(next(now, *event).unwrap_or(now));
        }
        phases
    }

    #[test]
    fn a_plain_life_goes_from_starting_to_stopped() {
        let events = [
            Event::Ready,
            Event::Reconfigure,
            Event::Reconfigured,
            Event::HealthLost,
            Event::HealthRegained,
            Event::Stop,
            Event::Drained,
        ];
        let phases = [
            Phase::Starting,
            Phase::Running,
            Phase::Updating,
            Phase::Running,
            Phase::Unhealthy,
            Phase::Running,
            Phase::Draining,
            Phase::Stopped,
        ];
        assert_eq!(walk(&events), phases);
    }

    proptest! {
        #[test]
        fn whatever_happens_a_stopped_replica_stays_stopped_and_a_drained_one_never_reopens(
            events in proptest::collection::vec(proptest::sample::select(&EVENTS[..]), 0..40)
        ) {
            let phases = walk(&events);
            for pair in phases.windows(2) {
                match pair[0] {
                    Phase::Stopped => prop_assert_eq!(pair[1], Phase::Stopped),
                    Phase::Draining => prop_assert!(mode(pair[1]) != Mode::Open),
                    Phase::Failed => prop_assert!(mode(pair[1]) != Mode::Open),
                    Phase::Starting | Phase::Running | Phase::Updating | Phase::Unhealthy => {}
                }
            }
            // It takes calls only after it was ready.
            let opened = phases.iter().position(|phase| mode(*phase) == Mode::Open);
            let ready = events.iter().position(|event| *event == Event::Ready);
            if let Some(opened) = opened {
                prop_assert!(ready.is_some_and(|ready| ready < opened));
            }
        }

        #[test]
        fn stop_and_drained_end_every_life(
            events in proptest::collection::vec(proptest::sample::select(&EVENTS[..]), 0..40)
        ) {
            let mut events = events;
            events.extend([Event::Stop, Event::Drained]);
            let phases = walk(&events);
            prop_assert_eq!(phases.last(), Some(&Phase::Stopped));
        }
    }
}
