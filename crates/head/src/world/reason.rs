//! Why an action is planned, for logs, status messages and whoever reads a plan.

use std::fmt;

use super::canary::Verdict;
use super::group::Need;
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
    NoRoomForSurge { needs: Need },
    /// Its worker is leaving and there is no room elsewhere, or no more time.
    WorkerLeaves(WorkerId),
    /// Members of its gang are missing.
    GangBroken { left: u32, size: u32 },
    /// A worker that held a bundle of it is gone; the replacement comes first.
    BundleLost(WorkerId),
    /// Its worker is emptied; the replacement comes first.
    Compaction { worker: WorkerId },
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
        needs: Need,
        /// Of bundles and gangs; None: it is one piece.
        fits: Option<Fits>,
        room: Room,
    },
    /// The head has just started and does not know yet what runs.
    NotSynced { workers: usize },
    /// How a canary answers.
    Canary(Verdict),
}

/// How far the parts of a replica, or of a gang, find room beside each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Fits {
    pub parts: usize,
    pub of: usize,
    /// The first one without room.
    pub next: Resources,
}

/// How much room there is for what finds none.
#[derive(Clone, Debug, PartialEq)]
pub enum Room {
    /// No worker takes replicas.
    NoWorkers,
    /// No worker has the labels that are asked for.
    NoneWithLabels { workers: usize, labels: String },
    /// Every machine with room has as many as one may have.
    NodesFull { limit: u32 },
    /// Each machine that it may be on has a part already, and may have no other.
    NoOtherNode { nodes: usize },
    /// The worker that lacks least.
    Nearest {
        workers: usize,
        free: Resources,
        lacks: Resources,
    },
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
            Reason::GangBroken { left, size } => write!(
                f,
                "{left} of {size} replicas of its gang are left, which is restarted whole"
            ),
            Reason::BundleLost(worker) => write!(
                f,
                "worker {worker}, which held a bundle of it, is gone; the replacement comes first"
            ),
            Reason::Compaction { worker } => {
                write!(f, "worker {worker} is emptied; the replacement comes first")
            }
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
                fits,
                room,
            } => {
                write!(
                    f,
                    "waiting: {placed} of {target} replicas placed; needs {needs}, "
                )?;
                if let Some(Fits { parts, of, next }) = fits {
                    write!(f, "{parts} of {of} bundles fit, for {next}: ")?;
                }
                write!(f, "{room}")
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

// === impl Room ===

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Room::NoWorkers => f.write_str("no worker has joined"),
            Room::NoneWithLabels { workers, labels } => {
                write!(f, "none of {workers} worker(s) has the labels {labels}")
            }
            Room::NodesFull { limit } => write!(
                f,
                "max_replicas_per_node is {limit}, and every node with room has as many"
            ),
            Room::NoOtherNode { nodes } => {
                write!(
                    f,
                    "all {nodes} node(s) where it may be have one of its bundles"
                )
            }
            Room::Nearest {
                workers,
                free,
                lacks,
            } => write!(
                f,
                "{free} free on the nearest of {workers} worker(s), {lacks} short"
            ),
        }
    }
}
