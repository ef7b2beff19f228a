//! Which replica a request would rather go to: the same one for the same session or model, on
//! every router and after a restart. Pure.
//!
//! Rendezvous hashing: each replica has a weight for each key, the heaviest one is preferred. A
//! replica that comes takes over only those keys for which it is the heaviest; one that goes
//! gives away only its own, to all the others alike. It is a preference: a request never waits
//! for its replica while another one is free.

/// What a request wants to stay with, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity(u64);

/// A replica's part of the weights, made of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark(u64);

// === impl Affinity ===

impl Affinity {
    /// What the client asks for: to stay with its session if it names one, else with its
    /// model. None when it names neither.
    pub fn of(session: &str, model: &str) -> Option<Affinity> {
        let key = if session.is_empty() { model } else { session };
        (!key.is_empty()).then(|| Affinity(hash(key)))
    }
}

// === impl Mark ===

impl Mark {
    pub fn of(replica_id: &str) -> Mark {
        Mark(hash(replica_id))
    }

    /// How much the replica is preferred.
    pub fn weight(self, affinity: Affinity) -> u64 {
        mix(self.0 ^ affinity.0)
    }
}

/// FNV-1a, mixed. The same in every process and release, other than the standard library's:
/// routers that hash differently send the same session to different replicas.
pub(super) fn hash(text: &str) -> u64 {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(text.bytes().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// The end of SplitMix64: every bit of the number depends on every bit of `z`.
pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn preferred<'a>(replicas: impl IntoIterator<Item = &'a String>, key: &str) -> &'a str {
        let affinity = Affinity::of(key, "").unwrap();
        let weight = |id: &&String| Mark::of(id).weight(affinity);
        replicas.into_iter().max_by_key(weight).unwrap()
    }

    #[test]
    fn a_session_counts_before_a_model_and_nothing_means_no_preference() {
        assert_eq!(Affinity::of("s", "m"), Affinity::of("s", ""));
        assert_ne!(Affinity::of("", "m"), Affinity::of("s", ""));
        assert_eq!(Affinity::of("", ""), None);
    }

    #[test]
    fn keys_are_spread_evenly_and_as_every_other_release_spreads_them() {
        let replicas: Vec<String> = (0..5).map(|n| format!("replica{n}")).collect();
        let of = |id: &str| {
            let keys = (0..5000).map(|n| format!("session-{n}"));
            keys.filter(|key| preferred(&replicas, key) == id).count()
        };
        let counts: Vec<usize> = replicas.iter().map(|id| of(id)).collect();
        assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
        // Changing this moves every session of a cluster while it is upgraded.
        let number = Affinity(10_348_509_449_063_778_181);
        assert_eq!(Affinity::of("session-1", ""), Some(number));
    }

    proptest! {
        #[test]
        fn a_replica_that_comes_or_goes_moves_only_the_keys_that_are_its_own(
            replicas in proptest::collection::btree_set("[a-z0-9]{8}", 2..12),
            keys in proptest::collection::vec("\\PC{1,24}", 1..50),
            which in any::<prop::sample::Index>(),
        ) {
            let changing = which.get(&replicas.iter().collect::<Vec<_>>()).to_string();
            let without: BTreeSet<String> =
                replicas.iter().filter(|id| **id != changing).cloned().collect();
            for key in &keys {
                let (with_it, without_it) = (preferred(&replicas, key), preferred(&without, key));
                prop_assert!(with_it == changing || with_it == without_it);
            }
        }
    }
}
