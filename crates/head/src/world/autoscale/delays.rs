//! A wish counts once it has lasted: the delays of both directions (Ray's rules).

use super::super::deployment_status::Direction;
use super::super::spec::Autoscaling;

/// Since when the load asks for more, or for less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    pub towards: Direction,
    pub since_ms: u64,
}

/// What to do about a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it shall be.
    Stay,
    /// Not yet.
    Wait(Timer),
    /// Now.
    Scale(u32),
}

/// Judges a wish within the bounds. After a jump the timer starts over, so that continuous
/// growth comes in steps; from more than one to none are two steps.
pub fn judge(
    autoscaling: &Autoscaling,
    timer: Option<Timer>,
    target: u32,
    wish: u32,
    now_ms: u64,
) -> Verdict {
    let (towards, wish, delay_ms) = match wish.cmp(&target) {
        std::cmp::Ordering::Equal => return Verdict::Stay,
        std::cmp::Ordering::Greater => (Direction::Up, wish, autoscaling.upscale_delay_ms),
        std::cmp::Ordering::Less if wish > 0 => {
            (Direction::Down, wish, autoscaling.downscale_delay_ms)
        }
        std::cmp::Ordering::Less if target == 1 => {
            (Direction::Down, 0, autoscaling.downscale_to_zero_delay_ms)
        }
        std::cmp::Ordering::Less => (Direction::Down, 1, autoscaling.downscale_delay_ms),
    };
    let fresh = Timer {
        towards,
        since_ms: now_ms,
    };
    let timer = timer.filter(|timer| timer.towards == towards);
    let timer = timer.unwrap_or(fresh);
    if now_ms.saturating_sub(timer.since_ms) >= delay_ms {
        Verdict::Scale(wish)
    } else {
        Verdict::Wait(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Run {
        autoscaling: Autoscaling,
        timer: Option<Timer>,
        target: u32,
    }

    impl Run {
        fn new(target: u32) -> Run {
            Run {
                autoscaling: Autoscaling {
                    upscale_delay_ms: 1000,
                    downscale_delay_ms: 5000,
                    downscale_to_zero_delay_ms: 9000,
                    ..Autoscaling::for_tests()
                },
                timer: None,
                target,
            }
        }

        fn at(&mut self, now_ms: u64, wish: u32) -> u32 {
            match judge(&self.autoscaling, self.timer, self.target, wish, now_ms) {
                Verdict::Stay => self.timer = None,
                Verdict::Wait(timer) => self.timer = Some(timer),
                Verdict::Scale(target) => (self.target, self.timer) = (target, None),
            }
            self.target
        }
    }

    #[test]
    fn a_wish_must_last_and_the_value_at_the_end_counts() {
        let mut run = Run::new(2);
        assert_eq!(run.at(0, 5), 2);
        assert_eq!(run.at(999, 8), 2);
        assert_eq!(run.at(1000, 7), 7);
        // Growth that goes on waits again.
        assert_eq!(run.at(1001, 9), 7);
        assert_eq!(run.at(2000, 9), 7);
        assert_eq!(run.at(2001, 9), 9);
    }

    #[test]
    fn an_interruption_or_a_change_of_direction_starts_over() {
        let mut run = Run::new(2);
        run.at(0, 5);
        run.at(900, 2);
        assert_eq!(run.at(1000, 5), 2);
        run.at(1500, 1);
        assert_eq!(run.at(1600, 5), 2);
        assert_eq!(run.at(2599, 5), 2);
        assert_eq!(run.at(2600, 5), 5);
    }

    #[test]
    fn to_zero_are_two_steps_with_a_delay_each() {
        let mut run = Run::new(4);
        run.at(0, 0);
        assert_eq!(run.at(5000, 0), 1);
        run.at(5001, 0);
        assert_eq!(run.at(14_000, 0), 1);
        assert_eq!(run.at(14_001, 0), 0);
    }

    #[test]
    fn without_a_delay_a_wish_counts_at_once() {
        let mut run = Run::new(2);
        run.autoscaling.upscale_delay_ms = 0;
        assert_eq!(run.at(0, 3), 3);
    }
}
