//! Whether everything is as wanted, in one sentence, and what is not.

use serde::Serialize;

use super::shortened;
use crate::world::application_status::{AppState, status};
use crate::world::deployment_status::State;
use crate::world::intent::Application;
use crate::world::observed::{ROUTER_ACK_MS_MAX, Router, Worker};
use crate::world::{Now, Reason, World};

/// What is not as wanted, at most; `concerns_total` counts all.
const CONCERNS_MAX: usize = 20;

/// The sentence and what is behind it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub level: Level,
    pub sentence: String,
    pub applications: usize,
    /// Of those, RUNNING.
    pub running: usize,
    /// The worst first.
    pub concerns: Vec<Concern>,
    pub concerns_total: usize,
}

/// How things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Somebody should look.
    Trouble,
    /// On its way.
    Progress,
    /// As wanted.
    Ok,
}

/// Something that is not as wanted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Concern {
    pub level: Level,
    /// `application`, `deployment`, `worker`, `router` or `head`.
    pub kind: &'static str,
    pub subject: String,
    pub status: &'static str,
    pub message: String,
}

pub fn summary(world: &World, now: Now) -> Summary {
    let applications = world.applications.len();
    let is_running = |app: &&Application| status(app).0 == AppState::Running;
    let running = world.applications.values().filter(is_running).count();
    let mut concerns = of_head(world, now);
    for (name, application) in &world.applications {
        concerns.extend(of_application(name, application, now));
    }
    concerns.extend(world.workers.values().filter_map(of_worker));
    let routers = world.routers.values();
    concerns.extend(routers.filter_map(|router| of_router(router, now)));
    concerns.sort_by_key(|concern| concern.level);
    let worst = concerns.first();
    let sentence = match (&world.serving, applications, worst) {
        (None, _, _) => "Nothing is deployed.".to_owned(),
        (Some(_), 0, None) => "Serve runs, without an application.".to_owned(),
        (Some(_), _, None) => format!("{running} of {applications} applications run."),
        (Some(_), _, Some(worst)) => format!(
            "{running} of {applications} applications run; {} {} is {}.",
            worst.kind, worst.subject, worst.status
        ),
    };
    Summary {
        level: worst.map_or(Level::Ok, |worst| worst.level),
        sentence,
        applications,
        running,
        concerns_total: concerns.len(),
        concerns: concerns.into_iter().take(CONCERNS_MAX).collect(),
    }
}

fn of_head(world: &World, now: Now) -> Vec<Concern> {
    let concern = |level, status, message: String| Concern {
        level,
        kind: "head",
        subject: "leader".to_owned(),
        status,
        message: shortened(&message),
    };
    let mut concerns = Vec::new();
    if !world.is_synced(now) {
        let workers = world.awaited_workers.len();
        let why = Reason::NotSynced { workers }.to_string();
        concerns.push(concern(Level::Progress, "STARTING", why));
    }
    if !world.supply.trouble.is_empty() {
        let why = world.supply.trouble.clone();
        concerns.push(concern(Level::Trouble, "SHORT OF WORKERS", why));
    }
    concerns
}

/// The application, with the message of what holds it up; or its deployments, when it runs and
/// they are on their way to another count.
fn of_application(name: &str, application: &Application, now: Now) -> Vec<Concern> {
    let (state, said) = status(application);
    let unsettled = application.deployments.iter();
    let unsettled = unsettled.filter(|(_, deployment)| {
        deployment.status.state != State::Healthy && !deployment.deleting
    });
    if state == AppState::Running {
        return unsettled
            .map(|(deployment, value)| Concern {
                level: Level::Progress,
                kind: "deployment",
                subject: format!("{name}#{deployment}"),
                status: value.status.state.name(),
                message: shortened(&value.message(now)),
            })
            .collect();
    }
    let whys = unsettled.map(|(deployment, value)| (deployment, value.message(now)));
    let whys = whys.filter(|(_, why)| !why.is_empty());
    let whys = whys.map(|(deployment, why)| format!("{deployment}: {why}"));
    let messages: Vec<String> = std::iter::once(said)
        .filter(|said| !said.is_empty())
        .chain(whys)
        .collect();
    let level = match state {
        AppState::DeployFailed | AppState::Unhealthy => Level::Trouble,
        AppState::Deploying | AppState::Deleting | AppState::Running => Level::Progress,
    };
    vec![Concern {
        level,
        kind: "application",
        subject: name.to_owned(),
        status: state.name(),
        message: shortened(&messages.join("\n")),
    }]
}

fn of_worker(worker: &Worker) -> Option<Concern> {
    let (level, status) = if worker.away || worker.disconnected_since_ms.is_some() {
        (Level::Trouble, "OUT OF REACH")
    } else if worker.draining {
        (Level::Progress, "DRAINING")
    } else {
        return None;
    };
    Some(Concern {
        level,
        kind: "worker",
        subject: format!("{} (process {})", worker.node_ip, worker.pid),
        status,
        message: String::new(),
    })
}

fn of_router(router: &Router, now: Now) -> Option<Concern> {
    let behind_ms = router
        .behind_since_ms
        .map(|since| now.ms.saturating_sub(since));
    let (status, message) = match behind_ms {
        _ if !router.error.is_empty() => ("UNHEALTHY", shortened(&router.error)),
        // Every change makes all of them late for a moment.
        Some(behind_ms) if behind_ms >= ROUTER_ACK_MS_MAX => (
            "BEHIND",
            "it serves from an older table, and changes wait for it no longer".to_owned(),
        ),
        Some(_) | None => return None,
    };
    Some(Concern {
        level: Level::Trouble,
        kind: "router",
        subject: format!("{} (process {})", router.node_ip, router.pid),
        status,
        message,
    })
}
