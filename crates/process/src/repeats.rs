//! Which failures of something that is tried for ever are news. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The same failure is told again after this time.
pub const REMINDER_PERIOD: Duration = Duration::from_secs(60);

/// The last failure told of each thing that is tried. The things are a few fixed ones, such as
/// the addresses of the heads.
#[derive(Debug, Default)]
pub struct Repeats {
    told: HashMap<String, (String, Instant)>,
}

impl Repeats {
    /// Whether a failure is worth a line: another one than before, or one that goes on.
    pub fn is_news(&mut self, of: &str, reason: &str, now: Instant) -> bool {
        let is_old = self.told.get(of).is_some_and(|(told, since)| {
            told == reason && now.saturating_duration_since(*since) < REMINDER_PERIOD
        });
        if !is_old {
            self.told.insert(of.to_owned(), (reason.to_owned(), now));
        }
        !is_old
    }

    /// It worked: the next failure is news, whatever it is.
    pub fn forget(&mut self, of: &str) {
        self.told.remove(of);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_when_it_changes_and_as_a_reminder() {
        let mut repeats = Repeats::default();
        let start = Instant::now();
        assert!(repeats.is_news("head", "refused", start));
        assert!(!repeats.is_news("head", "refused", start + REMINDER_PERIOD / 2));
        assert!(repeats.is_news("other", "refused", start));
        assert!(repeats.is_news("head", "wrong token", start));
        assert!(repeats.is_news("head", "wrong token", start + REMINDER_PERIOD));
        repeats.forget("other");
        assert!(repeats.is_news("other", "refused", start));
    }
}
