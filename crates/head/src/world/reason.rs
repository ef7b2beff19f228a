//! Why an action is planned, for logs, status messages and whoever reads a plan.

use std::fmt;

use mobula_spec::LabelSelector;

use super::canary::Verdict;
use super::{Resources, WorkerId};

/// Why the plan holds an action.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// Fewer replicas than the target.
    BelowTarget { have: u32, target: u32 },
    /// Workers with replicas are out of reach; whether they come back is open.
    OutOfReach { replicas: u32, target: u32 },
    /// A replica of the new version comes before one of the old goes.
    NewVersionFirst { beyond: u32 },
    /// The config asks for old ones to leave before new ones come.
    StopFirst { wave: u32 },
    /// A replacement comes before the one it replaces goes.
    ReplacementFirst,
    /// More replicas than the target.
    AboveTarget { have: u32, target: u32 },
    /// Enough others answer.
    Replaced { answering: u32, target: u32 },
    /// There is no room to start the new one first.
    NoRoomForSurge { needs: Resources },
    /// Its worker is leaving and there is no room elsewhere, or no more time.
    WorkerLeaves(WorkerId),
    /// It was never in a table, so nobody has to be waited for.
    NeverAnnounced,
    /// Every router serves from a table without it.
    RoutersMovedOn { table_version: u64 },
    /// The config changed in a way that a running replica can take.
    ConfigChanged { wave: u32 },
    /// Numbers that only the worker looks at changed.
    LimitsChanged,
    /// The deployment is not declared any more.
    NotDeclared,
    /// Everything runs as declared.
    AllRight,
    /// Nothing is left of it.
    NothingLeft(String),
    /// There is no room.
    Waiting {
        placed: u32,
        target: u32,
        needs: Resources,
        room: Room,
    },
    /// The head has just started and does not know yet what runs.
    NotSynced { workers: usize },
    /// How a canary answers.
    Canary(Verdict),
}

/// How much room there is for a replica that finds none.
#[derive(Clone, Debug, PartialEq)]
pub enum Room {
    /// No worker takes replicas.
    NoWorkers,
    /// No worker has the labels that are asked for.
    NoneWithLabels {
        workers: usize,
        labels: LabelSelector,
    },
    /// Every machine with room has as many as one may have.
    NodesFull { limit: u32 },
    /// The most that one worker has free of what is short.
    Best { workers: usize, free: Resources },
}

// === impl Reason ===

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::BelowTarget { have, target } => {
                write!(f, "{have} of {target} replicas exist")
            }
            Reason::OutOfReach { replicas, target } => {
                write!(
                    f,
                    "{replicas} of {target} replicas are out of reach with their workers"
                )
            }
            Reason::NewVersionFirst { beyond } => {
                write!(f, "new version first, at most {beyond} beyond the target")
            }
            Reason::StopFirst { wave } => {
                write!(f, "old version first, at most {wave} at once")
            }
            Reason::ReplacementFirst => f.write_str("the replacement comes first"),
            Reason::AboveTarget { have, target } => {
                write!(f, "{have} replicas where {target} shall be")
            }
            Reason::Replaced { answering, target } => {
                write!(f, "{answering} replicas answer where {target} shall")
            }
            Reason::NoRoomForSurge { needs } => {
                write!(
                    f,
                    "no room to start the new one ({needs}) before the old one leaves"
                )
            }
            Reason::WorkerLeaves(worker) => write!(f, "worker {worker} leaves"),
            Reason::NeverAnnounced => f.write_str("no router ever knew it"),
            Reason::RoutersMovedOn { table_version } => {
                write!(f, "every router serves from table {table_version} or newer")
            }
            Reason::ConfigChanged { wave } => {
                write!(f, "its config changed, at most {wave} at once")
            }
            Reason::LimitsChanged => f.write_str("its limits changed"),
            Reason::NotDeclared => f.write_str("not declared any more"),
            Reason::AllRight => f.write_str("everything runs as declared"),
            Reason::NothingLeft(what) => write!(f, "nothing is left of {what}"),
            Reason::Waiting {
                placed,
                target,
                needs,
                room,
            } => {
                write!(
                    f,
                    "waiting: {placed} of {target} replicas placed; needs {needs}, "
                )?;
                match room {
                    Room::NoWorkers => f.write_str("no worker has joined"),
                    Room::NoneWithLabels { workers, labels } => {
                        write!(f, "none of {workers} worker(s) has the labels {labels}")
                    }
                    Room::NodesFull { limit } => write!(
                        f,
                        "max_replicas_per_node is {limit}, and every node with room has as many"
                    ),
                    Room::Best { workers, free } => {
                        write!(f, "{free} free on the best of {workers} worker(s)")
                    }
                }
            }
            Reason::Canary(verdict) => write!(f, "{verdict}"),
            Reason::NotSynced { workers } => {
                write!(
                    f,
                    "waiting: {workers} worker(s) of before have not reported yet"
                )
            }
        }
    }
}
