//! Readers of single values, as lax and as strict as Ray's schema classes are.
//!
//! Lax means: `"8001"`, `8001.0` and `true` are numbers too. Not taken over: numbers that JSON
//! cannot hold (`"nan"`, `"inf"`) and integers of more than 64 bits.

use crate::decode::At;
use crate::error::{Findings, quoted};
use crate::node::Data;

/// Which numbers are allowed, and how a message says it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    above: f64,
    above_itself: bool,
    up_to: f64,
    text: &'static str,
}

pub(crate) const NON_NEGATIVE: Range = Range {
    above: 0.0,
    above_itself: true,
    up_to: f64::MAX,
    text: "of at least 0",
};
pub(crate) const POSITIVE: Range = Range {
    above: 0.0,
    above_itself: false,
    up_to: f64::MAX,
    text: "above 0",
};
/// A part of a whole that is never none of it.
pub(crate) const FRACTION: Range = Range {
    above: 0.0,
    above_itself: false,
    up_to: 1.0,
    text: "above 0 and at most 1",
};
pub(crate) const RATIO: Range = Range {
    above: 0.0,
    above_itself: true,
    up_to: 1.0,
    text: "from 0 to 1",
};
pub(crate) const PERCENT: Range = Range {
    above: 0.0,
    above_itself: true,
    up_to: 100.0,
    text: "from 0 to 100",
};

pub(crate) fn string(findings: &mut Findings, at: &At<'_>) -> Option<String> {
    match &at.node.data {
        Data::Text(text) => Some(text.clone()),
        Data::Null
        | Data::Bool(_)
        | Data::Int(_)
        | Data::Float(_)
        | Data::List(_)
        | Data::Object(_) => {
            at.wrong_kind(findings, "a string");
            None
        }
    }
}

/// A string that is copied or shown in many places and must not be a book.
pub(crate) fn string_up_to(bytes: usize) -> impl Fn(&mut Findings, &At<'_>) -> Option<String> {
    move |findings, at| {
        let text = string(findings, at)?;
        if text.len() > bytes {
            let message = format!("has {} bytes, allowed are {bytes}", text.len());
            at.problem(findings, message);
            return None;
        }
        Some(text)
    }
}

/// One of a closed set of words, in this spelling.
pub(crate) fn word_of<T: Copy>(
    words: &[(&'static str, T)],
) -> impl Fn(&mut Findings, &At<'_>) -> Option<T> {
    move |findings, at| {
        let text = string(findings, at)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let message = format!(
            "must be one of {}, got {}",
            allowed.join(", "),
            quoted(&text)
        );
        at.problem(findings, message);
        None
    }
}

pub(crate) fn boolean(findings: &mut Findings, at: &At<'_>) -> Option<bool> {
    let value = match &at.node.data {
        Data::Bool(value) => Some(*value),
        Data::Int(0) => Some(false),
        Data::Int(1) => Some(true),
        Data::Float(value) if *value == 0.0 => Some(false),
        Data::Float(value) if *value == 1.0 => Some(true),
        Data::Text(text) => match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "t" | "yes" | "y" | "on" => Some(true),
            "0" | "false" | "f" | "no" | "n" | "off" => Some(false),
            _ => None,
        },
        Data::Null | Data::Int(_) | Data::Float(_) | Data::List(_) | Data::Object(_) => None,
    };
    if value.is_none() {
        at.wrong_kind(findings, "true or false");
    }
    value
}

/// Any number.
pub(crate) fn float(findings: &mut Findings, at: &At<'_>) -> Option<f64> {
    let value = lax_float(&at.node.data);
    if value.is_none() {
        at.wrong_kind(findings, "a number");
    }
    value
}

pub(crate) fn float_in(range: Range) -> impl Fn(&mut Findings, &At<'_>) -> Option<f64> {
    move |findings, at| {
        let Some(value) = lax_float(&at.node.data) else {
            at.wrong_kind(findings, &format!("a number {}", range.text));
            return None;
        };
        let above = value > range.above || (range.above_itself && value == range.above);
        if above && value <= range.up_to {
            return Some(value);
        }
        at.problem(
            findings,
            format!("must be a number {}, got {value}", range.text),
        );
        None
    }
}

/// A whole number of things, from `least` up.
pub(crate) fn count(least: u32) -> impl Fn(&mut Findings, &At<'_>) -> Option<u32> {
    move |findings, at| {
        let value = whole(findings, at, least.into(), u32::MAX.into())?;
        u32::try_from(value).ok()
    }
}

pub(crate) fn integer_in(least: i64, most: i64) -> impl Fn(&mut Findings, &At<'_>) -> Option<i64> {
    move |findings, at| whole(findings, at, least, most)
}

/// An integer that is written as one: no string, no `2.0`, no boolean.
pub(crate) fn strict_integer(findings: &mut Findings, at: &At<'_>) -> Option<i64> {
    match &at.node.data {
        Data::Int(value) => {
            let value = i64::try_from(*value).ok();
            if value.is_none() {
                at.problem(findings, format!("must be at most {}", i64::MAX));
            }
            value
        }
        Data::Null
        | Data::Bool(_)
        | Data::Float(_)
        | Data::Text(_)
        | Data::List(_)
        | Data::Object(_) => {
            at.wrong_kind(findings, "an integer");
            None
        }
    }
}

fn whole(findings: &mut Findings, at: &At<'_>, least: i64, most: i64) -> Option<i64> {
    let expected = if most >= i64::from(u32::MAX) {
        format!("an integer of at least {least}")
    } else {
        format!("an integer from {least} to {most}")
    };
    let Some(value) = lax_integer(&at.node.data) else {
        match &at.node.data {
            Data::Float(value) => at.problem(findings, format!("must be {expected}, got {value}")),
            Data::Null
            | Data::Bool(_)
            | Data::Int(_)
            | Data::Text(_)
            | Data::List(_)
            | Data::Object(_) => at.wrong_kind(findings, &expected),
        }
        return None;
    };
    if value > i128::from(u32::MAX) && most >= i64::from(u32::MAX) {
        at.problem(findings, format!("must be at most {most}, got {value}"));
        return None;
    }
    let fits = i64::try_from(value)
        .ok()
        .filter(|value| (least..=most).contains(value));
    if fits.is_none() {
        at.problem(findings, format!("must be {expected}, got {value}"));
    }
    fits
}

fn lax_float(data: &Data) -> Option<f64> {
    let value = match data {
        Data::Bool(value) => f64::from(u8::from(*value)),
        Data::Int(value) => *value as f64,
        Data::Float(value) => *value,
        // A whim of Ray's validator: blanks around or underscores inside, not both.
        Data::Text(text) if text.contains('_') && text.trim() != text => return None,
        Data::Text(text) => digits(text)?.parse().ok()?,
        Data::Null | Data::List(_) | Data::Object(_) => return None,
    };
    value.is_finite().then_some(value)
}

fn lax_integer(data: &Data) -> Option<i128> {
    match data {
        Data::Bool(value) => Some((*value).into()),
        Data::Int(value) => Some(*value),
        // Within this range `as` is exact.
        Data::Float(value) if value.fract() == 0.0 && value.abs() < 1e18 => Some(*value as i128),
        Data::Text(text) => {
            let text = digits(text)?;
            // A fraction of nothing but zeros is no fraction.
            let whole = match text.split_once('.') {
                Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|b| b == b'0') => {
                    whole
                }
                Some(_) => return None,
                None => text.as_str(),
            };
            whole.parse().ok()
        }
        Data::Null | Data::Float(_) | Data::List(_) | Data::Object(_) => None,
    }
}

/// A number in a string: blanks around it and single underscores between digits do not count.
fn digits(text: &str) -> Option<String> {
    let text = text.trim();
    if text.starts_with('_') || text.ends_with('_') || text.contains("__") {
        return None;
    }
    Some(text.replace('_', ""))
}
