//! Amounts of CPU, GPU, memory and custom resources, in exact arithmetic.
//!
//! Floats would let ten replicas of 0.1 CPU miss a worker of one CPU. Amounts are whole
//! ten-thousandths, which is also the grain that Ray accounts in.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The name of CPU in Ray's words.
pub const CPU: &str = "CPU";
/// The name of GPU in Ray's words.
pub const GPU: &str = "GPU";
/// The name of memory in Ray's words; amounts are bytes.
pub const MEMORY: &str = "memory";

/// Parts of one unit that an amount is counted in.
const PARTS: f64 = 10_000.0;

/// What a replica needs, a worker has, or is free. A name that is absent is zero, but for
/// memory in a capacity, where absent means that the worker has no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources(BTreeMap<String, u64>);

// === impl Resources ===

impl Resources {
    /// None of anything.
    pub const NONE: Resources = Resources(BTreeMap::new());

    /// The amounts of that many units each; negative and absurd amounts count as zero.
    pub fn from_units<'a>(units: impl IntoIterator<Item = (&'a str, f64)>) -> Resources {
        let mut resources = Resources::default();
        for (name, amount) in units {
            let parts = (amount * PARTS).round();
            if parts >= 1.0 {
                resources.0.insert(name.to_owned(), parts as u64);
            }
        }
        resources
    }

    /// Units of one resource.
    pub fn units(&self, name: &str) -> f64 {
        Resources::units_of(self.parts(name))
    }

    /// Units of so many ten-thousandths.
    pub fn units_of(parts: u64) -> f64 {
        parts as f64 / PARTS
    }

    /// Ten-thousandths of one resource.
    pub fn parts(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// All resources with their units, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0
            .iter()
            .map(|(name, parts)| (name.as_str(), *parts as f64 / PARTS))
    }

    /// Whether `self` has room for `need`. `limits` says which resources are counted at all.
    pub fn has_room_for(&self, need: &Resources, capacity: &Resources) -> bool {
        need.0.iter().all(|(name, parts)| {
            let unlimited = name == MEMORY && !capacity.0.contains_key(MEMORY);
            unlimited || self.parts(name) >= *parts
        })
    }

    /// What is missing here of `need`; `capacity` says which resources are counted at all.
    pub fn lacking(&self, need: &Resources, capacity: &Resources) -> Resources {
        let counted = |name: &str| name != MEMORY || capacity.0.contains_key(MEMORY);
        let lacks = need.0.iter().filter(|(name, _)| counted(name));
        let lacks = lacks.map(|(name, parts)| (name, parts.saturating_sub(self.parts(name))));
        let lacks = lacks.filter(|(_, parts)| *parts > 0);
        Resources(lacks.map(|(name, parts)| (name.clone(), parts)).collect())
    }

    /// Nothing of anything.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(|parts| *parts == 0)
    }

    /// Everything that there is some of.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// All amounts in one, to tell the large from the small.
    pub fn total_parts(&self) -> u64 {
        self.0.values().copied().fold(0, u64::saturating_add)
    }

    /// Adds amounts.
    pub fn add(&mut self, other: &Resources) {
        for (name, parts) in &other.0 {
            let have = self.0.entry(name.clone()).or_insert(0);
            *have = have.saturating_add(*parts);
        }
    }

    /// Takes amounts away, down to zero: a worker that shrank is merely full.
    pub fn take(&mut self, other: &Resources) {
        for (name, parts) in &other.0 {
            let have = self.0.entry(name.clone()).or_insert(0);
            *have = have.saturating_sub(*parts);
        }
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (index, (name, units)) in self.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{units} {name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_tenths_fill_a_whole_exactly() {
        let capacity = Resources::from_units([(CPU, 1.0)]);
        let tenth = Resources::from_units([(CPU, 0.1)]);
        let mut free = capacity.clone();
        for _ in 0..10 {
            assert!(free.has_room_for(&tenth, &capacity));
            free.take(&tenth);
        }
        assert!(!free.has_room_for(&tenth, &capacity));
    }

    #[test]
    fn memory_is_only_counted_where_the_worker_has_a_limit() {
        let need = Resources::from_units([(MEMORY, 1e9)]);
        let none = Resources::from_units([(CPU, 1.0)]);
        let small = Resources::from_units([(CPU, 1.0), (MEMORY, 1e6)]);
        assert!(none.has_room_for(&need, &none));
        assert!(!small.has_room_for(&need, &small));
    }

    #[test]
    fn a_resource_that_the_worker_lacks_is_zero() {
        let capacity = Resources::from_units([(CPU, 4.0)]);
        assert!(!capacity.has_room_for(&Resources::from_units([(GPU, 0.5)]), &capacity));
    }
}
