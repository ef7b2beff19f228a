//! Ids that Ray's documents have and we do not: made of what we have, in Ray's shapes.

use sha2::{Digest, Sha256};

const ACTOR_ID_DIGITS: usize = 32;
const WORKER_ID_DIGITS: usize = 56;

/// 32 hex digits, always the same for the same thing.
pub fn actor_id(kind: &str, id: &str) -> String {
    digits(&format!("actor {kind} {id}"), ACTOR_ID_DIGITS)
}

/// 56 hex digits for a process that has no id of its own.
pub fn worker_id(kind: &str, node_id: &str, pid: u32) -> String {
    digits(&format!("process {kind} {node_id} {pid}"), WORKER_ID_DIGITS)
}

fn digits(of: &str, count: usize) -> String {
    let digest = Sha256::digest(of.as_bytes());
    let mut digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.truncate(count);
    digits
}
