//! Which of the waiting rows the free engine takes.
//!
//! The oldest row always goes, so nobody starves. Around it come the rows nearest in length, one
//! after the other, while the padded batch stays within its token budget and little of it is
//! padding: on a processor a run costs what its padded tokens cost, so a long row beside short
//! ones makes all of them pay. There is no timer: a free engine takes what is there, unless a
//! wait was asked for and the batch could still grow.

use std::time::{Duration, Instant};

/// How large a batch may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Most rows.
    pub rows_max: usize,
    /// Most tokens, padding included. A single row may be longer.
    pub tokens_max: usize,
    /// Most of the batch that may be padding, in percent.
    pub padding_percent_max: usize,
    /// How long the oldest row waits for company; zero: not at all.
    pub wait: Duration,
}

/// A row in the queue, oldest first.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// In tokens.
    pub len: usize,
    /// When it came.
    pub since: Instant,
}

/// What a free engine does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing waits.
    Idle,
    /// The batch may still grow: look again then, or when a row comes.
    WaitUntil(Instant),
    /// Run these rows: positions in the queue, ascending. Never empty; 0 is always among them.
    Take(Vec<usize>),
}

/// Decides for a free engine. `waiting` is the queue, oldest first.
pub fn decide(waiting: &[Waiting], now: Instant, limits: &Limits) -> Decision {
    let Some(oldest) = waiting.first() else {
        return Decision::Idle;
    };
    let rows = gather(waiting, limits);
    let due = oldest.since + limits.wait;
    let longest = rows.iter().map(|&row| waiting[row].len).max().unwrap_or(1);
    // Another row of the same kind would not fit: waiting gains nothing.
    let full =
        rows.len() >= limits.rows_max.max(1) || (rows.len() + 1) * longest > limits.tokens_max;
    if full || due <= now {
        return Decision::Take(rows);
    }
    Decision::WaitUntil(due)
}

/// The oldest row and its neighbours in length.
fn gather(waiting: &[Waiting], limits: &Limits) -> Vec<usize> {
    let mut by_length: Vec<usize> = (0..waiting.len()).collect();
    // Of two rows of the same length the older one comes first.
    by_length.sort_by_key(|&row| (waiting[row].len, row));
    let anchor = by_length.iter().position(|&row| row == 0).unwrap_or(0);
    let length = |at: usize| waiting[by_length[at]].len;

    let (mut low, mut high) = (anchor, anchor + 1);
    let mut tokens = length(anchor);
    let fits = |rows: usize, longest: usize, tokens: usize| {
        let padded = rows * longest;
        rows <= limits.rows_max
            && padded <= limits.tokens_max
            && (padded - tokens) * 100 <= padded * limits.padding_percent_max
    };
    loop {
        let rows = high - low + 1;
        let longest = length(high - 1);
        let shorter = low.checked_sub(1).map(length);
        let longer = (high < by_length.len()).then(|| length(high));
        // What each neighbour would add in padding: itself filled up, or all the others.
        let shorter_costs = shorter.map(|len| longest - len);
        let longer_costs = longer.map(|len| (len - longest) * (rows - 1));
        let take_longer = match (shorter_costs, longer_costs) {
            (None, None) => break,
            (Some(_), None) => false,
            (None, Some(_)) => true,
            (Some(shorter), Some(longer)) => longer <= shorter,
        };
        match (take_longer, shorter, longer) {
            (true, _, Some(len)) if fits(rows, len, tokens + len) => {
                high += 1;
                tokens += len;
            }
            (false, Some(len), _) if fits(rows, longest, tokens + len) => {
                low -= 1;
                tokens += len;
            }
            _ => break,
        }
    }
    let mut rows = by_length[low..high].to_vec();
    rows.sort_unstable();
    rows
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        rows_max: 8,
        tokens_max: 512,
        padding_percent_max: 10,
        wait: Duration::ZERO,
    };

    fn queue(lengths: &[usize], now: Instant) -> Vec<Waiting> {
        let waiting = |&len| Waiting { len, since: now };
        lengths.iter().map(waiting).collect()
    }

    fn taken(lengths: &[usize]) -> Vec<usize> {
        let now = Instant::now();
        match decide(&queue(lengths, now), now, &LIMITS) {
            Decision::Take(rows) => rows,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rows_of_one_length_go_together_up_to_each_limit() {
        assert_eq!(taken(&[10; 20]).len(), 8);
        assert_eq!(taken(&[100; 20]).len(), 5);
        assert_eq!(taken(&[600, 600]).len(), 1);
    }

    #[test]
    fn unlike_lengths_stay_apart_and_the_oldest_goes_first() {
        assert_eq!(taken(&[10, 200, 10, 201]), [0, 2]);
        assert_eq!(taken(&[200, 10, 10, 201]), [0, 3]);
    }

    #[test]
    fn a_wait_holds_a_batch_that_may_grow_and_no_other() {
        let limits = Limits {
            wait: Duration::from_millis(5),
            ..LIMITS
        };
        let now = Instant::now();
        let due = now + limits.wait;
        assert_eq!(decide(&[], now, &limits), Decision::Idle);
        let few = queue(&[10, 10], now);
        assert_eq!(decide(&few, now, &limits), Decision::WaitUntil(due));
        assert_eq!(decide(&few, due, &limits), Decision::Take(vec![0, 1]));
        let many = queue(&[10; 8], now);
        assert!(matches!(decide(&many, now, &limits), Decision::Take(_)));
    }

    proptest! {
        #[test]
        fn every_batch_holds_the_oldest_and_keeps_its_limits(
            lengths in proptest::collection::vec(1_usize..700, 1..200),
            rows_max in 1_usize..40,
            tokens_max in 1_usize..5000,
            padding_percent_max in 0_usize..100,
        ) {
            let limits = Limits {
                rows_max, tokens_max, padding_percent_max, wait: Duration::ZERO,
            };
            let now = Instant::now();
            let Decision::Take(rows) = decide(&queue(&lengths, now), now, &limits) else {
                panic!("nothing taken");
            };
            prop_assert_eq!(rows[0], 0);
            prop_assert!(rows.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(rows.len() <= rows_max);
            if rows.len() > 1 {
                let longest = rows.iter().map(|&row| lengths[row]).max().unwrap();
                let tokens: usize = rows.iter().map(|&row| lengths[row]).sum();
                let padded = rows.len() * longest;
                prop_assert!(padded <= tokens_max);
                prop_assert!((padded - tokens) * 100 <= padded * padding_percent_max);
            }
        }

        #[test]
        fn a_queue_is_emptied_with_each_row_taken_once(
            lengths in proptest::collection::vec(1_usize..700, 0..100),
        ) {
            let now = Instant::now();
            let mut left: Vec<(usize, Waiting)> =
                queue(&lengths, now).into_iter().enumerate().collect();
            let mut seen = Vec::new();
            while !left.is_empty() {
                let waiting: Vec<Waiting> = left.iter().map(|(_, row)| *row).collect();
                let Decision::Take(rows) = decide(&waiting, now, &LIMITS) else {
                    panic!("nothing taken");
                };
                for row in rows.into_iter().rev() {
                    seen.push(left.remove(row).0);
                }
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
        }
    }
}
