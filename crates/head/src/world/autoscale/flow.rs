//! What passes through one deployment: how many requests come, and how long a replica has each.
//!
//! Routers report counts that only grow, so what lies between two reports of a router is known
//! whether or not one in between was lost. Here it is kept as pieces of the recent past.

use std::collections::VecDeque;

/// What is kept: long enough for a service time that can be relied on.
const KEPT_MS_MAX: u64 = 60_000;

/// Pieces are cut at this, so that many routers do not make many pieces.
const PIECE_MS: u64 = 50;

/// Routers report a change within this time, so that is when it happened.
const REPORTED_WITHIN_MS: u64 = 250;

/// What passed through one deployment at one router, or between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Admitted.
    pub arrivals: u64,
    /// Left their replica.
    pub served: u64,
    /// How long those were there.
    pub service_us: u64,
}

/// What passed through between two moments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Piece {
    from_ms: u64,
    at_ms: u64,
    counts: Counts,
    /// Nobody waited.
    calm: bool,
}

/// The last minute of one deployment, over all routers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flow {
    pieces: VecDeque<Piece>,
    /// Since when anything is known.
    known_since_ms: Option<u64>,
    /// How long a replica has a request; kept when nothing was served for a while.
    service_s: Option<f64>,
}

// === impl Counts ===

impl Counts {
    /// What was added since; all of it when the router began anew.
    pub fn since(self, before: Counts) -> Counts {
        let counts = (
            self.arrivals.checked_sub(before.arrivals),
            self.served.checked_sub(before.served),
            self.service_us.checked_sub(before.service_us),
        );
        match counts {
            (Some(arrivals), Some(served), Some(service_us)) => Counts {
                arrivals,
                served,
                service_us,
            },
            _ => self,
        }
    }

    fn add(&mut self, more: Counts) {
        self.arrivals = self.arrivals.saturating_add(more.arrivals);
        self.served = self.served.saturating_add(more.served);
        self.service_us = self.service_us.saturating_add(more.service_us);
    }
}

// === impl Flow ===

impl Flow {
    /// So much passed through; `calm`: nobody waited meanwhile.
    pub fn push(&mut self, piece: Piece, calm: bool) {
        let Piece { at_ms, counts, .. } = piece;
        self.known_since_ms.get_or_insert(at_ms);
        if counts == Counts::default() {
            return;
        }
        match self.pieces.back_mut() {
            Some(last) if at_ms / PIECE_MS == last.at_ms / PIECE_MS && last.calm == calm => {
                last.counts.add(counts);
                last.from_ms = last.from_ms.min(piece.from_ms);
                last.at_ms = at_ms;
            }
            Some(_) | None => self.pieces.push_back(Piece { calm, ..piece }),
        }
        self.forget(at_ms);
        self.service_s = self.measured_service_s().or(self.service_s);
    }

    /// Drops what is too old to count.
    pub fn forget(&mut self, now_ms: u64) {
        let oldest = now_ms.saturating_sub(KEPT_MS_MAX);
        while self
            .pieces
            .front()
            .is_some_and(|first| first.at_ms < oldest)
        {
            self.pieces.pop_front();
        }
    }

    /// Whether nothing passed through of late.
    pub fn is_quiet(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Requests that came within the last `span_ms`.
    pub fn arrivals(&self, now_ms: u64, span_ms: u64) -> f64 {
        let begin = now_ms.saturating_sub(span_ms);
        let inside = self.pieces.iter().rev();
        inside
            .map(|piece| piece.counts.arrivals as f64 * piece.part_after(begin))
            .sum()
    }

    /// Of how much of the past anything is known; the first report says what came before it, too.
    pub fn known_ms(&self, now_ms: u64) -> u64 {
        let since = self.known_since_ms.unwrap_or(now_ms);
        now_ms.saturating_sub(since) + REPORTED_WITHIN_MS
    }

    /// Arrivals per second of the last `span_ms`.
    pub fn rate(&self, now_ms: u64, span_ms: u64) -> f64 {
        self.arrivals(now_ms, span_ms) * 1000.0 / span_ms.max(1) as f64
    }

    /// Seconds that a replica has a request; None: nothing was ever served.
    pub fn service_s(&self) -> Option<f64> {
        self.service_s
    }

    /// The mean while nobody waited, if there was such a time: a replica that is full answers
    /// more slowly, and would count twice.
    fn measured_service_s(&self) -> Option<f64> {
        let mean = |calm_only: bool| {
            let pieces = self.pieces.iter().filter(|piece| piece.calm || !calm_only);
            let (served, us) = pieces.fold((0, 0.0), |(served, us), piece| {
                (
                    served + piece.counts.served,
                    us + piece.counts.service_us as f64,
                )
            });
            (served > 0).then(|| us / 1e6 / served as f64)
        };
        mean(true).or_else(|| mean(false))
    }
}

// === impl Piece ===

impl Piece {
    /// Between two reports of a router. Where the second comes late, nothing passed through
    /// until shortly before it: a change is reported soon.
    pub fn between_reports(before_ms: u64, at_ms: u64, counts: Counts) -> Piece {
        let between_ms = at_ms.saturating_sub(before_ms);
        let ms = if (1..2 * REPORTED_WITHIN_MS).contains(&between_ms) {
            between_ms
        } else {
            REPORTED_WITHIN_MS
        };
        Piece::after_silence(at_ms.saturating_sub(ms), at_ms, counts)
    }

    /// While a router could not report.
    pub fn after_silence(since_ms: u64, at_ms: u64, counts: Counts) -> Piece {
        Piece {
            from_ms: since_ms,
            at_ms,
            counts,
            calm: false,
        }
    }

    /// How much of it lies after a moment, from 0 to 1.
    fn part_after(&self, begin_ms: u64) -> f64 {
        if self.from_ms >= begin_ms {
            return 1.0;
        }
        let lasts = self.at_ms.saturating_sub(self.from_ms).max(1);
        self.at_ms.saturating_sub(begin_ms) as f64 / lasts as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(arrivals: u64, served: u64, service_us: u64) -> Counts {
        Counts {
            arrivals,
            served,
            service_us,
        }
    }

    fn push(flow: &mut Flow, at_ms: u64, counts: Counts, calm: bool) {
        flow.push(Piece::between_reports(0, at_ms, counts), calm);
    }

    #[test]
    fn a_piece_reaches_back_to_the_report_before_unless_that_was_long_ago() {
        let from = |before, at| Piece::between_reports(before, at, Counts::default()).from_ms;
        assert_eq!(
            [from(700, 1000), from(750, 1000), from(0, 1000)],
            [700, 750, 750]
        );
        assert_eq!(from(1000, 1000), 750);
    }

    #[test]
    fn what_lies_between_two_reports_counts_and_a_router_that_began_anew_counts_whole() {
        let before = counts(10, 8, 800);
        assert_eq!(counts(15, 9, 900).since(before), counts(5, 1, 100));
        assert_eq!(counts(3, 2, 200).since(before), counts(3, 2, 200));
    }

    #[test]
    fn the_rate_follows_a_jump_within_the_span() {
        let mut flow = Flow::default();
        let quarters = |flow: &mut Flow, quarters: std::ops::RangeInclusive<u64>, arrivals| {
            for quarter in quarters {
                push(flow, quarter * 250, counts(arrivals, 0, 0), true);
            }
        };
        quarters(&mut flow, 1..=20, 2);
        assert_eq!(flow.rate(5_000, 500), 8.0);
        quarters(&mut flow, 21..=40, 20);
        assert_eq!(flow.rate(10_000, 500), 80.0);
        assert_eq!(flow.rate(10_000, 10_000), 44.0);
        // Nothing came since.
        assert_eq!(flow.rate(10_500, 500), 0.0);
        assert_eq!(flow.rate(10_400, 500), 16.0);
    }

    #[test]
    fn what_a_router_could_not_report_is_spread_over_its_silence() {
        let mut flow = Flow::default();
        push(&mut flow, 250, counts(20, 0, 0), true);
        flow.push(Piece::after_silence(250, 4_250, counts(320, 0, 0)), true);
        assert_eq!(flow.rate(4_250, 1_000), 80.0);
    }

    #[test]
    fn the_service_time_is_that_of_calm_times_and_is_kept_when_nothing_comes() {
        let mut flow = Flow::default();
        assert_eq!(flow.service_s(), None);
        push(&mut flow, 250, counts(4, 2, 4_000_000), false);
        assert_eq!(flow.service_s(), Some(2.0));
        push(&mut flow, 500, counts(4, 4, 2_000_000), true);
        assert_eq!(flow.service_s(), Some(0.5));
        push(&mut flow, 750, counts(4, 400, 800_000_000), false);
        assert_eq!(flow.service_s(), Some(0.5));
        flow.forget(100_000);
        assert!(flow.is_quiet());
        assert_eq!(flow.service_s(), Some(0.5));
    }

    proptest! {
        #[test]
        fn the_past_that_is_kept_is_bounded_and_no_arrival_counts_twice(
            reports in proptest::collection::vec((1u64..400, 0u64..50), 1..3000),
        ) {
            let mut flow = Flow::default();
            let mut now = 0;
            let mut all = 0;
            for (pause, arrivals) in reports {
                now += pause;
                all += arrivals;
                push(&mut flow, now, counts(arrivals, 0, 0), true);
                prop_assert!(flow.pieces.len() as u64 <= 2 * KEPT_MS_MAX / PIECE_MS);
                prop_assert!(flow.arrivals(now, KEPT_MS_MAX) <= all as f64 + 1e-6);
            }
        }
    }
}
