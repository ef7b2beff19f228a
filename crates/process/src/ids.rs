//! Ids in the shapes that Ray Serve's clients know: 56 hex digits for nodes and processes,
//! 8 lower-case alphanumerics for replicas.

use sha2::{Digest, Sha256};

/// Hex digits in the id of a node or a process.
const NODE_ID_DIGITS: usize = 56;
/// Characters in the id of a replica.
const REPLICA_ID_CHARS: usize = 8;

/// A new random id of 56 hex digits.
pub fn hex56() -> String {
    let mut digits = String::with_capacity(2 * NODE_ID_DIGITS);
    while digits.len() < NODE_ID_DIGITS {
        digits.push_str(&uuid::Uuid::new_v4().simple().to_string());
    }
    digits.truncate(NODE_ID_DIGITS);
    digits
}

/// A new random id of 8 lower-case letters and digits.
pub fn replica_id() -> String {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let random = uuid::Uuid::new_v4();
    let pick = |byte: &u8| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]);
    random
        .as_bytes()
        .iter()
        .take(REPLICA_ID_CHARS)
        .map(pick)
        .collect()
}

/// This machine's id: the same for every process on it and after a restart.
pub fn node_id() -> String {
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let mut hash = Sha256::new();
    hash.update(machine.trim());
    hash.update(rustix::system::uname().nodename().to_bytes());
    let digest = hash.finalize();
    let mut digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.truncate(NODE_ID_DIGITS);
    digits
}

/// The address that other machines would reach this one by: that of the default route, found
/// without sending anything. Loopback when there is no network.
pub fn node_ip() -> String {
    let found = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        // Connecting a UDP socket only picks a route. 192.0.2.1 is reserved for documentation.
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    found.map_or_else(|_| "127.0.0.1".to_owned(), |addr| addr.ip().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_shapes_that_ray_has() {
        assert!(hex56().len() == 56 && hex56().bytes().all(|b| b.is_ascii_hexdigit()));
        let id = replica_id();
        assert!(id.len() == 8, "{id}");
        assert!(
            id.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()),
            "{id}"
        );
        assert_ne!(hex56(), hex56());
        assert_eq!(node_id(), node_id());
        assert_eq!(node_id().len(), 56);
        assert!(node_ip().parse::<std::net::IpAddr>().is_ok());
    }
}
