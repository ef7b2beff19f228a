//! Amounts of memory as Kubernetes writes them: "4Gi", "512M", or bytes. Pure.

/// Suffixes and what they multiply by.
const UNITS: [(&str, u64); 8] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

/// Bytes; None: not an amount of memory.
pub fn bytes(text: &str) -> Option<u64> {
    let (digits, factor) = UNITS
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))
        .unwrap_or((text, 1));
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_digits_with_a_unit_of_kubernetes() {
        assert_eq!(bytes("4Gi"), Some(4 << 30));
        assert_eq!(bytes("512M"), Some(512_000_000));
        assert_eq!(bytes("17"), Some(17));
        for wrong in ["", "Gi", "4gb", "-1", "+1", "1.5Gi", "99999999999Ti"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }
}
