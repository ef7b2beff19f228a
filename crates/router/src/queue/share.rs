//! Which part of a deployment's `max_queued_requests` is this router's, so that what waits in
//! all routers together respects it. Pure.

/// This router's place among those that share a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// From 0.
    rank: u64,
    routers: u64,
}

impl Default for Share {
    /// The only router.
    fn default() -> Self {
        Share {
            rank: 0,
            routers: 1,
        }
    }
}

impl Share {
    /// The place of a router among those that the table names, in its order. A table of a
    /// release that does not name any gives each router the whole limit, as that release did. A
    /// router that the table does not name yet takes the place after the last.
    pub fn of(routers: &[String], own: &str) -> Share {
        if routers.is_empty() {
            return Share::default();
        }
        let count = routers.len() as u64;
        match routers.iter().position(|id| id == own) {
            Some(rank) => Share {
                rank: rank as u64,
                routers: count,
            },
            None => Share {
                rank: count,
                routers: count + 1,
            },
        }
    }

    /// The router's part of a limit; a negative one is none and stays so. The first ones get
    /// what is left over.
    pub fn part(self, limit: i64) -> i64 {
        let Ok(whole) = u64::try_from(limit) else {
            return limit;
        };
        let part = whole / self.routers + u64::from(self.rank < whole % self.routers);
        // Not above `limit`, so it fits.
        i64::try_from(part).unwrap_or(limit)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("router{n}")).collect()
    }

    #[test]
    fn no_limit_stays_none_and_a_table_that_names_nobody_shares_nothing() {
        assert_eq!(Share::of(&ids(3), "router1").part(-1), -1);
        assert_eq!(Share::of(&[], "router1").part(7), 7);
    }

    #[test]
    fn a_router_that_is_not_named_yet_takes_the_part_after_the_last() {
        assert_eq!(Share::of(&ids(2), "new").part(9), 3);
        assert_eq!(Share::of(&ids(2), "new").part(8), 2);
    }

    proptest! {
        #[test]
        fn all_parts_together_are_the_limit_and_differ_by_one_at_most(
            count in 1usize..20,
            limit in prop_oneof![0i64..50, 0i64..=i64::MAX],
        ) {
            let routers = ids(count);
            let parts: Vec<i64> = routers.iter().map(|id| Share::of(&routers, id).part(limit)).collect();
            prop_assert_eq!(parts.iter().map(|part| i128::from(*part)).sum::<i128>(), i128::from(limit));
            let (least, most) = (parts.iter().min().unwrap(), parts.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{parts:?}");
        }
    }
}
