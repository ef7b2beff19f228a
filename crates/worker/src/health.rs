//! When a replica counts as unhealthy: a run of failed checks. Pure.
//!
//! A check that takes too long has failed. Time and the jitter's random number are arguments.

use std::time::Duration;

/// Failed checks in a row after which the replica is unhealthy; Ray Serve's number.
pub const HEALTH_CHECK_FAILURES_MAX: u32 = 3;

/// The period varies by this share, so that the checks of many replicas do not beat together.
const PERIOD_JITTER_SHARE: f64 = 0.1;

/// The failed checks since the last good one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    failures: u32,
}

/// A check that changed what the replica counts as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Lost(String),
    Regained,
}

impl Health {
    /// Takes the outcome of a check; tells when the replica's standing changed.
    pub fn observe(&mut self, outcome: Result<(), String>) -> Option<Verdict> {
        match outcome {
            Ok(()) => {
                let was_lost = self.failures >= HEALTH_CHECK_FAILURES_MAX;
                self.failures = 0;
                was_lost.then_some(Verdict::Regained)
            }
            Err(text) => {
                self.failures = self.failures.saturating_add(1);
                (self.failures == HEALTH_CHECK_FAILURES_MAX).then(|| {
                    Verdict::Lost(format!(
                        "{HEALTH_CHECK_FAILURES_MAX} health checks in a row failed, \
                         the last one with: {text}"
                    ))
                })
            }
        }
    }
}

/// The wait before the next check: the period and up to a tenth more or less. `random` is in 0..1.
pub fn jittered(period: Duration, random: f64) -> Duration {
    let share = 1.0 + PERIOD_JITTER_SHARE * (2.0 * random.clamp(0.0, 1.0) - 1.0);
    period.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn unhealthy_means_that_the_last_three_checks_failed(
            checks in proptest::collection::vec(any::<bool>(), 0..60)
        ) {
            let mut health = Health::default();
            let mut lost = false;
            for (n, good) in checks.iter().enumerate() {
                let outcome = if *good { Ok(()) } else { Err("no".to_owned()) };
                match health.observe(outcome) {
                    Some(Verdict::Lost(_)) => { prop_assert!(!lost); lost = true; }
                    Some(Verdict::Regained) => { prop_assert!(lost); lost = false; }
                    None => {}
                }
                let last_three_failed = n >= 2 && checks[n - 2..=n].iter().all(|good| !good);
                prop_assert_eq!(lost, last_three_failed);
            }
        }

        #[test]
        fn the_period_varies_by_a_tenth_at_most(ms in 1..100_000u64, random in 0.0..1.0f64) {
            let period = Duration::from_millis(ms);
            let wait = jittered(period, random);
            prop_assert!(wait >= period.mul_f64(0.899) && wait <= period.mul_f64(1.101));
        }
    }

    #[test]
    fn the_verdict_carries_the_last_failure() {
        let mut health = Health::default();
        for _ in 1..HEALTH_CHECK_FAILURES_MAX {
            assert_eq!(health.observe(Err("gpu lost".to_owned())), None);
        }
        let Some(Verdict::Lost(text)) = health.observe(Err("gpu gone".to_owned())) else {
            panic!("three failures are a verdict");
        };
        assert!(text.ends_with("gpu gone"), "{text}");
    }
}
