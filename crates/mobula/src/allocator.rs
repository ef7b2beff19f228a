//! How long the allocator keeps what was freed.
//!
//! mimalloc gives memory back to the system a second after it was freed, at the earliest, and what
//! a large body passes through is of many sizes: a router of 10 MB echoes then holds 10 to 28 MiB
//! more than they need, now more and now less (docs/performance.md).

use std::ffi::{c_int, c_long};

/// `mi_option_purge_delay` of mimalloc 3.
const PURGE_DELAY: c_int = 15;

/// What it was in mimalloc 2.
const PURGE_DELAY_MS: c_long = 10;

#[expect(unsafe_code, reason = "mimalloc's crate has no name for it")]
// SAFETY: as mimalloc declares it.
unsafe extern "C" {
    fn mi_option_set_default(option: c_int, value: c_long);
}

/// Gives memory back soon, unless `MIMALLOC_PURGE_DELAY` says otherwise.
#[expect(unsafe_code, reason = "mimalloc's crate has no name for it")]
pub fn give_back_soon() {
    // SAFETY: mimalloc looks whether there is such an option, and writes a number.
    unsafe { mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(unsafe_code, reason = "mimalloc's crate has no name for it")]
    // SAFETY: as mimalloc declares it.
    unsafe extern "C" {
        fn mi_option_get(option: c_int) -> c_long;
    }

    #[expect(unsafe_code, reason = "mimalloc's crate has no name for it")]
    fn delay() -> c_long {
        // SAFETY: mimalloc looks whether there is such an option, and reads a number.
        unsafe { mi_option_get(PURGE_DELAY) }
    }

    #[test]
    fn the_option_is_the_one_that_is_a_second_by_default() {
        assert_eq!(delay(), 1000);
        give_back_soon();
        assert_eq!(delay(), PURGE_DELAY_MS);
    }
}
