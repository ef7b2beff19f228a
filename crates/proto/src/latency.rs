//! The fixed buckets in which routers count latencies and from which the head reads quantiles.
//! Each bound is a fourth root of two above the one before: a quantile is told to within a
//! fifth, and better by interpolation.

use std::time::Duration;

/// Bounds in milliseconds: 1 to 65 536. One more bucket holds what is above.
pub const BOUNDS: usize = 65;

/// Buckets of one histogram.
pub const BUCKETS: usize = BOUNDS + 1;

/// The bucket of a latency.
pub fn bucket_of(latency: Duration) -> usize {
    let ms = latency.as_secs_f64() * 1000.0;
    if ms <= 1.0 {
        return 0;
    }
    // The small subtraction keeps a latency that is a bound, to the nanosecond, in its bucket.
    let place = (4.0 * ms.log2() - 1e-5).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and BOUNDS"
    )]
    let place = place.clamp(0.0, BOUNDS as f64) as usize;
    place
}

/// The upper bound of a bucket; none for the last.
pub fn bound_ms(bucket: usize) -> Option<f64> {
    let quarter = u32::try_from(bucket).ok().filter(|_| bucket < BOUNDS)?;
    Some((f64::from(quarter) / 4.0).exp2())
}

/// How many of the counted latencies were above a limit: those in the limit's own bucket are
/// taken to lie evenly in it.
pub fn above(counts: &[u64], limit_ms: f64) -> f64 {
    let part = |(bucket, count): (usize, &u64)| {
        let lower = bucket.checked_sub(1).and_then(bound_ms).unwrap_or(0.0);
        let part = match bound_ms(bucket) {
            Some(upper) => ((upper - limit_ms) / (upper - lower)).clamp(0.0, 1.0),
            None => 1.0,
        };
        *count as f64 * part
    };
    counts.iter().enumerate().map(part).sum()
}

/// The latency that the given part of the counted ones did not exceed; none without any. What
/// is above all bounds is said to be at the last.
pub fn quantile_ms(counts: &[u64], part: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    let wanted = total as f64 * part;
    let mut below = 0.0;
    let mut lower = 0.0;
    for (bucket, count) in counts.iter().enumerate() {
        let upper = bound_ms(bucket).unwrap_or(lower);
        let here = *count as f64;
        if here > 0.0 && below + here >= wanted {
            return Some(lower + (upper - lower) * ((wanted - below) / here).clamp(0.0, 1.0));
        }
        below += here;
        lower = upper;
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(latencies_ms: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut counts = vec![0; BUCKETS];
        for ms in latencies_ms {
            counts[bucket_of(Duration::from_millis(ms))] += 1;
        }
        counts
    }

    #[test]
    fn every_latency_lies_between_the_bounds_of_its_bucket() {
        for us in (0..200_000_000_u64).step_by(37_123) {
            let latency = Duration::from_micros(us);
            let bucket = bucket_of(latency);
            let ms = latency.as_secs_f64() * 1000.0;
            let upper = bound_ms(bucket).unwrap_or(f64::INFINITY);
            let lower = bucket.checked_sub(1).and_then(bound_ms).unwrap_or(0.0);
            assert!(ms <= upper * 1.000_01, "{ms} above {upper}");
            assert!(ms >= lower * 0.999_99, "{ms} below {lower}");
        }
        for bucket in 0..BOUNDS {
            let bound = Duration::from_secs_f64(bound_ms(bucket).unwrap() / 1000.0);
            assert_eq!(bucket_of(bound), bucket);
        }
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_close_to_the_true_ones() {
        let counts = histogram(1..=1000);
        for part in [0.1, 0.5, 0.9, 0.99] {
            let found = quantile_ms(&counts, part).unwrap();
            let true_ms = part * 1000.0;
            assert!((found / true_ms - 1.0).abs() < 0.1, "{found} for {true_ms}");
        }
        assert_eq!(quantile_ms(&[], 0.99), None);
        assert_eq!(quantile_ms(&histogram([500_000]), 0.99), Some(65536.0));
    }

    #[test]
    fn what_is_above_a_limit_is_counted_nearly_exactly() {
        let counts = histogram(1..=1000);
        for limit in [10.0, 300.0, 990.0] {
            let found = above(&counts, limit);
            assert!(
                (found - (1000.0 - limit)).abs() < 30.0,
                "{found} above {limit}"
            );
        }
        assert_eq!(above(&counts, 2000.0), 0.0);
        assert_eq!(above(&histogram([500_000]), 60_000.0), 1.0);
    }
}
