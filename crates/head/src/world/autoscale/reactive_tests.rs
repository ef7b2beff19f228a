//! The `reactive` policy with a deployment as a model: arrivals, one line, replicas that take a
//! while to start. The clock is a number, so nothing here depends on a machine.

use proptest::prelude::*;

use super::super::spec::{Autoscaling, Policy};
use super::bounds::{Bounds, Capacity};
use super::flow::{Counts, Piece};
use super::policy::Standing;
use super::window::Load;
use super::{Autoscaler, Cause};

const STEP_MS: u64 = 50;
const CONTROL_MS: u64 = 100;
const REPORT_MS: u64 = 250;

/// What the model is like.
#[derive(Clone, Copy, Debug)]
struct Plant {
    service_ms: u64,
    start_ms: u64,
    ongoing_max: u32,
    /// Whether routers count what passes through.
    counts: bool,
}

#[derive(Default)]
struct Run {
    targets: Vec<u32>,
    causes: Vec<String>,
    waits_ms: Vec<u64>,
}

const PLANT: Plant = Plant {
    service_ms: 500,
    start_ms: 2_000,
    ongoing_max: 5,
    counts: true,
};

fn reactive() -> Autoscaling {
    Autoscaling {
        min_replicas: 1,
        policy: Policy::Reactive,
        downscale_delay_ms: 10_000,
        downscale_to_zero_delay_ms: 10_000,
        look_back_ms: 5_000,
        ..Autoscaling::for_tests()
    }
}

/// Lets `arrivals_at(ms, served)` requests arrive in each step.
fn simulate(
    plant: Plant,
    autoscaling: &Autoscaling,
    running: u32,
    ms: u64,
    mut arrivals_at: impl FnMut(u64, u64) -> u64,
) -> Run {
    let bounds = Bounds::of(autoscaling, Capacity::default());
    let mut scaler = Autoscaler::default();
    let mut run = Run::default();
    let (mut running, mut target) = (running, running);
    let (mut line, mut busy, mut starting) = (Vec::new(), Vec::new(), Vec::<u64>::new());
    let (mut counts, mut reported) = (Counts::default(), Counts::default());
    for now in (0..ms).step_by(STEP_MS as usize) {
        running += starting.iter().filter(|ready| **ready <= now).count() as u32;
        starting.retain(|ready| *ready > now);
        let before = busy.len();
        busy.retain(|end| *end > now);
        let served = (before - busy.len()) as u64;
        counts.served += served;
        counts.service_us += served * plant.service_ms * 1000;
        let arrivals = arrivals_at(now, served);
        counts.arrivals += arrivals;
        line.extend(std::iter::repeat_n(now, arrivals as usize));
        while !line.is_empty() && busy.len() < (running * plant.ongoing_max) as usize {
            run.waits_ms.push(now - line.remove(0));
            busy.push(now + plant.service_ms);
        }
        if now % REPORT_MS == 0 {
            let load = Load {
                queued: line.len() as u64,
                ongoing: busy.len() as u64,
            };
            let passed = plant.counts.then(|| {
                let since_ms = now.saturating_sub(REPORT_MS);
                Piece::between_reports(since_ms, now, counts.since(reported))
            });
            reported = counts;
            scaler.measure(autoscaling, load, passed, now);
        }
        if now % CONTROL_MS == 0 {
            let standing = Standing {
                running,
                target,
                ongoing_max: plant.ongoing_max,
                start_ms: plant.start_ms,
            };
            if let Some((to, cause)) = scaler.decide(autoscaling, bounds, standing, true, now) {
                target = to;
                run.causes.push(cause.to_string());
            }
            let there = running + starting.len() as u32;
            starting.extend(std::iter::repeat_n(
                now + plant.start_ms,
                target.saturating_sub(there) as usize,
            ));
            let excess = there.saturating_sub(target);
            let unborn = excess.min(starting.len() as u32);
            starting.truncate(starting.len() - unborn as usize);
            running -= excess - unborn;
        }
        run.targets.push(target);
    }
    run
}

/// Evenly spread arrivals at a rate that depends on time.
fn even(rate_of: impl Fn(u64) -> f64) -> impl FnMut(u64, u64) -> u64 {
    let mut due = 0.0;
    move |ms, _| {
        due += rate_of(ms) * STEP_MS as f64 / 1000.0;
        // What is due at an instant came by then, whatever the sum of many small parts says.
        let whole = (due + 1e-9_f64).floor();
        due -= whole;
        whole as u64
    }
}

/// Arrivals by chance, the same for the same seed.
fn random(rate_of: impl Fn(u64) -> f64, seed: u64) -> impl FnMut(u64, u64) -> u64 {
    let mut state = seed;
    let mut uniform = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    move |ms, _| {
        let limit = (-rate_of(ms) * STEP_MS as f64 / 1000.0).exp();
        let (mut product, mut count) = (uniform(), 0);
        while product > limit {
            product *= uniform();
            count += 1;
        }
        count
    }
}

fn flaps(targets: &[u32]) -> usize {
    let moved = targets.windows(2).filter(|pair| pair[0] != pair[1]);
    let mut up: Vec<bool> = moved.map(|pair| pair[1] > pair[0]).collect();
    up.dedup();
    up.len().saturating_sub(1)
}

fn index(ms: u64) -> usize {
    (ms / STEP_MS) as usize
}

/// 8 requests a second, and from the 20th second on ten times as many: 20 replicas.
fn step(ms: u64) -> f64 {
    if ms < 20_000 { 8.0 } else { 80.0 }
}

#[test]
fn a_step_is_followed_within_a_second_and_not_exceeded() {
    let run = simulate(PLANT, &reactive(), 2, 120_000, even(step));
    assert_eq!(run.targets[index(20_000)], 2);
    assert_eq!(run.targets[index(21_000)], 20);
    assert_eq!(run.targets.iter().max(), Some(&20));
    assert_eq!(flaps(&run.targets), 0);
    let last = run.causes.last().unwrap();
    assert!(
        last.starts_with("80.0 requests per second of 0.500 s each,"),
        "{last}"
    );
}

#[test]
fn a_line_that_grows_while_replicas_start_is_no_load_of_its_own() {
    for start_ms in [500, 10_000, 60_000] {
        let plant = Plant { start_ms, ..PLANT };
        let run = simulate(plant, &reactive(), 2, 200_000, even(step));
        assert_eq!(run.targets.iter().max(), Some(&20), "start {start_ms}");
    }
}

#[test]
fn a_line_that_stays_brings_replicas_although_no_more_requests_come_than_are_answered() {
    // One client, then ten, each of which asks again when it was answered, and replicas that
    // take two requests.
    let plant = Plant {
        ongoing_max: 2,
        start_ms: 1_000,
        ..PLANT
    };
    let clients = |ms: u64, served: u64| match ms {
        0 => 1,
        20_000 => 9 + served,
        _ => served,
    };
    let run = simulate(plant, &reactive(), 1, 60_000, clients);
    assert_eq!(run.targets[index(19_000)], 1);
    let most = run.targets[index(26_000)..].iter().max();
    assert!((Some(&5)..=Some(&7)).contains(&most), "{:?}", run.causes);
    assert!(run.causes[0].contains(" waiting, "), "{:?}", run.causes);
}

#[test]
fn routers_that_do_not_count_are_understood() {
    let plant = Plant {
        counts: false,
        ..PLANT
    };
    let run = simulate(plant, &reactive(), 2, 60_000, even(step));
    assert!(run.targets[index(21_000)] >= 20);
    assert!(
        run.causes[0].contains("ongoing requests"),
        "{:?}",
        run.causes
    );
}

#[test]
fn from_zero_a_known_load_brings_all_that_it_needs_at_once() {
    let autoscaling = Autoscaling {
        min_replicas: 0,
        ..reactive()
    };
    let rate = |ms| match ms {
        0..20_000 => 8.0,
        20_000..100_000 => 0.0,
        _ => 80.0,
    };
    let run = simulate(PLANT, &autoscaling, 2, 130_000, even(rate));
    assert_eq!(run.targets[index(99_000)], 0);
    // Long before the first replica is there.
    assert!(run.targets[index(101_000)] >= 18, "{:?}", run.causes);
    assert_eq!(run.targets[index(129_000)], 20);
    assert!(
        Cause::FromZero { requests: 4.0 }
            .to_string()
            .contains("4 requests wait")
    );
}

#[test]
fn a_few_requests_that_take_long_are_no_more_than_they_are() {
    let plant = Plant {
        service_ms: 30_000,
        ..PLANT
    };
    let burst = |ms| {
        if (60_000..61_000).contains(&ms) {
            8.0
        } else {
            0.2
        }
    };
    let run = simulate(plant, &reactive(), 4, 120_000, even(burst));
    // 6 at a time and 8 more: 14.
    let most = run.targets.iter().max().unwrap();
    assert!((7..=8).contains(most), "{most}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn whatever_the_step_it_is_followed_and_hardly_exceeded(
        low in 0.0f64..20.0, high in 30.0f64..200.0, service_ms in 1u64..40,
        start_ms in 0u64..20_000, goal in 1u32..4,
    ) {
        let service_ms = service_ms * STEP_MS;
        let plant = Plant { service_ms, start_ms, ongoing_max: 2 * goal, counts: true };
        let autoscaling = Autoscaling {
            target_ongoing_requests: f64::from(goal),
            max_replicas: 1000,
            ..reactive()
        };
        let needs = |rate: f64| (rate * service_ms as f64 / 1000.0 / f64::from(goal)).ceil() as u32;
        let rate = |ms| if ms < 30_000 { low } else { high };
        let run = simulate(plant, &autoscaling, needs(low).max(1), 120_000, even(rate));
        let most = *run.targets.iter().max().unwrap();
        prop_assert!(most <= needs(high) + 1 + needs(high) / 10, "{most} of {} {:?}", needs(high), run.causes);
        // A request that takes long is only known to take long once it is answered.
        let soon = if high >= 4.0 * low { 31_000 } else { 41_000 };
        let soon = index(soon + 2 * service_ms + start_ms);
        prop_assert!(run.targets[soon] + 1 >= needs(high), "{} of {}", run.targets[soon], needs(high));
        // What went too far comes back; one replica more or less is within what is measured.
        prop_assert!(flaps(&run.targets[index(30_000)..]) <= 6);
    }

    #[test]
    fn chance_alone_moves_little(seed in any::<u64>(), rate in 2.0f64..100.0) {
        let run = simulate(PLANT, &reactive(), 50, 300_000, random(|_| rate, seed));
        let settled = &run.targets[index(60_000)..];
        let needed = rate * 0.5 / 2.0;
        let most = f64::from(*settled.iter().max().unwrap());
        prop_assert!(most <= 1.6 * needed + 3.0, "{most} of {needed}");
        prop_assert!(flaps(settled) <= 12, "{:?}", settled);
    }

    #[test]
    fn waves_are_followed_without_flapping(
        seed in any::<u64>(), period_s in 60u64..300, sawtooth in any::<bool>(),
    ) {
        let rate = move |ms: u64| {
            let part = ms as f64 / 1000.0 / period_s as f64;
            if sawtooth { 8.0 + 72.0 * part.fract() } else { 44.0 - 36.0 * (part * std::f64::consts::TAU).cos() }
        };
        let run = simulate(PLANT, &reactive(), 2, 600_000, random(rate, seed));
        let most = *run.targets.iter().max().unwrap();
        prop_assert!((17..=32).contains(&most), "{most}");
        let late = run.waits_ms.iter().filter(|wait| **wait > 500).count();
        prop_assert!(late * 100 < run.waits_ms.len(), "{late} of {}", run.waits_ms.len());
        prop_assert!(flaps(&run.targets) as u64 <= 4 * 600 / period_s + 4, "{}", flaps(&run.targets));
    }
}
