//! The `reactive` policy: sized by Little's law.
//!
//! Requests in progress are arrivals per second times service time. Both are measured, so that a
//! jump of the load is known as soon as it is reported, before any line has grown, and a line
//! that grows while replicas still start does not count as load. What waits counts apart: by
//! what it takes to be gone in time, and in full when it does not become shorter by itself.
//!
//! Going down, the most of the whole look-back period counts, so that a pause between two waves
//! costs nothing.

use super::super::spec::{Aggregation, Autoscaling};
use super::flow::Flow;
use super::policy::{Basis, Measured, Standing};
use super::window::Load;

/// The shortest while that says anything: two reports of a router.
const FAST_MS: u64 = 500;

/// The ends of a while that are looked at for a jump.
const FAST_ENDS_MS: [u64; 4] = [FAST_MS, 1_000, 2_000, 3_000];

/// A while: the longer, the less chance is in it.
const SLOW_MS_MIN: u64 = 10_000;

/// Where one request takes longer than that, arrivals are few: a while is at least one of them.
const SLOW_MS_MAX: u64 = 30_000;

/// A line has this long to become shorter by itself.
const LINE_MS: u64 = 1_000;

/// What waits shall be gone within this time, or within the time that a replica takes to start.
const DRAIN_S_MIN: f64 = 5.0;

/// Less than so much of a replica is no reason for one: measurements are that coarse.
const REPLICA_PART_MIN: f64 = 0.1;

/// What takes longer to start than this is stuck.
const START_MS_MAX: u64 = 600_000;

/// So many standard deviations are no chance any more; a few requests more or less always are.
const DEVIATIONS: f64 = 5.0;
const CHANCE_REQUESTS: f64 = 3.0;

/// The load, as a number of ongoing requests that each replica shall have its part of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    pub requests: f64,
    pub basis: Basis,
}

/// None: nothing was measured.
pub fn demand(
    autoscaling: &Autoscaling,
    measured: Measured<'_>,
    standing: Standing,
    now_ms: u64,
) -> Option<Demand> {
    let window = measured.window;
    let found = match by_flow(autoscaling, measured, standing, now_ms) {
        Some(demand) => demand,
        None => by_load(measured, now_ms)?,
    };
    let needs = |requests: f64| (requests / autoscaling.target_ongoing_requests).ceil();
    if needs(found.requests) >= f64::from(standing.target) {
        return Some(found);
    }
    // The most was carried by the count of now, or asked for more already.
    let most = window.total(now_ms, autoscaling.look_back_ms, Aggregation::Max)?;
    let carried = f64::from(standing.target) * autoscaling.target_ongoing_requests;
    Some(Demand {
        requests: most.min(carried).max(found.requests),
        basis: Basis::Ongoing,
    })
}

/// Nobody answers yet: what waits, or less where it is soon done. None: not known.
pub fn first(
    autoscaling: &Autoscaling,
    load: Load,
    flow: Option<&Flow>,
    now_ms: u64,
) -> Option<f64> {
    let flow = flow?;
    let service_s = flow.service_s()?;
    let rate = flow.rate(now_ms, FAST_MS);
    let requests = (rate * service_s).min(load.total() as f64);
    Some(requests / autoscaling.target_ongoing_requests)
}

fn by_flow(
    autoscaling: &Autoscaling,
    measured: Measured<'_>,
    standing: Standing,
    now_ms: u64,
) -> Option<Demand> {
    let Measured { window, flow, .. } = measured;
    let flow = flow?;
    let service_s = flow.service_s()?;
    let load = window.newest()?;
    let slow_ms = ((service_s * 1000.0) as u64).clamp(SLOW_MS_MIN, SLOW_MS_MAX);
    let rate = rate(flow, slow_ms, now_ms);
    // A burst of requests that take long is no more than it is.
    let most = window.total(now_ms, LINE_MS, Aggregation::Max)?;
    let in_progress = (rate * service_s).min(most);
    let drain_s = DRAIN_S_MIN.max(standing.start_ms.min(START_MS_MAX) as f64 / 1000.0);
    let goal = autoscaling.target_ongoing_requests;
    // Replicas may have more than their goal while they work a line off.
    let with_line = in_progress + load.queued as f64 * service_s / drain_s;
    let with_line = with_line * goal / f64::from(standing.ongoing_max.max(1));
    let standing_line = line_that_stays(measured, service_s, now_ms).unwrap_or(0.0);
    let requests = in_progress.max(with_line).max(standing_line);
    let no_reason = REPLICA_PART_MIN * goal;
    Some(Demand {
        requests: (requests - no_reason).max(requests.min(no_reason)),
        basis: Basis::Flow {
            per_s: rate,
            service_s,
            queued: load.queued,
        },
    })
}

/// Arrivals per second: of the last while, or of the busiest end of it, if more came in it than
/// chance would have it.
fn rate(flow: &Flow, slow_ms: u64, now_ms: u64) -> f64 {
    let slow_ms = slow_ms.min(flow.known_ms(now_ms)).max(FAST_MS);
    let all = flow.arrivals(now_ms, slow_ms);
    let mut found = all * 1000.0 / slow_ms as f64;
    for end_ms in FAST_ENDS_MS.into_iter().filter(|end| *end < slow_ms) {
        let came = flow.arrivals(now_ms, end_ms);
        let share = end_ms as f64 / (slow_ms - end_ms) as f64;
        let expected = (all - came).max(0.0) * share;
        let deviation = (expected * (1.0 + share)).sqrt();
        if came > expected + DEVIATIONS * deviation + CHANCE_REQUESTS {
            found = found.max(came * 1000.0 / end_ms as f64);
        }
    }
    found
}

/// How long a line has to become shorter: replicas that are full let nobody in for one service
/// time.
fn line_ms(service_s: f64) -> u64 {
    LINE_MS.max((2000.0 * service_s) as u64)
}

/// Somebody waited all the time since as many replicas answer as shall, and the line is not
/// shorter now: everybody in it is one too many.
fn line_that_stays(measured: Measured<'_>, service_s: f64, now_ms: u64) -> Option<f64> {
    let span_ms = line_ms(service_s);
    if measured.settled_ms < span_ms {
        return None;
    }
    let window = measured.window;
    let shortest = window.aggregate(now_ms, span_ms, Aggregation::Min, |load| load.queued)?;
    let before = window.at(now_ms.saturating_sub(span_ms))?.queued;
    if shortest > 0.0 && window.newest()?.queued >= before {
        window.total(now_ms, span_ms, Aggregation::Mean)
    } else {
        None
    }
}

/// From requests in progress and waiting alone, where nothing was served yet; where the routers
/// do not count, their mean over one second, what waits now, and what the line will have grown by
/// in another second.
fn by_load(measured: Measured<'_>, now_ms: u64) -> Option<Demand> {
    let window = measured.window;
    let load = window.newest()?;
    if measured.flow.is_some() {
        return Some(Demand {
            requests: load.total() as f64,
            basis: Basis::Ongoing,
        });
    }
    let mean = |part: fn(Load) -> u64| window.aggregate(now_ms, LINE_MS, Aggregation::Mean, part);
    let ongoing = mean(|load| load.ongoing)?;
    let queued_before = mean(|load| load.queued)?;
    let queued = load.queued as f64;
    // The mean of a line is half of its growth behind its end.
    let growth = 2.0 * (queued - queued_before).max(0.0);
    Some(Demand {
        requests: ongoing + queued + growth,
        basis: Basis::Ongoing,
    })
}
