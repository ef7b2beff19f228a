//! How long the controller's passes take.

use std::time::Duration;

use crate::metrics;
use crate::status::LoopStats;

/// Running mean and deviation of all passes (Welford's method, so that no pass is kept).
#[derive(Debug, Default)]
pub struct LoopMeter {
    stats: LoopStats,
    squares: f64,
}

// === impl LoopMeter ===

impl LoopMeter {
    /// One pass ended.
    pub fn pass(&mut self, took: Duration, pause: Duration, now_s: f64) {
        let took_s = took.as_secs_f64();
        let stats = &mut self.stats;
        stats.duration_min_s = if stats.loops == 0 {
            took_s
        } else {
            stats.duration_min_s.min(took_s)
        };
        stats.duration_max_s = stats.duration_max_s.max(took_s);
        stats.loops += 1;
        let off = took_s - stats.duration_mean_s;
        stats.duration_mean_s += off / stats.loops as f64;
        self.squares += off * (took_s - stats.duration_mean_s);
        stats.duration_std_s = (self.squares / stats.loops as f64).sqrt();
        stats.last_loop_at_s = now_s;
        stats.pause_s = pause.as_secs_f64();
        ::metrics::gauge!(metrics::CONTROL_LOOP_DURATION_S).set(took_s);
        ::metrics::gauge!(metrics::CONTROL_LOOPS).set(stats.loops as f64);
    }

    /// A worker or router reported.
    pub fn report_received(&mut self) {
        self.stats.reports_received += 1;
    }

    /// So far.
    pub fn stats(&self) -> LoopStats {
        self.stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation_are_those_of_all_passes() {
        let mut meter = LoopMeter::default();
        for ms in [1, 2, 3, 4] {
            meter.pass(Duration::from_millis(ms), Duration::ZERO, 0.0);
        }
        let stats = meter.stats();
        assert_eq!(stats.loops, 4);
        assert!((stats.duration_mean_s - 0.0025).abs() < 1e-9);
        assert!((stats.duration_std_s - 0.001_118_033_988).abs() < 1e-9);
        assert!((stats.duration_min_s - 0.001).abs() < 1e-9);
        assert!((stats.duration_max_s - 0.004).abs() < 1e-9);
    }
}
