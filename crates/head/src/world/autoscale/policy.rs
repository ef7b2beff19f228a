//! How many replicas the load asks for, before delays and bounds.

use super::super::spec::{Aggregation, Autoscaling, Policy};
use super::window::{Load, Window};

/// The span from which the reactive policy judges growth.
pub const REACTIVE_SPAN_MS: u64 = 1000;

/// What a policy looks at.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Replicas that answer.
    pub running: u32,
    /// Replicas that shall.
    pub target: u32,
}

/// What the load asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wish {
    pub replicas: u32,
    /// The requests that it was computed from.
    pub requests: f64,
    /// Nobody answers and somebody waits: no delay.
    pub from_zero: bool,
}

/// None: nothing was measured, so nothing is known.
pub fn wish(
    autoscaling: &Autoscaling,
    window: &Window,
    standing: Standing,
    now_ms: u64,
) -> Option<Wish> {
    let newest = window.newest()?;
    if standing.running == 0 {
        return Some(without_replicas(autoscaling, newest, standing.target));
    }
    let requests = match autoscaling.policy {
        Policy::Default => window.total(now_ms, autoscaling.look_back_ms, autoscaling.aggregation),
        Policy::Reactive => reactive(autoscaling, window, standing, now_ms),
    }?;
    Some(Wish {
        replicas: scaled(autoscaling, standing.running, requests),
        requests,
        from_zero: false,
    })
}

/// Nobody answers: nothing changes but that whoever waits gets a first replica.
fn without_replicas(autoscaling: &Autoscaling, newest: Load, target: u32) -> Wish {
    let somebody_waits = newest.total() > 0;
    let first = autoscaling.upscaling_factor.ceil() as u32;
    Wish {
        replicas: if somebody_waits {
            first.max(1).max(target)
        } else {
            target
        },
        requests: newest.total() as f64,
        from_zero: somebody_waits,
    }
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

/// Requests in progress are arrivals times service time (Little's law), so their mean over one
/// second follows both; what waits comes on top, and its growth for another second, the time
/// that passes until a decision can help. Going down, the most of the whole look-back counts,
/// so that a pause between two waves costs nothing.
fn reactive(
    autoscaling: &Autoscaling,
    window: &Window,
    standing: Standing,
    now_ms: u64,
) -> Option<f64> {
    let mean =
        |part: fn(Load) -> u64| window.aggregate(now_ms, REACTIVE_SPAN_MS, Aggregation::Mean, part);
    let ongoing = mean(|load| load.ongoing)?;
    let queued_before = mean(|load| load.queued)?;
    let queued = window.newest()?.queued as f64;
    // The mean of a line is half of its growth behind its end.
    let growth = 2.0 * (queued - queued_before).max(0.0);
    let demand = ongoing + queued + growth;
    let most = window.total(now_ms, autoscaling.look_back_ms, Aggregation::Max)?;
    let needs = |requests: f64| requests / autoscaling.target_ongoing_requests;
    if needs(demand).ceil() < f64::from(standing.target) {
        // The most was carried by the count of now, or asked for more already.
        return Some(most.min(f64::from(standing.target) * autoscaling.target_ongoing_requests));
    }
    Some(demand)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    #[test]
    fn each_replica_gets_the_target_of_ongoing_requests() {
        let autoscaling = Autoscaling::for_tests();
        let wish = |running, target, total| {
            let standing = Standing { running, target };
            let window = flat(0, total);
            wish(&autoscaling, &window, standing, 1000)
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
            let standing = Standing { running: 0, target };
            wish(&autoscaling, &flat(total, 0), standing, 0).unwrap()
        };
        assert_eq!((wish(0, 1).replicas, wish(0, 1).from_zero), (3, true));
        assert_eq!(wish(7, 1).replicas, 7);
        assert_eq!((wish(0, 0).replicas, wish(0, 0).from_zero), (0, false));
        assert_eq!(wish(2, 0).replicas, 2);
    }

    #[test]
    fn a_queue_that_grows_counts_for_the_second_to_come_with_the_reactive_policy() {
        let autoscaling = Autoscaling {
            policy: Policy::Reactive,
            ..Autoscaling::for_tests()
        };
        let mut window = flat(0, 2);
        for (at_ms, queued) in [(10_000, 2), (10_250, 4), (10_500, 6), (10_750, 8)] {
            window.push(at_ms, Load { queued, ongoing: 2 }, 30_000);
        }
        let standing = Standing {
            running: 1,
            target: 1,
        };
        let wish = wish(&autoscaling, &window, standing, 11_000).unwrap();
        // 2 in progress, 8 waiting, 5 on average before: 6 more to come.
        assert_eq!((wish.requests, wish.replicas), (16.0, 8));
    }

    #[test]
    fn the_reactive_policy_keeps_what_the_last_wave_needed() {
        let autoscaling = Autoscaling {
            policy: Policy::Reactive,
            ..Autoscaling::for_tests()
        };
        let mut window = flat(0, 20);
        window.push(5000, Load::default(), 30_000);
        let standing = Standing {
            running: 6,
            target: 6,
        };
        let at = |now_ms| wish(&autoscaling, &window, standing, now_ms).unwrap();
        assert_eq!(at(20_000).replicas, 6);
        assert_eq!(at(35_001).replicas, 0);
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
