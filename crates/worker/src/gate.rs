//! The gate of a replica: at most `max_ongoing_requests` calls are inside at any time.
//!
//! Mode, limit and count live in one atomic word, so the limit is strict for every router at
//! once, also while it changes. Whoever got in holds a [`Permit`]; dropping it leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Whether the gate lets anybody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Not yet, or no longer, a running replica.
    Absent,
    Open,
    /// Those inside may finish; nobody else gets in.
    Draining,
}

/// Why a call was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Full,
    Draining,
    Absent,
}

/// The word's three parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    mode: Mode,
    limit: u32,
    ongoing: u32,
}

/// The limit has 30 bits of the word; more concurrent calls than that do not exist.
const LIMIT_MAX: u32 = (1 << 30) - 1;

pub struct Gate {
    word: AtomicU64,
    left: Notify,
}

/// The right to occupy one slot of one replica.
pub struct Permit(Arc<Gate>);

// === impl Word ===

impl Word {
    fn enter(self) -> Result<Word, Refusal> {
        match self.mode {
            Mode::Absent => Err(Refusal::Absent),
            Mode::Draining => Err(Refusal::Draining),
            Mode::Open if self.ongoing >= self.limit => Err(Refusal::Full),
            Mode::Open => Ok(Word {
                ongoing: self.ongoing + 1,
                ..self
            }),
        }
    }

    fn pack(self) -> u64 {
        let mode: u64 = match self.mode {
            Mode::Absent => 0,
            Mode::Open => 1,
            Mode::Draining => 2,
        };
        mode << 62 | u64::from(self.limit.min(LIMIT_MAX)) << 32 | u64::from(self.ongoing)
    }

    fn unpack(word: u64) -> Word {
        Word {
            mode: match word >> 62 {
                1 => Mode::Open,
                2 => Mode::Draining,
                _ => Mode::Absent,
            },
            limit: (word >> 32) as u32 & LIMIT_MAX,
            ongoing: word as u32,
        }
    }
}

// === impl Gate ===

impl Gate {
    pub fn new(limit: u32) -> Arc<Gate> {
        let word = Word {
            mode: Mode::Absent,
            limit,
            ongoing: 0,
        };
        Arc::new(Gate {
            word: AtomicU64::new(word.pack()),
            left: Notify::new(),
        })
    }

    /// Takes a slot, or says why not.
    pub fn enter(self: &Arc<Self>) -> Result<Permit, Refusal> {
        let mut seen = self.word.load(Ordering::Relaxed);
        loop {
            let after = Word::unpack(seen).enter()?.pack();
            match self
                .word
                .compare_exchange_weak(seen, after, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return Ok(Permit(self.clone())),
                Err(now) => seen = now,
            }
        }
    }

    pub fn set_mode(&self, mode: Mode) {
        self.update(|word| Word { mode, ..word });
    }

    /// A lower limit throws nobody out; it holds for whoever comes next.
    pub fn set_limit(&self, limit: u32) {
        self.update(|word| Word { limit, ..word });
    }

    pub fn ongoing(&self) -> u32 {
        Word::unpack(self.word.load(Ordering::Relaxed)).ongoing
    }

    /// Returns once nobody is inside.
    pub async fn idle(&self) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            // Registered before the count is read, so that the last one's leaving is not missed.
            left.as_mut().enable();
            if self.ongoing() == 0 {
                return;
            }
            left.await;
        }
    }

    fn update(&self, change: impl Fn(Word) -> Word) -> Word {
        let changed = |word| Some(change(Word::unpack(word)).pack());
        let before = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, changed);
        // The closure always returns a word, so both arms hold the one before.
        Word::unpack(before.unwrap_or_else(|word| word))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // The count is the low part of the word and at least one as long as a permit exists.
        let before = Word::unpack(self.0.word.fetch_sub(1, Ordering::AcqRel));
        debug_assert!(before.ongoing > 0, "a permit was dropped twice");
        if before.ongoing == 1 && before.mode != Mode::Open {
            self.0.left.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Enter,
        Leave,
        Limit(u32),
        Mode(Mode),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Enter),
            3 => Just(Step::Leave),
            1 => (1..5u32).prop_map(Step::Limit),
            1 => prop_oneof![Just(Mode::Open), Just(Mode::Draining), Just(Mode::Absent)]
                .prop_map(Step::Mode),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn nobody_enters_beyond_the_limit_or_a_closed_gate(steps in steps()) {
            let gate = Gate::new(2);
            let (mut limit, mut mode) = (2, Mode::Absent);
            let mut inside = Vec::new();
            for step in steps {
                match step {
                    Step::Enter => {
                        let expected = match mode {
                            Mode::Absent => Some(Refusal::Absent),
                            Mode::Draining => Some(Refusal::Draining),
                            Mode::Open => (inside.len() >= limit as usize).then_some(Refusal::Full),
                        };
                        match gate.enter() {
                            Ok(permit) => {
                                prop_assert_eq!(expected, None);
                                inside.push(permit);
                            }
                            Err(refusal) => prop_assert_eq!(expected, Some(refusal)),
                        }
                    }
                    Step::Leave => drop(inside.pop()),
                    Step::Limit(new) => { limit = new; gate.set_limit(new); }
                    Step::Mode(new) => { mode = new; gate.set_mode(new); }
                }
                prop_assert_eq!(gate.ongoing() as usize, inside.len());
            }
        }
    }

    #[test]
    fn many_threads_never_hold_more_permits_than_the_limit() {
        let gate = Gate::new(3);
        gate.set_mode(Mode::Open);
        let entered: u32 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut entered = 0;
                        for _ in 0..10_000 {
                            if let Ok(permit) = gate.enter() {
                                assert!(gate.ongoing() <= 3);
                                entered += 1;
                                drop(permit);
                            }
                        }
                        entered
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert!(entered >= 10_000, "at least one thread always gets in");
        assert_eq!(gate.ongoing(), 0);
    }

    #[tokio::test]
    async fn idle_returns_when_the_last_one_left() {
        let gate = Gate::new(2);
        gate.set_mode(Mode::Open);
        let (first, second) = (gate.enter().ok().unwrap(), gate.enter().ok().unwrap());
        gate.set_mode(Mode::Draining);
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.idle().await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        waiting.await.unwrap();
    }
}
