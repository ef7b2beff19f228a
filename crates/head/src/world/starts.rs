//! Failed starts: how many in a row, when to try again, when to give up.
//!
//! Counts and give-up follow Ray; the pause between two tries is ours, so that a constructor
//! that fails at once does not keep a core busy.

use super::Now;

/// Failures in a row per replica of the target before giving up (Ray's number).
const FAILURES_PER_REPLICA: u32 = 3;

/// Failures in a row at which even a large deployment gives up (Ray's number).
const FAILURES_MAX: u32 = 20;

/// The pause after the first failure: below what a person notices.
const RETRY_MS_MIN: u64 = 200;

/// The longest pause: a mended file or a service that came back is noticed within it.
const RETRY_MS_MAX: u64 = 5_000;

/// How the message after a failure begins that is not the last.
const FAILED: &str = "A replica failed to start";

/// Bytes of a replica's error text that are kept for the status document.
const ERROR_BYTES_MAX: usize = 8 * 1024;

/// How starting the replicas of one code version went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Starts {
    /// The version that is counted.
    pub code_version: String,
    /// Failures since the last success.
    pub failures_in_a_row: u32,
    /// The newest failure's text.
    pub last_error: String,
    /// No try before this.
    pub retry_at_ms: u64,
    /// A replica of the version became ready once.
    pub started_once: bool,
    /// No more tries until another config arrives.
    pub gave_up: bool,
}

// === impl Starts ===

impl Starts {
    /// Nothing tried yet.
    pub fn for_version(code_version: &str) -> Starts {
        Starts {
            code_version: code_version.to_owned(),
            failures_in_a_row: 0,
            last_error: String::new(),
            retry_at_ms: 0,
            started_once: false,
            gave_up: false,
        }
    }

    /// A replica became ready.
    pub fn succeeded(&mut self) {
        self.failures_in_a_row = 0;
        self.retry_at_ms = 0;
        self.started_once = true;
    }

    /// A replica did not start. `rolling` says that another version still runs, which makes
    /// giving up safe at any time: the old one keeps serving.
    pub fn failed(&mut self, error: &str, target: u32, rolling: bool, now: Now) {
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        self.last_error = shortened(error);
        self.retry_at_ms = now.ms + pause_ms(self.failures_in_a_row);
        if self.failures_in_a_row >= threshold(target) && (rolling || !self.started_once) {
            self.gave_up = true;
        }
    }

    /// Whether a message tells of a failure that is not the last.
    pub fn is_told_by(message: &str) -> bool {
        message.starts_with(FAILED)
    }

    /// What the deployment's message says after a failure.
    pub fn message(&self, target: u32) -> String {
        let failures = self.failures_in_a_row;
        if self.gave_up || failures >= threshold(target) {
            let next = if self.gave_up {
                "It is not tried again until the config changes."
            } else {
                "Trying again."
            };
            return format!(
                "The deployment failed to start {failures} times in a row. This may be due to a \
                 problem with its constructor or initial health check failing. {next} \
                 Error:\n{}",
                self.last_error
            );
        }
        let left = threshold(target) - failures;
        format!(
            "{FAILED}, {failures} in a row, trying {left} more time(s). Error:\n{}",
            self.last_error
        )
    }
}

/// Failures in a row that make a version unusable.
pub fn threshold(target: u32) -> u32 {
    target
        .max(1)
        .saturating_mul(FAILURES_PER_REPLICA)
        .min(FAILURES_MAX)
}

fn pause_ms(failures: u32) -> u64 {
    let doublings = failures.saturating_sub(1).min(16);
    (RETRY_MS_MIN << doublings).min(RETRY_MS_MAX)
}

fn shortened(error: &str) -> String {
    if error.len() <= ERROR_BYTES_MAX {
        return error.to_owned();
    }
    let mut end = ERROR_BYTES_MAX;
    while !error.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &error[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { ms, unix_s: 0.0 }
    }

    #[test]
    fn the_third_failure_of_a_single_replica_gives_up_with_its_text() {
        let mut starts = Starts::for_version("v1");
        for _ in 0..2 {
            starts.failed("no such file", 1, false, at(0));
            assert!(!starts.gave_up);
        }
        starts.failed("no such file", 1, false, at(0));
        assert!(starts.gave_up);
        let message = starts.message(1);
        assert!(message.starts_with("The deployment failed to start 3 times in a row"));
        assert!(message.ends_with("no such file"));
    }

    #[test]
    fn a_version_that_started_once_is_tried_for_ever() {
        let mut starts = Starts::for_version("v1");
        starts.succeeded();
        for _ in 0..100 {
            starts.failed("x", 1, false, at(0));
        }
        assert!(!starts.gave_up);
    }

    #[test]
    fn a_rolling_update_gives_up_even_after_a_success() {
        let mut starts = Starts::for_version("v2");
        starts.succeeded();
        for _ in 0..3 {
            starts.failed("x", 1, true, at(0));
        }
        assert!(starts.gave_up);
    }

    #[test]
    fn pauses_double_up_to_their_limit() {
        assert_eq!(
            [1, 2, 3, 4, 5, 6, 40].map(pause_ms),
            [200, 400, 800, 1600, 3200, 5000, 5000]
        );
    }

    #[test]
    fn the_threshold_is_three_per_replica_and_twenty_at_most() {
        assert_eq!([0, 1, 2, 6, 7, 1000].map(threshold), [3, 3, 6, 18, 20, 20]);
    }
}
