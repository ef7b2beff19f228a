//! `mobula.queueing`: in which order requests that wait are started, where it is not that in
//! which they came. Ray has nothing of the kind.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::acting::Place;
use crate::decode::{At, Fields, Unknown, integer_in, list, string, values};
use crate::error::Findings;
use crate::schema::{Extension, QUEUEING};

/// The header that names a request's class.
pub const PRIORITY_HEADER_DEFAULT: &str = "x-priority";

/// More classes than anybody tells apart.
const PRIORITIES_MAX: usize = 8;

/// Tenants with a weight of their own; all others weigh 1.
const WEIGHTS_MAX: usize = 1000;

/// A tenant that weighs more would have the queue for itself.
const WEIGHT_MAX: i64 = 100;

/// A name in a header.
const NAME_BYTES_MAX: usize = 128;

/// How those who wait are told apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queueing {
    /// Names of the classes, highest first; empty: there is one.
    pub priorities: Vec<String>,
    /// The header that names the class.
    pub priority_header: String,
    /// The class of requests that name none, or one that does not exist.
    pub priority_default: Option<String>,
    /// The header that names the tenant. None: nobody is told apart.
    pub tenant_header: Option<String>,
    /// Requests per turn, by tenant.
    pub tenant_weights: BTreeMap<String, u32>,
}

// === impl Queueing ===

impl Queueing {
    pub(crate) fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let mut fields = Fields::open(findings, at, Place::Queueing)?;
        let queueing = Self {
            priorities: fields
                .get(findings, "priorities", priorities)
                .unwrap_or_default(),
            priority_header: fields
                .get(findings, "priority_header", header)
                .unwrap_or_else(|| PRIORITY_HEADER_DEFAULT.to_owned()),
            priority_default: fields.optional(findings, "priority_default", string),
            tenant_header: fields.optional(findings, "tenant_header", header),
            tenant_weights: fields
                .get(findings, "tenant_weights", weights)
                .unwrap_or_default(),
        };
        fields.close(findings, Unknown::Reject);
        queueing.check(findings, at);
        Some(queueing)
    }

    fn check(&self, findings: &mut Findings, at: &At<'_>) {
        let names = &self.priorities;
        if let Some(default) = &self.priority_default
            && !names.contains(default)
        {
            let allowed = names.join(", ");
            let text = format!("priority_default: must be one of `priorities` ({allowed})");
            at.problem(findings, text);
        }
        if names.is_empty() && self.tenant_header.is_none() {
            at.problem(findings, "needs `priorities`, `tenant_header` or both");
        }
        if self.tenant_header.is_none() && !self.tenant_weights.is_empty() {
            at.problem(findings, "tenant_weights: need `tenant_header`");
        }
    }

    /// The place of the default class: the one that is named, else the lowest.
    pub fn default_class(&self) -> usize {
        let named = self.priority_default.as_ref();
        let place = named.and_then(|name| self.priorities.iter().position(|n| n == name));
        place.unwrap_or(self.priorities.len().saturating_sub(1))
    }

    /// What a block says, if anything.
    pub(crate) fn of(extension: Option<&Extension>) -> Option<Self> {
        // What is kept has been read before, so it can be read again.
        Self::deserialize(extension?.get(QUEUEING)?).ok()
    }
}

fn priorities(findings: &mut Findings, at: &At<'_>) -> Option<Vec<String>> {
    let names = list(findings, at, name)?;
    if names.is_empty() || names.len() > PRIORITIES_MAX {
        let count = names.len();
        let text = format!("must have 1 to {PRIORITIES_MAX} names, got {count}");
        at.problem(findings, text);
    }
    let twice = |n: &usize| {
        names
            .iter()
            .take(*n)
            .any(|name| names.get(*n) == Some(name))
    };
    if let Some(n) = (0..names.len()).find(twice) {
        at.problem(
            findings,
            format!("has a name twice, the second is item {n}"),
        );
    }
    Some(names)
}

fn name(findings: &mut Findings, at: &At<'_>) -> Option<String> {
    let name = string(findings, at)?;
    check_name(findings, at, &name);
    Some(name)
}

fn check_name(findings: &mut Findings, at: &At<'_>, name: &str) {
    let is_name = name.bytes().all(|byte| byte.is_ascii_graphic());
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !is_name {
        let text = format!("must be 1 to {NAME_BYTES_MAX} printable ASCII characters, no spaces");
        at.problem(findings, text);
    }
}

fn header(findings: &mut Findings, at: &At<'_>) -> Option<String> {
    let name = string(findings, at)?;
    let is_letter =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_letter) {
        at.problem(
            findings,
            "must be the name of a header in lower case: letters, digits, `-` and `_`",
        );
    }
    Some(name)
}

fn weights(findings: &mut Findings, at: &At<'_>) -> Option<BTreeMap<String, u32>> {
    let weights = values(findings, at, integer_in(1, WEIGHT_MAX))?;
    if weights.len() > WEIGHTS_MAX {
        let got = weights.len();
        at.problem(
            findings,
            format!("must have at most {WEIGHTS_MAX} entries, got {got}"),
        );
    }
    for tenant in weights.keys() {
        check_name(findings, at, tenant);
    }
    let weight = |(tenant, weight): (String, i64)| Some((tenant, u32::try_from(weight).ok()?));
    Some(weights.into_iter().filter_map(weight).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ServeConfig;

    fn read(queueing: &str) -> Result<Option<Queueing>, String> {
        let text = format!(
            "applications: [{{import_path: 'a:b', deployments: [{{name: D, mobula: \
             {{queueing: {queueing}}}}}]}}]"
        );
        let config = ServeConfig::from_yaml(&text).map_err(|errors| errors.to_string())?;
        // What is stored says the same.
        let stored = config.config.to_json().to_string();
        let again = ServeConfig::from_json(stored.as_bytes()).map_err(|e| e.to_string())?;
        let of = |config: &ServeConfig| {
            Queueing::of(config.applications[0].deployments[0].mobula.as_ref())
        };
        assert_eq!(of(&config.config), of(&again.config));
        Ok(of(&config.config))
    }

    #[test]
    fn classes_and_tenants_are_read_with_their_defaults() {
        let both = "{priorities: [high, low], tenant_header: x-tenant, tenant_weights: {gold: 4}}";
        let queueing = read(both).unwrap().unwrap();
        assert_eq!(queueing.priority_header, PRIORITY_HEADER_DEFAULT);
        assert_eq!(queueing.default_class(), 1);
        assert_eq!(queueing.tenant_weights["gold"], 4);
        let named = read("{priorities: [a, b, c], priority_default: b}").unwrap();
        assert_eq!(named.unwrap().default_class(), 1);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (text, why) in [
            ("{}", "needs `priorities`, `tenant_header` or both"),
            ("{priorities: []}", "must have 1 to 8 names"),
            ("{priorities: [a, a]}", "has a name twice"),
            ("{priorities: ['a b']}", "printable ASCII"),
            (
                "{priorities: [a], priority_default: b}",
                "must be one of `priorities` (a)",
            ),
            ("{tenant_header: X-Tenant}", "in lower case"),
            (
                "{tenant_header: t, tenant_weights: {a: 0}}",
                "tenant_weights.a",
            ),
            (
                "{priorities: [a], tenant_weights: {a: 1}}",
                "need `tenant_header`",
            ),
            ("{priority: [a]}", "the key is not known here"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
