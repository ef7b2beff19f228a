//! Maps keyed by request numbers, which one side makes by counting up.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map from request numbers.
pub type NumberMap<V> = HashMap<u64, V, BuildHasherDefault<NumberHasher>>;

/// A hash for counters: there is nobody to defend against, so it may be cheap.
#[derive(Default)]
pub struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The map takes the upper bits for its own use: spread a counter over all of them.
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_spread_over_the_upper_bits() {
        let hash = |number: u64| {
            let mut hasher = NumberHasher::default();
            hasher.write_u64(number);
            hasher.finish() >> 57
        };
        let seen: std::collections::BTreeSet<u64> = (0..128).map(hash).collect();
        assert!(seen.len() > 64, "{} of 128", seen.len());
    }
}
