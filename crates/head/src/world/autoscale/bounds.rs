//! Between which counts a deployment may move: the config's, at the cluster's capacity.

use mobula_spec::scaled_count;

use super::super::deployment_status::Direction;
use super::super::spec::Autoscaling;

/// `target_capacity`, and which way it went (Ray's rules, for clusters that are filled or
/// drained beside another one).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Capacity {
    /// None: all of it.
    pub percent: Option<f64>,
    /// None: it does not move.
    pub direction: Option<Direction>,
}

/// The least and the most replicas, inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub least: u32,
    pub most: u32,
    /// Counts are multiples of it: the size of a gang.
    pub step: u32,
}

// === impl Capacity ===

impl Capacity {
    /// What follows from a new value. `brand_new`: nothing was deployed before.
    pub fn changed_to(self, percent: Option<f64>, brand_new: bool) -> Capacity {
        let direction = match (self.percent, percent) {
            (_, None) => None,
            (_, Some(_)) if brand_new => Some(Direction::Up),
            (None, Some(_)) => Some(Direction::Down),
            (Some(before), Some(now)) if now > before => Some(Direction::Up),
            (Some(before), Some(now)) if now < before => Some(Direction::Down),
            (Some(_), Some(_)) => self.direction,
        };
        Capacity { percent, direction }
    }
}

// === impl Bounds ===

impl Bounds {
    /// The bounds that count now. While capacity rises, the count does not fall below the
    /// initial one: a new cluster must not collapse while it warms up.
    pub fn of(autoscaling: &Autoscaling, capacity: Capacity) -> Bounds {
        let least = match (capacity.direction, autoscaling.initial_replicas) {
            (Some(Direction::Up), Some(initial)) => initial,
            (Some(Direction::Up | Direction::Down) | None, _) => autoscaling.min_replicas,
        };
        let most = scaled_count(autoscaling.max_replicas, capacity.percent);
        Bounds {
            least: scaled_count(least, capacity.percent).min(most),
            most,
            step: 1,
        }
    }

    /// The same for gangs of that size: whole ones, at least one where any replica may run.
    pub fn in_steps_of(self, step: u32) -> Bounds {
        let step = step.max(1);
        let up = |count: u32| count.div_ceil(step).saturating_mul(step);
        let most = (self.most - self.most % step).max(up(self.most.min(1)));
        Bounds {
            least: up(self.least).min(most),
            most,
            step,
        }
    }

    /// The same with a minimum that holds for a while.
    pub fn raised_to(self, minimum: u32, capacity: Capacity) -> Bounds {
        let minimum = scaled_count(minimum, capacity.percent).min(self.most);
        Bounds {
            least: self.least.max(minimum),
            ..self
        }
    }

    pub fn clamp(self, count: u32) -> u32 {
        let step = self.step.max(1);
        let whole = count.div_ceil(step).saturating_mul(step);
        whole.clamp(self.least, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Option<Direction> = Some(Direction::Up);
    const DOWN: Option<Direction> = Some(Direction::Down);

    fn after(values: &[(Option<f64>, bool)]) -> Capacity {
        let start = Capacity::default();
        values.iter().fold(start, |capacity, (percent, brand_new)| {
            capacity.changed_to(*percent, *brand_new)
        })
    }

    #[test]
    fn the_direction_follows_the_values_as_with_ray() {
        let of = |values: &[(Option<f64>, bool)]| after(values).direction;
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(Some(50.0), true)]), UP);
        assert_eq!(of(&[(None, true), (Some(90.0), false)]), DOWN);
        assert_eq!(of(&[(Some(20.0), true), (Some(20.0), false)]), UP);
        assert_eq!(of(&[(Some(20.0), true), (Some(10.0), false)]), DOWN);
        let again = [(Some(20.0), true), (Some(10.0), false), (Some(30.0), false)];
        assert_eq!(of(&again), UP);
        assert_eq!(of(&[(Some(20.0), true), (None, false)]), None);
    }

    #[test]
    fn counts_of_gangs_are_whole_gangs() {
        let autoscaling = Autoscaling {
            min_replicas: 1,
            max_replicas: 7,
            ..Autoscaling::for_tests()
        };
        let bounds = Bounds::of(&autoscaling, Capacity::default()).in_steps_of(3);
        assert_eq!((bounds.least, bounds.most), (3, 6));
        assert_eq!(
            [0, 1, 4, 6, 7].map(|count| bounds.clamp(count)),
            [3, 3, 6, 6, 6]
        );
        let of_eight = Bounds::of(&autoscaling, Capacity::default()).in_steps_of(8);
        assert_eq!((of_eight.least, of_eight.most), (8, 8));
    }

    #[test]
    fn bounds_shrink_with_the_capacity_and_start_at_the_initial_count_on_the_way_up() {
        let autoscaling = Autoscaling {
            min_replicas: 2,
            initial_replicas: Some(6),
            max_replicas: 10,
            ..Autoscaling::for_tests()
        };
        let bounds = |percent, direction| {
            let bounds = Bounds::of(&autoscaling, Capacity { percent, direction });
            (bounds.least, bounds.most)
        };
        assert_eq!(bounds(None, None), (2, 10));
        assert_eq!(bounds(Some(50.0), UP), (3, 5));
        assert_eq!(bounds(Some(50.0), DOWN), (1, 5));
        assert_eq!(bounds(Some(0.0), DOWN), (0, 0));
        assert_eq!(bounds(Some(0.0), UP), (0, 0));
        assert_eq!(bounds(Some(1.0), UP), (1, 1));
    }
}
