//! What is planned for pods, and why, in words for the log.

use std::fmt;

use crate::world::Resources;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a pod of the group.
    Create { group: String },
    /// Take its replicas away, then the pod.
    Drain { uid: String, name: String },
    /// Take its replicas away and keep it as it is.
    Rest { uid: String, name: String },
    /// Give it replicas again.
    Wake { uid: String, name: String },
    /// Delete exactly this pod.
    Delete { uid: String, name: String },
}

/// Why.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// Fewer pods than the group's min.
    BelowMin { count: u32, min: u32 },
    /// Replicas that no pod has room for.
    NoRoom { need: Resources },
    /// Fewer free pods than the group's headroom.
    Headroom { free: u32, headroom: u32 },
    /// The template changed or a node is cordoned: a pod that makes up for it comes first.
    MakesUp,
    /// The template changed: a pod of the new one is there.
    OldTemplate,
    /// The template changed: a whole set of pods of the new one comes first.
    NewTemplate { have: u32, want: u32 },
    /// The template changed: all pods of the new one are there.
    AllThere { count: u32 },
    /// Its template is in force again.
    InForceAgain,
    /// The pods of the new template have done without it for that long.
    Baked { ms: u64 },
    /// Its node is cordoned, and a pod elsewhere is there.
    Cordoned,
    /// Its group is not in the file any more.
    NoSuchGroup,
    /// It has had no replicas for that long.
    Idle { ms: u64 },
    /// Nobody waits for it any more.
    Unneeded,
    /// Its worker has not joined for that long.
    NeverJoined { ms: u64 },
    /// Nothing is left in it.
    Drained,
    /// Its containers have ended.
    Ended,
}

/// An action and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    pub action: Action,
    pub reason: Reason,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.action {
            Action::Create { group } => write!(f, "create a pod of group {group}")?,
            Action::Drain { name, .. } => write!(f, "drain pod {name}")?,
            Action::Rest { name, .. } => write!(f, "empty pod {name} and keep it")?,
            Action::Wake { name, .. } => write!(f, "use pod {name} again")?,
            Action::Delete { name, .. } => write!(f, "delete pod {name}")?,
        }
        write!(f, ": {}", self.reason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::BelowMin { count, min } => {
                write!(f, "{count} pods where at least {min} shall be")
            }
            Reason::NoRoom { need } => write!(f, "a replica that needs {need} finds no room"),
            Reason::Headroom { free, headroom } => {
                write!(f, "{free} free pods where {headroom} shall be")
            }
            Reason::MakesUp => {
                f.write_str("it comes before one on a cordoned node or of an older template goes")
            }
            Reason::Cordoned => f.write_str("its node is cordoned"),
            Reason::OldTemplate => f.write_str("it is of an older template"),
            Reason::NewTemplate { have, want } => {
                write!(f, "{have} pods of the new template where {want} shall be")
            }
            Reason::AllThere { count } => write!(f, "all {count} pods of the new template run"),
            Reason::InForceAgain => f.write_str("its template is in force again"),
            Reason::Baked { ms } => {
                write!(
                    f,
                    "the new template has done without it for {} s",
                    ms / 1_000
                )
            }
            Reason::NoSuchGroup => f.write_str("its group is not configured any more"),
            Reason::Idle { ms } => write!(f, "no replicas for {} s", ms / 1_000),
            Reason::Unneeded => f.write_str("nobody waits for it any more"),
            Reason::NeverJoined { ms } => write!(f, "no worker joined within {} s", ms / 1_000),
            Reason::Drained => f.write_str("nothing is left in it"),
            Reason::Ended => f.write_str("its containers have ended"),
        }
    }
}
