//! Label selectors: which nodes are wanted, by Kubernetes-like labels. A key is
//! `[prefix/]name`; a value is a word, `!word`, `in(a, b)` or `!in(a, b)`.

use std::collections::BTreeMap;

use crate::decode::{At, string, values};
use crate::error::{Findings, quoted};

/// Characters of one label, as in Kubernetes.
const LABEL_CHARS_MAX: usize = 63;

/// Characters of the part before the slash: a DNS name.
const PREFIX_CHARS_MAX: usize = 253;

/// A selector whose keys and values are checked.
pub(crate) fn read(findings: &mut Findings, at: &At<'_>) -> Option<BTreeMap<String, String>> {
    let selector = unchecked(findings, at)?;
    for (key, value) in &selector {
        if !is_key(key) {
            let key = quoted(key);
            at.problem(
                findings,
                format!("{key} is no label key, allowed is [dns-prefix/]name"),
            );
        } else if !value.is_empty() && !is_value(value) {
            let value = quoted(value);
            let allowed = "allowed are word, !word, in(a, b) and !in(a, b)";
            at.problem(findings, format!("{value} is no label selector, {allowed}"));
        }
    }
    Some(selector)
}

/// A selector of a placement group's bundle, which Ray does not check at this point.
pub(crate) fn unchecked(findings: &mut Findings, at: &At<'_>) -> Option<BTreeMap<String, String>> {
    values(findings, at, string)
}

fn is_key(key: &str) -> bool {
    match key.rsplit_once('/') {
        None => is_label(key),
        Some((prefix, name)) => {
            prefix.chars().count() <= PREFIX_CHARS_MAX
                && prefix
                    .split('.')
                    .all(|part| part.is_empty() || is_label(part))
                && is_label(name)
        }
    }
}

fn is_value(value: &str) -> bool {
    let value = value.strip_prefix('!').unwrap_or(value);
    if is_label(value) {
        return true;
    }
    let list = value.strip_prefix("in").unwrap_or(value);
    let list = list
        .strip_prefix('(')
        .and_then(|list| list.strip_suffix(')'));
    list.is_some_and(|list| {
        let mut parts = list.split(',');
        parts.next().is_some_and(is_label)
            && parts.all(|part| is_label(part.strip_prefix(' ').unwrap_or(part)))
    })
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    bytes.len() <= LABEL_CHARS_MAX
        && first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_the_rules_of_kubernetes() {
        for key in ["a", "ray.io/accelerator-type", "a.b/c_d", "1"] {
            assert!(is_key(key), "{key}");
        }
        for key in ["", "-a", "a-", "a/", "my@label", "a b"] {
            assert!(!is_key(key), "{key}");
        }
        for value in ["spot", "!GPU", "in(A123, B456,C)", "!in(spot, on-demand)"] {
            assert!(is_value(value), "{value}");
        }
        for value in ["-spot", "spot_", "in()", "in(spot,", "!!in(a)", "in(a,  b)"] {
            assert!(!is_value(value), "{value}");
        }
    }
}
