//! Which class and tenant a request is of, by the headers that its deployment's config names.
//! Pure. What follows from it is decided by `queue`.

use std::collections::{BTreeMap, HashMap};

use http::header::{HeaderMap, HeaderName};
use mobula_proto::v1;

use crate::queue::{Rank, Tenant};

/// How the requests of one deployment are told apart.
#[derive(Debug)]
pub struct Ranking {
    priority_header: Option<HeaderName>,
    /// By name; 0 goes first.
    classes: HashMap<String, u8>,
    default_class: u8,
    tenant_header: Option<HeaderName>,
    weights: BTreeMap<Tenant, u32>,
}

impl Ranking {
    /// What the table says. Headers that are none are not looked for; the head refused them.
    pub fn of(table: &v1::Queueing) -> Ranking {
        let header = |name: &str| HeaderName::from_bytes(name.as_bytes()).ok();
        let weights = table.tenant_weights.iter();
        Ranking {
            priority_header: header(&table.priority_header),
            classes: table.priorities.iter().cloned().zip(0..).collect(),
            default_class: u8::try_from(table.default_priority).unwrap_or(u8::MAX),
            tenant_header: header(&table.tenant_header),
            weights: weights
                .map(|(name, weight)| (Tenant::named(name), *weight))
                .collect(),
        }
    }

    /// The request's rank: the default class where it names none that exists, and one tenant for
    /// all who name none.
    pub fn rank(&self, headers: &HeaderMap) -> Rank {
        let value = |name: &Option<HeaderName>| headers.get(name.as_ref()?)?.to_str().ok();
        let class = value(&self.priority_header).and_then(|name| self.classes.get(name.trim()));
        let tenant = Tenant::named(value(&self.tenant_header).unwrap_or_default().trim());
        Rank {
            class: class.copied().unwrap_or(self.default_class),
            tenant,
            weight: self.weights.get(&tenant).copied().unwrap_or(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn ranking() -> Ranking {
        Ranking::of(&v1::Queueing {
            priority_header: "x-priority".into(),
            priorities: vec!["high".into(), "normal".into(), "low".into()],
            default_priority: 1,
            tenant_header: "x-tenant".into(),
            tenant_weights: HashMap::from([("gold".into(), 4)]),
        })
    }

    fn rank(pairs: &[(&'static str, &'static str)]) -> Rank {
        let pairs = pairs.iter().copied();
        let pair = |(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        };
        ranking().rank(&pairs.map(pair).collect())
    }

    #[test]
    fn class_and_tenant_are_those_of_the_headers() {
        let gold = rank(&[("x-priority", "high"), ("x-tenant", "gold")]);
        assert_eq!((gold.class, gold.weight), (0, 4));
        assert_eq!(gold.tenant, Tenant::named("gold"));
        let other = rank(&[("x-priority", " low "), ("x-tenant", "other")]);
        assert_eq!((other.class, other.weight), (2, 1));
    }

    #[test]
    fn what_is_missing_or_unknown_is_the_default() {
        let plain = rank(&[]);
        assert_eq!((plain.class, plain.tenant), (1, Tenant::named("")));
        assert_eq!(rank(&[("x-priority", "urgent")]), plain);
    }
}
