//! Label selectors: which nodes are wanted, by Kubernetes-like labels. A key is
//! `[prefix/]name`; a value is a word, `!word`, `in(a, b)` or `!in(a, b)`.

use std::collections::BTreeMap;
use std::fmt;

use crate::decode::{At, string, values};
use crate::error::{Findings, quoted};

/// Which labels a worker must have; empty: any will do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector(BTreeMap<String, Wanted>);

/// What one label has to be. A label that a worker does not have is none of any words.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    OneOf(Vec<String>),
    NoneOf(Vec<String>),
}

/// Characters of one label, as in Kubernetes.
const LABEL_CHARS_MAX: usize = 63;

/// Characters of the part before the slash: a DNS name.
const PREFIX_CHARS_MAX: usize = 253;

// === impl LabelSelector ===

impl LabelSelector {
    /// Reads the texts of a selector whose values were checked.
    pub fn of(texts: &BTreeMap<String, String>) -> LabelSelector {
        let wanted = |(key, text): (&String, &String)| (key.clone(), Wanted::of(text));
        LabelSelector(texts.iter().map(wanted).collect())
    }

    /// Whether these labels are wanted.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|(key, wanted)| {
            let has = |words: &[String]| labels.get(key).is_some_and(|label| words.contains(label));
            match wanted {
                Wanted::OneOf(words) => has(words),
                Wanted::NoneOf(words) => !has(words),
            }
        })
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, wanted)) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            let (sign, words) = match wanted {
                Wanted::OneOf(words) => ("", words),
                Wanted::NoneOf(words) => ("!", words),
            };
            match words.as_slice() {
                [word] => write!(f, "{comma}{key}={sign}{word}")?,
                words => write!(f, "{comma}{key}={sign}in({})", words.join(", "))?,
            }
        }
        Ok(())
    }
}

// === impl Wanted ===

impl Wanted {
    fn of(text: &str) -> Wanted {
        let (text, negated) = match text.strip_prefix('!') {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let list = text.strip_prefix("in").unwrap_or(text);
        let list = list.strip_prefix('(').and_then(|l| l.strip_suffix(')'));
        let words = match list {
            Some(list) => list.split(',').map(|word| word.trim().to_owned()).collect(),
            None => vec![text.to_owned()],
        };
        if negated {
            Wanted::NoneOf(words)
        } else {
            Wanted::OneOf(words)
        }
    }
}

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

    #[test]
    fn a_selector_asks_for_words_or_forbids_them_and_a_missing_label_is_no_word() {
        let labels = |pairs: &[(&str, &str)]| {
            let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            pairs.iter().map(owned).collect::<BTreeMap<_, _>>()
        };
        let spot = labels(&[("market", "spot")]);
        let owned = labels(&[("market", "owned"), ("zone", "a")]);
        let cases = [
            ("spot", [true, false, false]),
            ("!spot", [false, true, true]),
            ("in(spot, owned)", [true, true, false]),
            ("!in(spot,owned)", [false, false, true]),
        ];
        for (text, expected) in cases {
            let selector = LabelSelector::of(&labels(&[("market", text)]));
            let found = [&spot, &owned, &labels(&[])].map(|labels| selector.matches(labels));
            assert_eq!(found, expected, "{text}");
        }
        let both = LabelSelector::of(&labels(&[("market", "!spot"), ("zone", "in(a,b)")]));
        assert!(both.matches(&owned) && !both.matches(&spot));
        assert_eq!(both.to_string(), "market=!spot, zone=in(a, b)");
        assert!(LabelSelector::default().matches(&spot));
    }
}
