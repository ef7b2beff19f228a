//! From the world to the document of `GET /api/mobula/overview`, which the dashboard shows and
//! scripts may read. Pure.
//!
//! Statuses, messages and counts are those of the Serve document and are not worked out anew.
//! Nothing of a config is in it but names and numbers: arguments and environment variables of
//! users never are. Its size is bounded; replicas are listed for one deployment at a time
//! (`replicas`), since a cluster may have ten thousands.

mod applications;
mod members;
mod replicas;
mod summary;

#[cfg(test)]
mod tests;

use serde::Serialize;
use serde_json::Value;

pub use replicas::{REPLICAS_SHOWN_MAX, Replicas, replicas};

use crate::decisions::Decision;
use crate::history::History;
use crate::status::About;
use crate::world::placement::Free;
use crate::world::{Now, World};
use applications::ApplicationView;
use members::{RouterView, WorkerView};
use summary::Summary;

/// Applications in one document. The summary counts all of them.
pub const APPLICATIONS_SHOWN_MAX: usize = 2_000;

/// Workers in one document.
pub const WORKERS_SHOWN_MAX: usize = 2_000;

/// Routers in one document.
pub const ROUTERS_SHOWN_MAX: usize = 500;

/// Bytes of one message; the Serve document has it whole.
const MESSAGE_BYTES_MAX: usize = 2_000;

/// The document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Overview {
    /// Unix time at which it was made.
    pub time_s: f64,
    pub head: HeadView,
    pub summary: Summary,
    /// By name.
    pub applications: Vec<ApplicationView>,
    pub workers: Vec<WorkerView>,
    pub routers: Vec<RouterView>,
    /// How many more there are than are listed.
    pub left_out: LeftOut,
    /// As `GET /api/mobula/history`.
    pub history: Value,
    /// Newest first.
    pub decisions: Vec<Decision>,
}

/// The head that leads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeadView {
    pub node_ip: String,
    pub pid: u32,
    /// Its release.
    pub version: &'static str,
    /// Unix time; what was decided before is not known here.
    pub started_at_s: f64,
    /// The version of the newest route table; 0: there is none yet.
    pub table_version: u64,
    /// Percent, if the config gives one.
    pub target_capacity: Option<f64>,
}

/// What the limits of the document leave out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    pub applications: usize,
    pub workers: usize,
    pub routers: usize,
}

/// Makes the document. `decisions`: newest first.
pub fn overview(
    world: &World,
    about: &About,
    history: &History,
    decisions: Vec<Decision>,
    now: Now,
) -> Overview {
    Overview {
        time_s: now.unix_s,
        head: HeadView {
            node_ip: about.node_ip.clone(),
            pid: about.pid,
            version: env!("CARGO_PKG_VERSION"),
            started_at_s: about.started_at_s,
            table_version: world.published.table_version(),
            target_capacity: world.serving.as_ref().and_then(|s| s.target_capacity),
        },
        summary: summary::summary(world, now),
        applications: applications::views(world, now),
        workers: members::workers(world, &Free::of(world), now),
        routers: members::routers(world, now),
        left_out: LeftOut {
            applications: beyond(world.applications.len(), APPLICATIONS_SHOWN_MAX),
            workers: beyond(world.workers.len(), WORKERS_SHOWN_MAX),
            routers: beyond(world.routers.len(), ROUTERS_SHOWN_MAX),
        },
        history: history.document(),
        decisions,
    }
}

fn beyond(count: usize, max: usize) -> usize {
    count.saturating_sub(max)
}

/// A message within its limit.
fn shortened(text: &str) -> String {
    if text.len() <= MESSAGE_BYTES_MAX {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(MESSAGE_BYTES_MAX)])
}

/// Seconds since a moment of the head's clock.
fn seconds_since(ms: u64, now: Now) -> f64 {
    now.ms.saturating_sub(ms) as f64 / 1000.0
}
