//! How long to wait before the head is dialled again. Pure; randomness is an argument.

use std::time::Duration;

/// The first wait; a head that restarts is back in about this time.
const RECONNECT_WAIT_MIN: Duration = Duration::from_millis(100);

/// The longest wait, and so the longest time that a head that came back is not noticed.
const RECONNECT_WAIT_MAX: Duration = Duration::from_millis(500);

/// Doubles with each failure in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure; half of it is random (`random` in 0..1), so that many
    /// workers do not come back at the same instant.
    pub fn failed(&mut self, random: f64) -> Duration {
        let doubled = RECONNECT_WAIT_MIN.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        doubled
            .min(RECONNECT_WAIT_MAX)
            .mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }

    /// A session came up: the next failure is a first one again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_grow_and_stay_within_their_limits(randoms in proptest::collection::vec(0.0..1.0f64, 1..60)) {
            let mut backoff = Backoff::default();
            for random in &randoms {
                let wait = backoff.failed(*random);
                prop_assert!(wait >= RECONNECT_WAIT_MIN / 2 && wait <= RECONNECT_WAIT_MAX);
            }
            if randoms.len() > 10 {
                prop_assert!(backoff.failed(1.0) == RECONNECT_WAIT_MAX);
            }
            backoff.succeeded();
            prop_assert!(backoff.failed(1.0) == RECONNECT_WAIT_MIN);
        }
    }
}
