//! The rows that wait, in the order in which they are due. Pure: time is an argument.
//!
//! Rows of one request count as if they had come one after the other, at the pace at which an
//! engine runs them. So a request of a thousand rows does not make the next caller wait for all
//! of them, and still none of its rows is overtaken for ever: a row's place is fixed when it
//! comes, and later rows count as later.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Waiting;

/// The pace: about what a row of usual length costs one processor.
const ROW_PACE: Duration = Duration::from_millis(5);

/// A row of whatever kind, and its place.
#[derive(Debug)]
pub struct Queued<T> {
    /// The row.
    pub row: T,
    /// In tokens.
    pub len: usize,
    /// When it came.
    pub since: Instant,
    counts_from: Instant,
}

/// Waiting rows, the next one due first.
#[derive(Debug)]
pub struct Queue<T> {
    rows: VecDeque<Queued<T>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue {
            rows: VecDeque::new(),
        }
    }
}

impl<T> Queue<T> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds the rows of one request, each with its length.
    pub fn push(&mut self, rows: impl IntoIterator<Item = (T, usize)>, now: Instant) {
        let last = self.rows.back().map(|row| row.counts_from);
        let mut counts_from = now;
        for (row, len) in rows {
            self.rows.push_back(Queued {
                row,
                len,
                since: now,
                counts_from,
            });
            counts_from += ROW_PACE;
        }
        if last.is_some_and(|last| last > now) {
            // Stable, and quick on the two runs that are already in order.
            self.rows
                .make_contiguous()
                .sort_by_key(|row| row.counts_from);
        }
    }

    /// Drops the rows that nobody wants any more.
    pub fn retain(&mut self, mut wanted: impl FnMut(&T) -> bool) {
        self.rows.retain(|row| wanted(&row.row));
    }

    /// Drops all rows.
    pub fn clear(&mut self) {
        self.rows.clear();
    }

    /// The first so many rows, as [`super::decide`] looks at them.
    pub fn waiting(&self, rows_max: usize) -> Vec<Waiting> {
        let first = self.rows.iter().take(rows_max);
        first
            .map(|row| Waiting {
                len: row.len,
                since: row.since,
            })
            .collect()
    }

    /// Takes the rows at ascending positions.
    pub fn take(&mut self, positions: &[usize]) -> Vec<Queued<T>> {
        let mut batch = Vec::with_capacity(positions.len());
        for &position in positions.iter().rev() {
            batch.extend(self.rows.remove(position));
        }
        batch.reverse();
        batch
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(queue: &mut Queue<u32>) -> Vec<u32> {
        let all: Vec<usize> = (0..queue.len()).collect();
        queue.take(&all).into_iter().map(|row| row.row).collect()
    }

    #[test]
    fn rows_of_one_request_keep_their_order() {
        let mut queue = Queue::default();
        queue.push((0..5).map(|n| (n, 10)), Instant::now());
        assert_eq!(order(&mut queue), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_small_request_goes_before_the_rest_of_a_large_one_that_came_first() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.push((0..100).map(|n| (n, 10)), now);
        queue.push([(1000, 10)], now + 3 * ROW_PACE);
        let order = order(&mut queue);
        let place = order.iter().position(|&row| row == 1000);
        // Those that count as older or as old go first: 0 to 3.
        assert_eq!(place, Some(4));
    }

    #[test]
    fn rows_that_nobody_wants_are_dropped_and_the_others_stay() {
        let mut queue = Queue::default();
        queue.push((0..6).map(|n| (n, 10)), Instant::now());
        queue.retain(|row| row % 2 == 0);
        assert_eq!(order(&mut queue), [0, 2, 4]);
        assert!(queue.is_empty());
    }

    proptest! {
        #[test]
        fn no_row_is_overtaken_by_more_than_came_within_its_requests_own_pace(
            requests in proptest::collection::vec((1_u32..50, 0_u64..40), 1..20),
        ) {
            let start = Instant::now();
            let mut queue = Queue::default();
            let mut arrived = Duration::ZERO;
            let mut due = Vec::new();
            for (rows, after_ms) in &requests {
                arrived += Duration::from_millis(*after_ms);
                let now = start + arrived;
                let first = u32::try_from(due.len()).unwrap();
                queue.push((first..first + rows).map(|row| (row, 1)), now);
                due.extend((0..*rows).map(|row| now + ROW_PACE * row));
            }
            let order = order(&mut queue);
            prop_assert_eq!(order.len(), due.len());
            for pair in order.windows(2) {
                prop_assert!(due[pair[0] as usize] <= due[pair[1] as usize]);
            }
        }
    }
}
