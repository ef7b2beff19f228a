//! Which refusals are worth a line in the log. Pure.
//!
//! A peer that is refused dials again for ever, and strangers can dial as often as they like, so
//! each address is told once in a while, and only so many addresses are remembered.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// One line per peer in this time.
pub const REFUSAL_LOG_PERIOD: Duration = Duration::from_secs(60);

/// Addresses that are remembered; while there are more, further ones are not logged.
pub const REFUSED_PEERS_MAX: usize = 1024;

/// When each peer was last told of. None stands for peers without an address.
#[derive(Debug, Default)]
pub struct Refusals {
    told: HashMap<Option<IpAddr>, Instant>,
}

impl Refusals {
    /// Notes a refusal; whether to log it.
    pub fn note(&mut self, peer: Option<IpAddr>, now: Instant) -> bool {
        let is_recent = |told: &Instant| now.saturating_duration_since(*told) < REFUSAL_LOG_PERIOD;
        if self.told.get(&peer).is_some_and(is_recent) {
            return false;
        }
        if self.told.len() >= REFUSED_PEERS_MAX {
            self.told.retain(|_, told| is_recent(told));
        }
        if self.told.len() >= REFUSED_PEERS_MAX {
            return false;
        }
        self.told.insert(peer, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn peer(number: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    #[test]
    fn each_peer_is_logged_once_per_period() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        assert!(refusals.note(peer(1), start));
        assert!(!refusals.note(peer(1), start + REFUSAL_LOG_PERIOD / 2));
        assert!(refusals.note(peer(2), start), "another peer");
        assert!(refusals.note(None, start), "a peer without an address");
        assert!(refusals.note(peer(1), start + REFUSAL_LOG_PERIOD));
    }

    #[test]
    fn strangers_from_everywhere_fill_neither_the_log_nor_the_memory() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        let most = u32::try_from(REFUSED_PEERS_MAX).unwrap();
        let logged = (0..2 * most).filter(|n| refusals.note(peer(*n), start));
        assert_eq!(logged.count(), REFUSED_PEERS_MAX);
        assert_eq!(refusals.told.len(), REFUSED_PEERS_MAX);
        assert!(refusals.note(peer(2 * most), start + REFUSAL_LOG_PERIOD));
        assert_eq!(refusals.told.len(), 1, "what is over is forgotten");
    }
}
