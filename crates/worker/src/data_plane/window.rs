//! How much of a body may still be sent before the reader gives credit.

use std::sync::atomic::{AtomicUsize, Ordering};

use mobula_proto::limits::BODY_WINDOW_BYTES_INITIAL;
use tokio::sync::Notify;

/// The most credit that may be outstanding; a router that gives more has lost count, and what it
/// gives beyond this is ignored.
const CREDIT_BYTES_MAX: usize = 64 * BODY_WINDOW_BYTES_INITIAL;

/// The window of one body. One task takes, another gives.
pub(crate) struct Window {
    available: AtomicUsize,
    given: Notify,
}

impl Default for Window {
    fn default() -> Window {
        Window {
            available: AtomicUsize::new(BODY_WINDOW_BYTES_INITIAL),
            given: Notify::new(),
        }
    }
}

impl Window {
    /// Adds credit from the reader.
    pub(crate) fn give(&self, bytes: usize) {
        let add = |available: usize| Some(available.saturating_add(bytes).min(CREDIT_BYTES_MAX));
        let _ = self
            .available
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, add);
        self.given.notify_one();
    }

    /// Takes up to `wanted` bytes, at least one; waits while there is none.
    pub(crate) async fn take(&self, wanted: usize) -> usize {
        loop {
            let mut taken = 0;
            let take = |available: usize| {
                taken = available.min(wanted);
                (taken > 0).then(|| available - taken)
            };
            let took = self
                .available
                .fetch_update(Ordering::AcqRel, Ordering::Relaxed, take);
            if took.is_ok() {
                return taken;
            }
            // `notify_one` is remembered, so credit that came in between is not missed.
            self.given.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_taken_never_exceeds_the_first_window_and_the_credit(
            steps in proptest::collection::vec((any::<bool>(), 1..200_000usize), 0..100)
        ) {
            let window = Window::default();
            let (mut allowed, mut taken) = (BODY_WINDOW_BYTES_INITIAL, 0);
            for (give, bytes) in steps {
                if give {
                    window.give(bytes);
                    allowed = taken + (allowed - taken + bytes).min(CREDIT_BYTES_MAX);
                } else {
                    match window.take(bytes).now_or_never() {
                        Some(got) => {
                            prop_assert!(got >= 1 && got <= bytes);
                            taken += got;
                        }
                        None => prop_assert_eq!(taken, allowed),
                    }
                }
                prop_assert!(taken <= allowed);
            }
        }
    }

    #[tokio::test]
    async fn a_sender_without_credit_wakes_when_it_comes() {
        let window = std::sync::Arc::new(Window::default());
        assert_eq!(window.take(usize::MAX).await, BODY_WINDOW_BYTES_INITIAL);
        let sender = tokio::spawn({
            let window = window.clone();
            async move { window.take(10).await }
        });
        tokio::task::yield_now().await;
        assert!(!sender.is_finished());
        window.give(7);
        assert_eq!(sender.await.unwrap(), 7);
    }
}
