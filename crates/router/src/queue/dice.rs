//! Chance as an argument.

use super::affinity::mix;

/// Random numbers made of one seed.
#[derive(Clone, Copy, Debug)]
pub struct Dice(u64);

// === impl Dice ===

impl Dice {
    /// Dice that fall as the seed says.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// A number below `n`; 0 when `n` is 0. (SplitMix64.)
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = mix(self.0);
        // The high half of the product; the bias of 2^-64 per choice does not matter here.
        let scaled = (u128::from(z) * n as u128) >> 64;
        usize::try_from(scaled).unwrap_or(0)
    }
}
