//! Waits that count only the time in which the process could work. One that was stopped (SIGSTOP,
//! a frozen cgroup, a machine that is moved) wakes with all its timers overdue at once; what it
//! did not have it may have afterwards, so that a stop costs no request in progress.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::Instant;

/// A timer that fires this much too late was held up by a stop, not by the scheduler.
const STOPPED_MIN: Duration = Duration::from_millis(500);

/// What is left of a wait whose end came `late`; None if it is over.
///
/// A stop that began before the end and lasted beyond it took at least what the end is late by.
#[must_use]
pub fn time_owed(limit: Duration, late: Duration) -> Option<Duration> {
    (late >= STOPPED_MIN && !limit.is_zero()).then(|| late.min(limit))
}

/// What `work` made, or None after `limit` without it. Every further round is one more stop of
/// the process, so it ends with them.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let mut wait = limit;
    loop {
        let began = Instant::now();
        if let Ok(done) = tokio::time::timeout(wait, &mut work).await {
            return Some(done);
        }
        wait = time_owed(limit, began.elapsed().saturating_sub(wait))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    async fn stopped_for(time: Duration) {
        tokio::task::yield_now().await;
        tokio::time::advance(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_passed_while_the_process_ran_is_over() {
        let began = Instant::now();
        assert_eq!(within(LIMIT, std::future::pending::<()>()).await, None);
        assert!(began.elapsed() < LIMIT + STOPPED_MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_stop_took_is_given_back() {
        let done_at_28_s = tokio::time::sleep(Duration::from_secs(28));
        let waiting = tokio::spawn(within(LIMIT, done_at_28_s));
        stopped_for(Duration::from_secs(27)).await;
        assert_eq!(waiting.await.ok(), Some(Some(())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_stop_is_given_back_too_and_no_more_than_was_taken() {
        let began = Instant::now();
        let waiting = tokio::spawn(within(LIMIT, std::future::pending::<()>()));
        stopped_for(Duration::from_secs(25)).await;
        stopped_for(Duration::from_secs(30)).await;
        assert_eq!(waiting.await.ok(), Some(None));
        // The first stop took 5 s beyond the limit, the second more than the whole limit.
        let taken = Duration::from_secs(25 + 30);
        assert_eq!(began.elapsed().as_secs(), (taken + LIMIT).as_secs());
    }

    #[test]
    fn no_wait_at_all_stays_none() {
        assert_eq!(time_owed(Duration::ZERO, LIMIT), None);
        assert_eq!(time_owed(LIMIT, STOPPED_MIN / 2), None);
        assert_eq!(time_owed(LIMIT, LIMIT * 3), Some(LIMIT));
    }
}
