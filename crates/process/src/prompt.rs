//! Tasks that wake themselves while they run, and go on at once.
//!
//! hyper's task that hands a body to an HTTP/2 connection wakes itself with every piece that it
//! sends. To a runtime of several threads this means more work than the thread can do: it wakes
//! another one, for nothing, with every message of a stream that never ends.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// A future that wakes itself this often in a row lets others run first.
const ROUNDS_MAX: u32 = 4;

/// Spawns futures as tasks that run on when they wake themselves.
#[derive(Clone, Copy, Debug)]
pub struct Prompt;

/// A future that is polled again at once when it was woken while it was polled.
struct Again<F> {
    future: F,
    bell: Arc<Bell>,
    waker: Waker,
}

struct Bell {
    state: AtomicU8,
    task: AtomicWaker,
}

/// Its future is being polled.
const POLLING: u8 = 1;
/// It was woken.
const RUNG: u8 = 2;

impl<F> hyper::rt::Executor<F> for Prompt
where
    F: Future<Output = ()> + Send + Unpin + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(Again::new(future));
    }
}

// === impl Again ===

impl<F: Future + Unpin> Again<F> {
    fn new(future: F) -> Again<F> {
        let bell = Arc::new(Bell {
            state: AtomicU8::new(0),
            task: AtomicWaker::new(),
        });
        let waker = Waker::from(Arc::clone(&bell));
        Again {
            future,
            bell,
            waker,
        }
    }
}

impl<F: Future + Unpin> Future for Again<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        // Before the look, so that a ring after it reaches the task.
        this.bell.task.register(cx.waker());
        let mut own = Context::from_waker(&this.waker);
        for _ in 0..ROUNDS_MAX {
            this.bell.state.swap(POLLING, Ordering::AcqRel);
            if let Poll::Ready(output) = Pin::new(&mut this.future).poll(&mut own) {
                return Poll::Ready(output);
            }
            if this.bell.state.swap(0, Ordering::AcqRel) & RUNG == 0 {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.fetch_or(RUNG, Ordering::AcqRel) & POLLING == 0 {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn polls(of_itself: u32) -> (u32, usize) {
        let counter = Arc::new(Counter::default());
        let waker = Waker::from(Arc::clone(&counter));
        let mut polled = 0;
        let mut again = Again::new(poll_fn(|cx| {
            polled += 1;
            if polled <= of_itself {
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        }));
        let poll = Pin::new(&mut again).poll(&mut Context::from_waker(&waker));
        assert!(poll.is_pending());
        drop(again);
        (polled, counter.0.load(Ordering::Relaxed))
    }

    #[test]
    fn who_wakes_itself_goes_on_without_its_task_being_woken_until_it_does_so_too_often() {
        assert_eq!(polls(0), (1, 0));
        assert_eq!(polls(2), (3, 0));
        assert_eq!(polls(100), (ROUNDS_MAX, 1));
    }

    #[test]
    fn a_ring_between_two_polls_wakes_the_task() {
        let counter = Arc::new(Counter::default());
        let waker = Waker::from(Arc::clone(&counter));
        let mut kept = None;
        let mut again = Again::new(poll_fn(|cx| {
            kept.get_or_insert_with(|| cx.waker().clone());
            Poll::<()>::Pending
        }));
        for times in 1..=3 {
            let poll = Pin::new(&mut again).poll(&mut Context::from_waker(&waker));
            assert!(poll.is_pending());
            again.waker.wake_by_ref();
            assert_eq!(counter.0.load(Ordering::Relaxed), times);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_ring_from_another_thread_is_lost() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<u32>(1);
        let reading = tokio::spawn(Again::new(Box::pin(async move {
            let mut sum = 0;
            while let Some(number) = receiver.recv().await {
                sum += u64::from(number);
            }
            sum
        })));
        for number in 0..100_000 {
            sender.send(number).await.unwrap();
        }
        drop(sender);
        assert_eq!(reading.await.unwrap(), (0..100_000).sum::<u64>());
    }
}
