//! What a plain YAML word means: YAML 1.1 as PyYAML reads it, because that is what reads the
//! same file on Ray.
//!
//! So `yes` and `off` are booleans, `010` is eight, `1:30` is ninety, `1e3` is a string (PyYAML
//! wants a dot and a sign there). One difference on purpose: a date such as `2026-01-31` stays
//! the string it is; PyYAML makes an object of it that cannot become JSON.

use crate::node::Data;

/// The value of an unquoted, untagged word, or why there is none.
pub(super) fn resolve_plain(word: &str) -> Result<Data, String> {
    if let Some(data) = null(word).or_else(|| boolean(word)) {
        return Ok(data);
    }
    match number(word) {
        Some(data) => finite(data, word),
        None => Ok(Data::Text(word.to_owned())),
    }
}

/// The value of a word with one of YAML's own tags (`!!str` and so on), or why there is none.
pub(super) fn resolve_tagged(suffix: &str, word: &str) -> Result<Data, String> {
    let data = match suffix {
        "str" => Some(Data::Text(word.to_owned())),
        "null" => Some(Data::Null),
        "bool" => boolean(word),
        "int" => integer(word),
        "float" => number(word).map(|data| match data {
            Data::Int(value) => Data::Float(value as f64),
            other => other,
        }),
        _ => {
            return Err(format!(
                "the tag !!{suffix} is not known here, allowed are !!str, !!int, !!float, \
                 !!bool, !!null, !!seq and !!map"
            ));
        }
    };
    match data {
        Some(data) => finite(data, word),
        None => Err(format!("{} is no !!{suffix}", crate::error::quoted(word))),
    }
}

fn finite(data: Data, word: &str) -> Result<Data, String> {
    match data {
        Data::Float(value) if !value.is_finite() => Err(format!(
            "{} is not a finite number",
            crate::error::quoted(word)
        )),
        other => Ok(other),
    }
}

fn null(word: &str) -> Option<Data> {
    matches!(word, "" | "~" | "null" | "Null" | "NULL").then_some(Data::Null)
}

fn boolean(word: &str) -> Option<Data> {
    match word {
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Some(Data::Bool(true))
        }
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Some(Data::Bool(false))
        }
        _ => None,
    }
}

fn number(word: &str) -> Option<Data> {
    integer(word).or_else(|| float(word).map(Data::Float))
}

fn integer(word: &str) -> Option<Data> {
    let (negative, digits) = signed(word);
    if digits.contains(':') {
        return sexagesimal(negative, digits);
    }
    let (radix, digits) = match digits.as_bytes() {
        [b'0'] => (10, digits),
        [b'0', b'b', ..] => (2, &digits[2..]),
        [b'0', b'x', ..] => (16, &digits[2..]),
        [b'0', ..] => (8, &digits[1..]),
        [b'1'..=b'9', ..] => (10, digits),
        _ => return None,
    };
    let digits = digits.replace('_', "");
    // `from_str_radix` takes a sign of its own, which must not follow ours.
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    match i128::from_str_radix(&digits, radix) {
        Ok(value) => Some(in_range(if negative { -value } else { value })),
        // More than 128 bits: only its size counts any more.
        Err(_) => {
            let value = digits.chars().fold(0.0, |sum, c| {
                sum * f64::from(radix) + f64::from(c.to_digit(radix).unwrap_or(0))
            });
            Some(Data::Float(if negative { -value } else { value }))
        }
    }
}

/// Integers that JSON readers keep exactly stay integers, the others become floats.
fn in_range(value: i128) -> Data {
    if (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&value) {
        Data::Int(value)
    } else {
        Data::Float(value as f64)
    }
}

/// `1:30` is ninety: a number in base sixty, the first part without a leading zero.
fn sexagesimal(negative: bool, digits: &str) -> Option<Data> {
    let mut parts = digits.split(':');
    let first = parts.next()?.replace('_', "");
    if !digits.starts_with(|c: char| ('1'..='9').contains(&c)) || !all_digits(&first) {
        return None;
    }
    let mut value: i128 = first.parse().ok()?;
    for part in parts {
        value = value.checked_mul(60)?.checked_add(sixtieth(part)?.into())?;
    }
    Some(in_range(if negative { -value } else { value }))
}

fn sixtieth(part: &str) -> Option<u8> {
    let fits = matches!(part.len(), 1 | 2) && all_digits(part);
    part.parse().ok().filter(|value| fits && *value < 60)
}

fn float(word: &str) -> Option<f64> {
    let (negative, digits) = signed(word);
    let sign = if negative { -1.0 } else { 1.0 };
    match digits {
        ".inf" | ".Inf" | ".INF" => return Some(sign * f64::INFINITY),
        // NaN takes no sign.
        ".nan" | ".NaN" | ".NAN" if digits.len() == word.len() => return Some(f64::NAN),
        _ => {}
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if digits.starts_with('.') && digits.len() != word.len() {
        // PyYAML takes a sign before a digit only.
        return None;
    }
    let (whole, fraction) = digits.split_once('.')?;
    let (fraction, exponent) = match fraction.split_once(['e', 'E']) {
        Some((fraction, exponent)) => (fraction, Some(exponent)),
        None => (fraction, None),
    };
    if let Some(exponent) = exponent {
        // A sign is required; `1.0e3` is a string.
        let digits = exponent.strip_prefix(['+', '-'])?;
        if !all_digits(digits) {
            return None;
        }
    }
    if whole.contains(':') {
        return sexagesimal_float(sign, whole, fraction, exponent);
    }
    let plain = |part: &str| part.chars().all(|c| c.is_ascii_digit() || c == '_');
    let has_digit = whole.starts_with(|c: char| c.is_ascii_digit())
        || (whole.is_empty() && fraction.starts_with(|c: char| c.is_ascii_digit()));
    if !plain(whole) || !plain(fraction) || !has_digit {
        return None;
    }
    let exponent = exponent
        .map(|exponent| format!("e{exponent}"))
        .unwrap_or_default();
    let text = format!("0{whole}.{fraction}0{exponent}").replace('_', "");
    text.parse::<f64>().ok().map(|value| sign * value)
}

fn sexagesimal_float(
    sign: f64,
    whole: &str,
    fraction: &str,
    exponent: Option<&str>,
) -> Option<f64> {
    let fraction = fraction.replace('_', "");
    let mut parts = whole.split(':');
    let first = parts.next()?.replace('_', "");
    if exponent.is_some() || !all_digits(&first) || !fraction.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let mut value: f64 = first.parse().ok()?;
    for part in parts {
        value = value * 60.0 + f64::from(sixtieth(part)?);
    }
    Some(sign * (value + format!("0.{fraction}0").parse::<f64>().ok()?))
}

fn signed(word: &str) -> (bool, &str) {
    match word.as_bytes() {
        [b'-', ..] => (true, &word[1..]),
        [b'+', ..] => (false, &word[1..]),
        _ => (false, word),
    }
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_mean_what_pyyaml_says() {
        let text = |word: &str| Data::Text(word.to_owned());
        let cases = [
            ("", Data::Null),
            ("~", Data::Null),
            ("yes", Data::Bool(true)),
            ("Off", Data::Bool(false)),
            ("yEs", text("yEs")),
            ("y", text("y")),
            ("0", Data::Int(0)),
            ("-0", Data::Int(0)),
            ("12", Data::Int(12)),
            ("+1_000", Data::Int(1000)),
            ("010", Data::Int(8)),
            ("08", text("08")),
            ("0x1F", Data::Int(31)),
            ("0b101", Data::Int(5)),
            ("0o17", text("0o17")),
            ("1:30", Data::Int(90)),
            ("08:30", text("08:30")),
            ("1:75", text("1:75")),
            ("1:30.5", Data::Float(90.5)),
            ("1.5", Data::Float(1.5)),
            ("1.", Data::Float(1.0)),
            (".5", Data::Float(0.5)),
            ("-.5", text("-.5")),
            ("1e3", text("1e3")),
            ("1.0e3", text("1.0e3")),
            ("1.0e+3", Data::Float(1000.0)),
            ("-1.5E-1", Data::Float(-0.15)),
            ("1.2.3", text("1.2.3")),
            (".", text(".")),
            ("-", text("-")),
            ("+-1", text("+-1")),
            ("2026-01-31", text("2026-01-31")),
            ("app:builder", text("app:builder")),
            (
                "18446744073709551616",
                Data::Float(18_446_744_073_709_551_616.0),
            ),
        ];
        for (word, expected) in cases {
            assert_eq!(resolve_plain(word), Ok(expected), "{word}");
        }
    }

    #[test]
    fn numbers_that_json_cannot_hold_are_refused() {
        for word in [".inf", "-.INF", ".nan", "1.0e+400"] {
            assert!(resolve_plain(word).is_err(), "{word}");
        }
        assert_eq!(resolve_plain("-.nan"), Ok(Data::Text("-.nan".to_owned())));
    }

    #[test]
    fn tags_choose_the_kind() {
        assert_eq!(resolve_tagged("str", "5"), Ok(Data::Text("5".to_owned())));
        assert_eq!(resolve_tagged("float", "5"), Ok(Data::Float(5.0)));
        assert!(
            resolve_tagged("int", "five")
                .unwrap_err()
                .contains("is no !!int")
        );
        assert!(
            resolve_tagged("python/object", "x")
                .unwrap_err()
                .contains("not known")
        );
    }

    proptest! {
        #[test]
        fn any_word_has_a_value_or_a_reason(word in ".*") {
            let _ = resolve_plain(&word);
        }

        #[test]
        fn words_of_number_letters_have_a_value_or_a_reason(word in "[-+0-9a-fx_:.eE]{0,12}") {
            let _ = resolve_plain(&word);
        }

        #[test]
        fn written_numbers_are_read_back(value in any::<i64>(), fraction in -1e9f64..1e9) {
            prop_assert_eq!(resolve_plain(&value.to_string()), Ok(Data::Int(value.into())));
            let word = format!("{fraction:?}");
            if !word.contains('e') {
                prop_assert_eq!(resolve_plain(&word), Ok(Data::Float(fraction)));
            }
        }
    }
}
