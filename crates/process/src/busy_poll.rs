//! Looking for the next message for a moment before the thread sleeps.
//!
//! A processor that has nothing to do halts, and waking it takes tens of microseconds, on a
//! virtual machine more than all that a small request costs. While messages follow each other
//! closely, a runtime of one thread looks for the next one before it sleeps. How long is decided
//! as KVM decides how long it polls for a virtual processor that halts
//! (Documentation/virt/kvm/halt-polling.rst): longer after a wait that a longer look would have
//! met, not at all after one that is too long to look through; and not where others have work
//! for the processor.
//!
//! With several threads one of them sleeps in the kernel's queue of events for all, and the
//! others' looks see nothing: not for those.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Builder;

/// The first window after a time without one.
const WINDOW_MIN: Duration = Duration::from_micros(16);

/// The longest window unless an operator says otherwise: what a wait may cost in vain.
pub const WINDOW_MAX_US: u64 = 128;

/// Who gives way for longer shares the processor with somebody who has work for it, and keeps it
/// until the kernel's next tick, commonly 4 ms. A host that takes the processor away for a moment is
/// back earlier, as are the other ends of the connections.
const OTHERS_MAX: Duration = Duration::from_millis(1);

/// The processor is left to them for so long.
const OTHERS_PAUSE: Duration = Duration::from_millis(200);

thread_local! {
    /// None where a runtime does not look.
    static HERE: OnceCell<Arc<BusyPoll>> = const { OnceCell::new() };
}

/// What the thread of a runtime knows of its messages, in nanoseconds since `began`.
struct BusyPoll {
    began: Instant,
    longest: u64,
    /// When the last message came.
    last: AtomicU64,
    /// How long to look for the next.
    window: AtomicU64,
    /// Nobody looks before.
    closed_until: AtomicU64,
    /// A task does.
    is_looking: AtomicBool,
}

/// Has a runtime of one thread look, for up to `longest`, where the machine has another CPU for
/// those who send.
pub fn enable(builder: &mut Builder, threads: usize, cpus: usize, longest: Duration) {
    if threads != 1 || cpus < 2 || longest.is_zero() {
        return;
    }
    let busy_poll = Arc::new(BusyPoll::new(longest));
    builder.on_thread_start(move || {
        // A thread starts once.
        let _ = HERE.with(|here| here.set(Arc::clone(&busy_poll)));
    });
}

/// A message came or went: another one may be close.
pub fn expect_more() {
    HERE.with(|here| {
        let Some(busy_poll) = here.get() else { return };
        if busy_poll.begins(busy_poll.now()) {
            tokio::spawn(look(Arc::clone(busy_poll)));
        }
    });
}

async fn look(busy_poll: Arc<BusyPoll>) {
    while !busy_poll.ends(busy_poll.now()) {
        // Comes back once the thread has nothing else to do and has looked for events.
        tokio::task::yield_now().await;
        let before = busy_poll.now();
        std::thread::yield_now();
        busy_poll.on_others(busy_poll.now(), before);
    }
}

/// How long to look next time, after a wait of so long.
fn window_after(window: u64, waited: u64, longest: u64) -> u64 {
    if waited > longest {
        0
    } else if waited <= window {
        window
    } else {
        let least = nanos(WINDOW_MIN).min(longest);
        window.saturating_mul(2).clamp(least, longest)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

// === impl BusyPoll ===

impl BusyPoll {
    fn new(longest: Duration) -> BusyPoll {
        BusyPoll {
            began: Instant::now(),
            longest: nanos(longest),
            last: AtomicU64::new(0),
            window: AtomicU64::new(0),
            closed_until: AtomicU64::new(0),
            is_looking: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        nanos(self.began.elapsed())
    }

    /// A message came. Whether to begin to look.
    fn begins(&self, now: u64) -> bool {
        let waited = now.saturating_sub(self.last.swap(now, Ordering::Relaxed));
        if now < self.closed_until.load(Ordering::Relaxed) {
            return false;
        }
        let window = window_after(self.window.load(Ordering::Relaxed), waited, self.longest);
        self.window.store(window, Ordering::Relaxed);
        window > 0 && !self.is_looking.swap(true, Ordering::Relaxed)
    }

    /// Others had the processor between the two.
    fn on_others(&self, now: u64, before: u64) {
        if now.saturating_sub(before) > nanos(OTHERS_MAX) {
            let until = now.saturating_add(nanos(OTHERS_PAUSE));
            self.closed_until.store(until, Ordering::Relaxed);
            self.window.store(0, Ordering::Relaxed);
        }
    }

    /// Whether who looks is to stop.
    fn ends(&self, now: u64) -> bool {
        let waited = now.saturating_sub(self.last.load(Ordering::Relaxed));
        let is_over = waited >= self.window.load(Ordering::Relaxed);
        if is_over {
            self.is_looking.store(false, Ordering::Relaxed);
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: u64 = 128_000;

    #[test]
    fn the_window_grows_with_waits_that_a_longer_look_would_have_met_and_is_shut_by_a_long_one() {
        let mut window = 0;
        let mut windows = Vec::new();
        for waited in [60_000, 60_000, 60_000, 60_000, 128_000, 10_000, 128_001, 5] {
            window = window_after(window, waited, LONGEST);
            windows.push(window / 1000);
        }
        assert_eq!(windows, [16, 32, 64, 64, 128, 128, 0, 16]);
        assert_eq!(window_after(0, 5, 10), 10, "an operator's limit holds");
    }

    #[test]
    fn one_looks_at_a_time_and_stops_when_its_window_is_over() {
        let busy_poll = BusyPoll::new(Duration::from_nanos(LONGEST));
        assert!(!busy_poll.begins(1_000_000), "the first comes from afar");
        assert!(busy_poll.begins(1_010_000));
        assert!(!busy_poll.begins(1_020_000), "somebody looks");
        assert!(!busy_poll.ends(1_035_999));
        assert!(busy_poll.ends(1_036_000));
        assert!(busy_poll.begins(1_040_000), "nobody looks any more");
    }

    #[test]
    fn who_shares_the_processor_with_others_leaves_it_to_them_for_a_while() {
        let busy_poll = BusyPoll::new(Duration::from_nanos(LONGEST));
        busy_poll.begins(1_000_000);
        assert!(busy_poll.begins(1_010_000));
        busy_poll.on_others(1_020_000, 1_015_000);
        assert!(!busy_poll.ends(1_020_000), "they were short");
        busy_poll.on_others(3_000_000, 1_020_000);
        assert!(busy_poll.ends(3_000_000));
        assert!(!busy_poll.begins(3_010_000));
        assert!(!busy_poll.begins(3_020_000));
        busy_poll.begins(204_000_000);
        assert!(busy_poll.begins(204_010_000), "the pause is over");
    }

    /// What `enable` makes of a runtime: whether its tasks look.
    fn looks(threads: usize, cpus: usize, longest: Duration) -> bool {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads);
        enable(&mut builder, threads, cpus, longest);
        let runtime = builder.build().unwrap();
        let looking = runtime.spawn(async { HERE.with(|here| here.get().is_some()) });
        runtime.block_on(looking).unwrap()
    }

    #[test]
    fn only_a_runtime_of_one_thread_looks_and_only_where_another_processor_is() {
        assert!(looks(1, 2, Duration::from_micros(WINDOW_MAX_US)));
        assert!(!looks(1, 1, Duration::from_micros(WINDOW_MAX_US)));
        assert!(!looks(2, 4, Duration::from_micros(WINDOW_MAX_US)));
        assert!(!looks(1, 2, Duration::ZERO));
    }

    #[test]
    fn a_runtime_that_looks_does_its_work_and_comes_to_rest() {
        let mut builder = Builder::new_multi_thread();
        enable(
            builder.worker_threads(1).enable_all(),
            1,
            2,
            Duration::from_micros(WINDOW_MAX_US),
        );
        let runtime = builder.build().unwrap();
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<u32>(1);
        let reading = runtime.spawn(async move {
            let mut sum = 0;
            while let Some(number) = receiver.recv().await {
                expect_more();
                sum += number;
            }
            let here = HERE.with(|here| here.get().cloned()).unwrap();
            while here.is_looking.load(Ordering::Relaxed) {
                tokio::task::yield_now().await;
            }
            sum
        });
        for number in 0..10_000 {
            sender.blocking_send(number).unwrap();
        }
        drop(sender);
        assert_eq!(runtime.block_on(reading).unwrap(), (0..10_000).sum::<u32>());
    }
}
