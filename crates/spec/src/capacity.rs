//! `target_capacity`: counts in percent, while a cluster is filled or drained.

/// A count at a capacity in percent: rounded half up, and at least one unless the count or the
/// capacity is zero. No capacity is all of it.
pub fn scaled_count(count: u32, target_capacity: Option<f64>) -> u32 {
    let Some(percent) = target_capacity else {
        return count;
    };
    if percent >= 100.0 {
        return count;
    }
    if percent <= 0.0 || count == 0 {
        return 0;
    }
    let scaled = (f64::from(count) * percent / 100.0 + 0.5).floor();
    // Below `count`, so it fits.
    (scaled as u32).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::scaled_count;

    #[test]
    fn counts_are_rounded_half_up_and_stay_above_zero() {
        let cases = [
            (10, None, 10),
            (10, Some(100.0), 10),
            (10, Some(50.0), 5),
            (5, Some(50.0), 3),
            (3, Some(50.0), 2),
            (1, Some(1.0), 1),
            (10, Some(4.0), 1),
            (10, Some(0.0), 0),
            (0, Some(50.0), 0),
            (200, Some(0.1), 1),
            (3, Some(33.3), 1),
        ];
        for (count, percent, expected) in cases {
            assert_eq!(
                scaled_count(count, percent),
                expected,
                "{count} at {percent:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn more_capacity_never_means_fewer(
            count in 0u32..10_000, low in 0.0f64..=100.0, high in 0.0f64..=100.0,
        ) {
            let (low, high) = (low.min(high), low.max(high));
            let (few, many) = (scaled_count(count, Some(low)), scaled_count(count, Some(high)));
            prop_assert!(few <= many && many <= count);
        }
    }
}
