//! How many replicas the load asks for, before delays and bounds.

use super::super::spec::{Autoscaling, Policy};
use super::flow::Flow;
use super::reactive;
use super::window::Window;

/// What a policy looks at.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Replicas that answer.
    pub running: u32,
    /// Replicas that shall.
    pub target: u32,
    /// Requests that each of them takes at a time.
    pub ongoing_max: u32,
    /// How long one takes to start, as far as it is known.
    pub start_ms: u64,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    /// Requests in progress and waiting.
    pub window: &'a Window,
    /// What passed through, if all routers count it.
    pub flow: Option<&'a Flow>,
    /// For how long as many replicas have answered as shall.
    pub settled_ms: u64,
}

/// What the load asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wish {
    pub replicas: u32,
    /// The requests that it was computed from.
    pub requests: f64,
    pub basis: Basis,
}

/// Where a wish comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Basis {
    /// Requests in progress and waiting.
    Ongoing,
    /// Arrivals, how long a replica has each of them, and those that wait.
    Flow {
        per_s: f64,
        service_s: f64,
        queued: u64,
    },
    /// Nobody answers and somebody waits: no delay.
    FromZero,
}

/// None: nothing was measured, so nothing is known.
pub fn wish(
    autoscaling: &Autoscaling,
    measured: Measured<'_>,
    standing: Standing,
    now_ms: u64,
) -> Option<Wish> {
    if standing.running == 0 {
        return without_replicas(autoscaling, measured, standing.target, now_ms);
    }
    let (requests, basis) = match autoscaling.policy {
        Policy::Default => {
            let (span_ms, how) = (autoscaling.look_back_ms, autoscaling.aggregation);
            let total = measured.window.total(now_ms, span_ms, how)?;
            (total, Basis::Ongoing)
        }
        Policy::Reactive => {
            let demand = reactive::demand(autoscaling, measured, standing, now_ms)?;
            (demand.requests, demand.basis)
        }
    };
    Some(Wish {
        replicas: scaled(autoscaling, standing.running, requests),
        requests,
        basis,
    })
}

/// Nobody answers: nothing changes but that whoever waits gets a first replica, or as many as the
/// load is known to need.
fn without_replicas(
    autoscaling: &Autoscaling,
    measured: Measured<'_>,
    target: u32,
    now_ms: u64,
) -> Option<Wish> {
    let load = measured.window.newest()?;
    let requests = load.total() as f64;
    if load.total() == 0 {
        return Some(Wish {
            replicas: target,
            requests,
            basis: Basis::Ongoing,
        });
    }
    let needed = match autoscaling.policy {
        Policy::Default => None,
        Policy::Reactive => reactive::first(autoscaling, load, measured.flow, now_ms),
    };
    let first = autoscaling
        .upscaling_factor
        .max(needed.unwrap_or(0.0))
        .ceil() as u32;
    Some(Wish {
        replicas: first.max(1).max(target),
        requests,
        basis: Basis::FromZero,
    })
}

/// Ray's formula: so many replicas that each has `target_ongoing_requests`, approached by the
/// factor of the direction.
fn scaled(autoscaling: &Autoscaling, running: u32, requests: f64) -> u32 {
    let running = f64::from(running);
    let desired = requests / autoscaling.target_ongoing_requests;
    let factor = if desired > running {
        autoscaling.upscaling_factor
    } else {
        autoscaling.downscaling_factor
    };
    let scaled = (running + factor * (desired - running)).ceil();
    // Rounding up must not keep the count for ever.
    if desired.ceil() < running && scaled >= running {
        return (running - 1.0) as u32;
    }
    // Saturates where the factor overshoots in either direction.
    scaled.max(0.0) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::window::Load;
    use super::*;

    /// Ray's formula as its documentation has it, in the order of its code.
    fn of_ray(running: u32, requests: f64, goal: f64, up: f64, down: f64) -> i64 {
        let running = f64::from(running);
        let desired = running * (requests / (goal * running));
        let factor = if desired > running { up } else { down };
        let mut scaled = (running + factor * (desired - running)).ceil();
        if desired.ceil() < running && scaled == running {
            scaled = running - 1.0;
        }
        scaled as i64
    }

    fn flat(queued: u64, ongoing: u64) -> Window {
        let mut window = Window::default();
        window.push(0, Load { queued, ongoing }, 30_000);
        window
    }

    fn measured(window: &Window) -> Measured<'_> {
        Measured {
            window,
            flow: None,
            settled_ms: 0,
        }
    }

    #[test]
    fn each_replica_gets_the_target_of_ongoing_requests() {
        let autoscaling = Autoscaling::for_tests();
        let wish = |running, target, total| {
            let standing = Standing::for_tests(running, target);
            let window = flat(0, total);
            wish(&autoscaling, measured(&window), standing, 1000)
                .unwrap()
                .replicas
        };
        assert_eq!(wish(1, 1, 0), 0);
        assert_eq!(wish(1, 1, 2), 1);
        assert_eq!(wish(1, 1, 3), 2);
        assert_eq!(wish(4, 4, 21), 11);
        assert_eq!(wish(10, 10, 4), 2);
    }

    #[test]
    fn from_zero_somebody_who_waits_gets_a_replica_at_once_and_nobody_gets_none() {
        let autoscaling = Autoscaling {
            upscaling_factor: 2.5,
            ..Autoscaling::for_tests()
        };
        let wish = |target, total| {
            let standing = Standing::for_tests(0, target);
            let wish = wish(&autoscaling, measured(&flat(total, 0)), standing, 0).unwrap();
            (wish.replicas, wish.basis)
        };
        assert_eq!(wish(0, 1), (3, Basis::FromZero));
        assert_eq!(wish(7, 1), (7, Basis::FromZero));
        assert_eq!(wish(0, 0), (0, Basis::Ongoing));
        assert_eq!(wish(2, 0), (2, Basis::Ongoing));
    }

    proptest! {
        #[test]
        fn the_default_policy_is_rays_formula(
            running in 1u32..2000, requests in 0.0f64..5000.0, goal in 0.1f64..50.0,
            up in 0.1f64..3.0, down in 0.1f64..1.0,
        ) {
            let autoscaling = Autoscaling {
                target_ongoing_requests: goal,
                upscaling_factor: up,
                downscaling_factor: down,
                ..Autoscaling::for_tests()
            };
            let theirs = of_ray(running, requests, goal, up, down);
            let ours = i64::from(scaled(&autoscaling, running, requests));
            // The two divide in another order, which may round the other way at an integer.
            let exact = requests / goal;
            prop_assume!((exact - exact.round()).abs() > 1e-6);
            prop_assert_eq!(ours, theirs.max(0));
        }
    }
}
