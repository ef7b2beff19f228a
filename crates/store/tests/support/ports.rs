//! Ports for servers that tests start. Shared by the tests of several crates.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which the system takes ports of clients (`ip_local_port_range`): a port of
/// that range, free a moment ago, may be a client's when the server comes.
const FIRST: u16 = 10_000;
const LAST: u16 = 32_000;

/// None is given twice by one process, so that what starts later does not meet what starts sooner.
static GIVEN: AtomicU16 = AtomicU16::new(0);

/// A port that nobody listened on a moment ago.
pub fn free_port() -> u16 {
    let range = LAST - FIRST;
    // Processes that run side by side begin at different places.
    let begin = (std::process::id() % u32::from(range)) as u16;
    for _ in 0..range {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + ((u32::from(begin) * 37 + u32::from(given)) % u32::from(range)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port of {FIRST} to {LAST} is free");
}
