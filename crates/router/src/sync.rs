//! A lock that does not carry a panic over: the state behind our locks is valid between any two
//! statements that may panic, and one failed request must not fail all later ones.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, whatever happened to the last holder.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
