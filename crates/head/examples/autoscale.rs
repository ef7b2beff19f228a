//! The autoscaler by itself, for measuring it beside another one: reads the configuration and
//! then one state a line from standard input, writes the count that shall be, a line each.
//!
//! First line: `{"min_replicas": 1, "max_replicas": 20, "target_ongoing_requests": 2,
//! "max_ongoing_requests": 5, "look_back_period_s": 30, "upscale_delay_s": 30, "downscale_delay_s": 600, "policy": "default"}`;
//! all others: `{"ms": 100, "queued": 0, "ongoing": 3, "arrivals": 5, "served": 2, "service_us": 1000000,
//! "running": 1, "target": 1, "start_ms": 2000}`.

use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};

use mobula_head::world::autoscale::bounds::{Bounds, Capacity};
use mobula_head::world::autoscale::flow::{Counts, Piece};
use mobula_head::world::autoscale::policy::Standing;
use mobula_head::world::autoscale::window::Load;
use mobula_head::world::autoscale::{Autoscaler, schedule::Schedule};
use mobula_head::world::spec::{Aggregation, Autoscaling, Policy};
use serde::Deserialize;

#[derive(Deserialize)]
struct Config {
    min_replicas: u32,
    max_replicas: u32,
    target_ongoing_requests: f64,
    max_ongoing_requests: u32,
    look_back_period_s: f64,
    upscale_delay_s: f64,
    downscale_delay_s: f64,
    policy: String,
}

#[derive(Deserialize)]
struct State {
    ms: u64,
    queued: u64,
    ongoing: u64,
    arrivals: u64,
    served: u64,
    service_us: u64,
    running: u32,
    target: u32,
    start_ms: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut lines = stdin().lock().lines();
    let first = lines.next().ok_or("the configuration is missing")??;
    let config: Config = serde_json::from_str(&first)?;
    let autoscaling = autoscaling(&config);
    let bounds = Bounds::of(&autoscaling, Capacity::default());
    let mut autoscaler = Autoscaler::default();
    let mut reported = None;
    let mut out = stdout().lock();
    for line in lines {
        let state: State = serde_json::from_str(&line?)?;
        let load = Load {
            queued: state.queued,
            ongoing: state.ongoing,
        };
        let counts = Counts {
            arrivals: state.arrivals,
            served: state.served,
            service_us: state.service_us,
        };
        // The same again is no report.
        let (before, at_ms) = reported.unwrap_or((counts, state.ms));
        if reported.is_none() || before != counts || autoscaler.window.newest() != Some(load) {
            let piece = Piece::between_reports(at_ms, state.ms, counts.since(before));
            autoscaler.measure(&autoscaling, load, Some(piece), state.ms);
            reported = Some((counts, state.ms));
        }
        let standing = Standing {
            running: state.running,
            target: state.target,
            ongoing_max: config.max_ongoing_requests,
            start_ms: state.start_ms,
        };
        let decided = autoscaler.decide(&autoscaling, bounds, standing, true, state.ms);
        let target = decided.map_or(state.target, |(target, _)| target);
        writeln!(out, "{target}")?;
        out.flush()?;
    }
    Ok(())
}

fn autoscaling(config: &Config) -> Autoscaling {
    let ms = |seconds: f64| (seconds * 1000.0) as u64;
    Autoscaling {
        min_replicas: config.min_replicas,
        initial_replicas: None,
        max_replicas: config.max_replicas,
        target_ongoing_requests: config.target_ongoing_requests,
        look_back_ms: ms(config.look_back_period_s),
        aggregation: Aggregation::Mean,
        upscaling_factor: 1.0,
        downscaling_factor: 1.0,
        upscale_delay_ms: ms(config.upscale_delay_s),
        downscale_delay_ms: ms(config.downscale_delay_s),
        downscale_to_zero_delay_ms: ms(config.downscale_delay_s),
        policy: if config.policy == "reactive" {
            Policy::Reactive
        } else {
            Policy::Default
        },
        schedule: Schedule::default(),
    }
}
