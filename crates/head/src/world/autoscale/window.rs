//! The load of one deployment over the last while, as a step function of time.

use std::collections::VecDeque;

use super::super::spec::Aggregation;

/// Times are rounded to this, as Ray does it.
const RESOLUTION_MS_MIN: u64 = 10;

/// Steps that a window keeps at most: a longer window has coarser steps.
const STEPS_MAX: u64 = 1024;

/// Requests of one deployment at one moment, over all routers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Not yet with a replica.
    pub queued: u64,
    /// With a replica.
    pub ongoing: u64,
}

/// From `at_ms` on the load was this.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    at_ms: u64,
    load: Load,
}

/// The steps of the last `look_back_ms`, and the one that was in force when that began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    steps: VecDeque<Step>,
}

// === impl Load ===

impl Load {
    /// All that has come and was not answered.
    pub fn total(self) -> u64 {
        self.queued + self.ongoing
    }
}

// === impl Window ===

impl Window {
    /// From now on the load is this.
    pub fn push(&mut self, now_ms: u64, load: Load, look_back_ms: u64) {
        let resolution = (look_back_ms / STEPS_MAX).max(RESOLUTION_MS_MIN);
        match self.steps.back_mut() {
            Some(last) if last.load == load => {}
            // Within one step the newest counts.
            Some(last) if now_ms / resolution == last.at_ms / resolution => last.load = load,
            Some(_) | None => self.steps.push_back(Step {
                at_ms: now_ms,
                load,
            }),
        }
        self.forget(now_ms.saturating_sub(look_back_ms));
    }

    /// Drops the steps that ended before.
    pub fn forget(&mut self, before_ms: u64) {
        while self
            .steps
            .get(1)
            .is_some_and(|next| next.at_ms <= before_ms)
        {
            self.steps.pop_front();
        }
    }

    /// The load now; None: nothing was ever measured.
    pub fn newest(&self) -> Option<Load> {
        self.steps.back().map(|step| step.load)
    }

    /// The load at a moment, or the oldest that is known.
    pub fn at(&self, ms: u64) -> Option<Load> {
        let mut steps = self.steps.iter().rev();
        let step = steps.find(|step| step.at_ms <= ms);
        step.or(self.steps.front()).map(|step| step.load)
    }

    /// Whether the load was the same all the time.
    pub fn is_flat(&self) -> bool {
        self.steps.len() <= 1
    }

    /// Queued and ongoing requests over the last `span_ms`, or over what is known of it.
    pub fn total(&self, now_ms: u64, span_ms: u64, how: Aggregation) -> Option<f64> {
        self.aggregate(now_ms, span_ms, how, Load::total)
    }

    /// As [`Window::total`], of any part of the load.
    pub fn aggregate(
        &self,
        now_ms: u64,
        span_ms: u64,
        how: Aggregation,
        part: impl Fn(Load) -> u64,
    ) -> Option<f64> {
        let begin = now_ms.saturating_sub(span_ms);
        let ends = self.steps.iter().skip(1).map(|step| step.at_ms);
        let ends = ends.chain([now_ms.max(begin)]);
        let pieces = self.steps.iter().zip(ends).filter_map(|(step, end)| {
            // The newest counts even if it has lasted no time yet.
            let is_newest = self.steps.back() == Some(step);
            let lasted = end.saturating_sub(step.at_ms.max(begin));
            (lasted > 0 || is_newest).then(|| (part(step.load) as f64, lasted as f64))
        });
        let values = pieces.clone().map(|(value, _)| value);
        match how {
            Aggregation::Max => values.reduce(f64::max),
            Aggregation::Min => values.reduce(f64::min),
            Aggregation::Mean => {
                let (area, time) = pieces.fold((0.0, 0.0), |(area, time), (value, lasted)| {
                    (area + value * lasted, time + lasted)
                });
                if time > 0.0 {
                    Some(area / time)
                } else {
                    self.newest().map(|load| part(load) as f64)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn load(total: u64) -> Load {
        Load {
            queued: total / 2,
            ongoing: total - total / 2,
        }
    }

    fn window(steps: &[(u64, u64)], look_back_ms: u64) -> Window {
        let mut window = Window::default();
        for (at_ms, total) in steps {
            window.push(*at_ms, load(*total), look_back_ms);
        }
        window
    }

    #[test]
    fn the_mean_is_weighted_by_time_and_the_last_value_is_carried_forward() {
        let window = window(&[(0, 10), (1000, 0), (3000, 4)], 30_000);
        let total = |now, span, how| window.total(now, span, how);
        assert_eq!(total(4000, 30_000, Aggregation::Mean), Some(3.5));
        assert_eq!(total(4000, 1000, Aggregation::Mean), Some(4.0));
        assert_eq!(total(4000, 2000, Aggregation::Mean), Some(2.0));
        assert_eq!(total(4000, 30_000, Aggregation::Max), Some(10.0));
        assert_eq!(total(4000, 2000, Aggregation::Max), Some(4.0));
        assert_eq!(total(4000, 30_000, Aggregation::Min), Some(0.0));
        assert_eq!(total(60_000, 30_000, Aggregation::Min), Some(4.0));
    }

    #[test]
    fn the_first_value_counts_at_once_and_nothing_measured_is_not_zero() {
        assert_eq!(Window::default().total(5, 10, Aggregation::Mean), None);
        assert_eq!(Window::default().total(5, 10, Aggregation::Max), None);
        let window = window(&[(7, 3)], 1000);
        assert_eq!(window.total(7, 1000, Aggregation::Mean), Some(3.0));
        assert!(window.is_flat());
    }

    #[test]
    fn what_ended_before_the_window_is_forgotten_and_the_step_in_force_is_kept() {
        let mut window = window(&[(0, 1), (100, 2), (200, 3)], 10_000);
        window.forget(150);
        assert_eq!(window.steps.len(), 2);
        window.forget(10_000);
        assert_eq!(window.newest(), Some(load(3)));
        assert!(window.is_flat());
    }

    proptest! {
        #[test]
        fn a_window_is_bounded_and_its_mean_lies_between_its_extremes(
            changes in proptest::collection::vec((0u64..400, 0u64..50), 1..3000),
            look_back_ms in 1u64..60_000,
        ) {
            let mut window = Window::default();
            let mut now = 0;
            for (pause, total) in changes {
                now += pause;
                window.push(now, load(total), look_back_ms);
                prop_assert!(window.steps.len() as u64 <= STEPS_MAX + 2);
            }
            let of = |how| window.total(now, look_back_ms, how).unwrap();
            let (low, mean, high) =
                (of(Aggregation::Min), of(Aggregation::Mean), of(Aggregation::Max));
            prop_assert!(low <= mean + 1e-9 && mean <= high + 1e-9);
        }
    }
}
