//! A future beside a busy one in the same task.
//!
//! A task that waits for several things polls all of them whenever one of them has something to
//! say. Here the rare one is left alone until it was woken itself.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Polls its future the first time and whenever that future was woken.
pub struct Quiet<F> {
    future: F,
    bell: Arc<Bell>,
    waker: Waker,
}

struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl<F: Future + Unpin> Quiet<F> {
    /// A future that is to be polled seldom.
    pub fn new(future: F) -> Quiet<F> {
        let bell = Arc::new(Bell {
            rung: AtomicBool::new(true),
            task: AtomicWaker::new(),
        });
        Quiet {
            future,
            waker: Waker::from(Arc::clone(&bell)),
            bell,
        }
    }
}

impl<F: Future + Unpin> Future for Quiet<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // Registered before the look, so that a ring in between is not missed.
        self.bell.task.register(cx.waker());
        if !self.bell.rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let this = &mut *self;
        Pin::new(&mut this.future).poll(&mut Context::from_waker(&this.waker))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn it_is_polled_when_it_was_woken_and_not_when_its_task_was() {
        let polls = AtomicUsize::new(0);
        let told = Notify::new();
        let mut notified = Box::pin(told.notified());
        let rare = poll_fn(|cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            notified.as_mut().poll(cx)
        });
        let mut quiet = Quiet::new(rare);
        let mut busy = 0;
        poll_fn(|cx| {
            assert!(Pin::new(&mut quiet).poll(cx).is_pending());
            busy += 1;
            cx.waker().wake_by_ref();
            if busy < 10 {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        told.notify_one();
        quiet.await;
        assert_eq!(polls.load(Ordering::Relaxed), 2);
    }
}
