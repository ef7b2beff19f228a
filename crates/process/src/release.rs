//! Which release this process is, and with which others it works together. Pure.
//!
//! Every release has a protocol number, one above that of the release before. Processes of one
//! cluster show theirs with every session and every exchange; those whose numbers are further
//! apart than one refuse each other (docs/adr/0011).

/// The number of this release; raised by one with every release, whatever it changes.
pub const PROTOCOL: u32 = 1;

/// How far apart two processes of one cluster may be.
pub const PROTOCOL_SKEW_MAX: u32 = 1;

/// The version that people know.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where the number travels. A process without it is of the release before there were numbers.
pub(crate) const PROTOCOL_KEY: &str = "mobula-protocol";

/// The commit that was built; who builds a release says it by `MOBULA_COMMIT`.
pub fn commit() -> &'static str {
    option_env!("MOBULA_COMMIT").unwrap_or("unknown")
}

/// Why a peer that shows this cannot be worked with, if it cannot.
pub(crate) fn refusal(shown: Option<&[u8]>) -> Option<String> {
    let theirs = match shown {
        None => 0,
        Some(bytes) => match std::str::from_utf8(bytes).ok().and_then(|t| t.parse().ok()) {
            Some(number) => number,
            None => return Some(format!("{PROTOCOL_KEY} must be a whole number")),
        },
    };
    (PROTOCOL.abs_diff(theirs) > PROTOCOL_SKEW_MAX).then(|| {
        format!(
            "release {VERSION} with protocol {PROTOCOL} works with protocols {} to {}, the peer \
             has {theirs}; upgrade one release at a time",
            PROTOCOL.saturating_sub(PROTOCOL_SKEW_MAX),
            PROTOCOL.saturating_add(PROTOCOL_SKEW_MAX),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_releases_work_together_and_others_are_told_why_not() {
        for near in [PROTOCOL - 1, PROTOCOL, PROTOCOL + 1] {
            assert_eq!(refusal(Some(near.to_string().as_bytes())), None, "{near}");
        }
        let far = refusal(Some((PROTOCOL + 2).to_string().as_bytes())).unwrap();
        assert_eq!(
            far,
            format!(
                "release {VERSION} with protocol {PROTOCOL} works with protocols {} to {}, the \
                 peer has {}; upgrade one release at a time",
                PROTOCOL - 1,
                PROTOCOL + 1,
                PROTOCOL + 2,
            )
        );
        let absurd = refusal(Some(b"new")).unwrap();
        assert_eq!(absurd, "mobula-protocol must be a whole number");
    }

    #[test]
    fn a_peer_without_a_number_is_of_the_release_before_there_were_any() {
        assert_eq!(refusal(None).is_some(), PROTOCOL > PROTOCOL_SKEW_MAX);
    }
}
