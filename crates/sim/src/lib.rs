//! A whole cluster in one thread with virtual time: three heads, three routers, eight workers,
//! clients, users and one store, of the same pure cores as the real one. Faults come by seed,
//! properties are named, and the same seed does the same again. Six of the workers are in pods
//! that the head makes and takes by what is needed.
//!
//! No async, no threads, no clock: what happens next is the first of one queue of events.
//! Not here: HTTP, gRPC, files, models. Those are tested with real processes.

mod app;
mod canary;
mod check;
mod client;
mod cluster;
mod compaction;
mod faults;
mod head;
mod log;
mod message;
mod net;
mod pods;
mod rest;
mod rng;
mod router;
mod sabotage;
mod store;
mod worker;

use std::collections::BTreeMap;

use cluster::{Cluster, Target};
pub use sabotage::Sabotage;

/// How long faults come in a simulation.
pub const FAULTS_MS: u64 = 120_000;

/// After the load has ended, everything is where it shall be within this time.
const REST_MS_MAX: u64 = 180_000;

/// It has come to rest when nothing moved for so long: longer than every delay of autoscaling.
const REST_MS: u64 = 20_000;

/// Under a load that stays the same no count grows in so long before its end, and it shrinks once
/// at most.
const STEADY_MS_MIN: u64 = 25_000;

/// Events of one simulation; more is a loop.
const EVENTS_MAX: u64 = 1_000_000;

/// What became of one seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub seed: u64,
    /// Of everything that happened.
    pub hash: u64,
    /// What did not hold, first thing first.
    pub violations: Vec<String>,
    /// The last lines of the log.
    pub tail: Vec<String>,
    pub events: u64,
    /// Milliseconds of the simulated time.
    pub virtual_ms: u64,
    /// How requests ended.
    pub answers: BTreeMap<String, u64>,
    /// Requests that ran again because nobody had heard that they ran.
    pub unheard_repeats: u64,
    /// Canaries that were tried at the end: good ones, bad ones.
    pub canaries: (u64, u64),
    /// Workers that were emptied so that they could go.
    pub emptied: u64,
    /// Writes to the store, and those whose outcome nobody was told.
    pub commits: u64,
    pub unknown: u64,
}

/// Simulates one seed; `print` shows the log as it grows, `sabotage` is wrong all the time.
pub fn simulate(seed: u64, faults_ms: u64, print: bool, sabotage: Option<Sabotage>) -> Outcome {
    let mut cluster = Cluster::new(seed, faults_ms, print, sabotage);
    let mut rest_since: Option<u64> = None;
    let mut looked_at = 0;
    loop {
        cluster.step();
        take_violations(&mut cluster);
        let now = cluster.queue.now();
        if !cluster.check.violations.is_empty() {
            break;
        }
        if cluster.events > EVENTS_MAX {
            cluster.check.violated("it_ends", "too many events");
            break;
        }
        let load_ends_at = cluster.outside.load_ends_at;
        if now < load_ends_at || now < looked_at + 500 {
            continue;
        }
        if looked_at == 0 {
            check_steady(&mut cluster);
        }
        looked_at = now;
        match cluster.unrest() {
            None => {
                let since = *rest_since.get_or_insert(now);
                let moved = cluster.targets.values().map(|target| target.since).max();
                let since = since.max(moved.unwrap_or(0));
                if now >= since + REST_MS {
                    break;
                }
            }
            Some(_) if now < load_ends_at + REST_MS_MAX => rest_since = None,
            Some(why) => {
                cluster.check.violated("it_comes_to_rest", &why);
                break;
            }
        }
        if now >= load_ends_at + REST_MS_MAX + REST_MS {
            cluster
                .check
                .violated("it_comes_to_rest", "counts still change");
            break;
        }
    }
    if cluster.check.violations.is_empty() {
        cluster.check.at_the_end();
        cluster.check_trials();
    }
    outcome(seed, &cluster)
}

/// The load has just ended. A count that falls once is no flapping, and cannot be told from it by
/// when it falls: on its way down the reactive policy looks at the most of the whole look-back
/// period (a pause between two waves shall take nothing away), and the sum over routers that each
/// report at their own time is above the load now and then. So a count that is one too many, from
/// before, stays until there is a lull for long enough, which is a matter of chance. Growing, or
/// falling twice, has no such excuse.
fn check_steady(cluster: &mut Cluster) {
    let steady_at = cluster.outside.load_ends_at - STEADY_MS_MIN;
    let flaps = |target: &Target| {
        let grew = target.since > steady_at && target.count > target.count_before;
        grew || target.since_before > steady_at
    };
    let moved = cluster.targets.iter().find(|(_, target)| flaps(target));
    if let Some((id, target)) = moved {
        let text = format!("{id}: {target:?}");
        cluster
            .check
            .violated("no_flapping_under_a_steady_load", &text);
    }
}

fn take_violations(cluster: &mut Cluster) {
    let mut store = cluster.store.lock();
    cluster.check.violations.append(&mut store.violations);
}

fn outcome(seed: u64, cluster: &Cluster) -> Outcome {
    let store = cluster.store.lock();
    let answers = cluster.check.answers.iter();
    Outcome {
        seed,
        hash: cluster.log.hash(),
        violations: cluster.check.violations.clone(),
        tail: cluster.log.tail(),
        events: cluster.events,
        virtual_ms: cluster.queue.now(),
        answers: answers
            .map(|(answer, count)| (format!("{answer:?}"), *count))
            .collect(),
        unheard_repeats: cluster.check.unheard_repeats,
        canaries: cluster.outside.canaries(),
        emptied: cluster.emptied.workers,
        commits: store.commits,
        unknown: store.unknown,
    }
}
