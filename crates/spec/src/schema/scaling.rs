//! `mobula.autoscaling`: what Ray's `autoscaling_config` has no words for. A policy by name, and
//! counts by the clock.

use serde::{Deserialize, Serialize};

use crate::acting::Place;
use crate::decode::{At, Fields, Unknown, count, list, word_of};
use crate::error::Findings;
use crate::node::Data;
use crate::schema::{AUTOSCALING, Extension};

/// Entries of one schedule.
const SCHEDULE_ENTRIES_MAX: usize = 50;

const MINUTES_PER_DAY: u16 = 24 * 60;

/// Zones reach from -12:00 to +14:00.
const UTC_OFFSET_MINUTES_MAX: i32 = 14 * 60;

const DAYS: [(&str, u8); 7] = [
    ("mon", 0),
    ("tue", 1),
    ("wed", 2),
    ("thu", 3),
    ("fri", 4),
    ("sat", 5),
    ("sun", 6),
];

/// How the count of a deployment that is autoscaled is found, beyond `autoscaling_config`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    pub policy: ScalingPolicy,
    /// The largest minimum that is in force counts.
    pub schedule: Vec<ScheduledMinimum>,
    /// The schedule's clock, ahead of UTC; it knows no daylight saving.
    pub utc_offset_minutes: i32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScalingPolicy {
    /// Ray's default policy.
    #[default]
    Default,
    /// Follows the last second on the way up, and the whole look-back period on the way down.
    Reactive,
}

/// A minimum for a part of some days.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledMinimum {
    /// 0 is Monday. The day on which `from` lies counts.
    pub days: Vec<u8>,
    /// Minutes after midnight.
    pub from: u16,
    /// As `from`; not after it: on the next day.
    pub to: u16,
    pub min_replicas: u32,
}

// === impl Scaling ===

impl Scaling {
    pub(crate) fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let mut fields = Fields::open(findings, at, Place::Scaling)?;
        let policies = [
            ("default", ScalingPolicy::Default),
            ("reactive", ScalingPolicy::Reactive),
        ];
        let scaling = Self {
            policy: fields
                .get(findings, "policy", word_of(&policies))
                .unwrap_or_default(),
            schedule: fields
                .get(findings, "schedule", schedule)
                .unwrap_or_default(),
            utc_offset_minutes: fields
                .get(findings, "utc_offset", utc_offset)
                .unwrap_or_default(),
        };
        fields.close(findings, Unknown::Reject);
        Some(scaling)
    }

    /// What a block says, if anything.
    pub(crate) fn of(extension: Option<&Extension>) -> Option<Self> {
        // What is kept has been read before, so it can be read again.
        Self::deserialize(extension?.get(AUTOSCALING)?).ok()
    }
}

fn schedule(findings: &mut Findings, at: &At<'_>) -> Option<Vec<ScheduledMinimum>> {
    let entries = list(findings, at, ScheduledMinimum::read)?;
    if entries.len() > SCHEDULE_ENTRIES_MAX {
        let got = entries.len();
        at.problem(
            findings,
            format!("must have at most {SCHEDULE_ENTRIES_MAX} entries, got {got}"),
        );
    }
    Some(entries)
}

/// "18:30"; YAML makes a number of minutes of it when it stands without quotes.
fn time_of_day(findings: &mut Findings, at: &At<'_>) -> Option<u16> {
    let minutes = match &at.node.data {
        Data::Text(text) => clock(text),
        Data::Int(minutes) => u16::try_from(*minutes).ok(),
        Data::Null | Data::Bool(_) | Data::Float(_) | Data::List(_) | Data::Object(_) => None,
    };
    let minutes = minutes.filter(|minutes| *minutes <= MINUTES_PER_DAY);
    if minutes.is_none() {
        at.problem(findings, "must be a time from \"00:00\" to \"24:00\"");
    }
    minutes
}

fn utc_offset(findings: &mut Findings, at: &At<'_>) -> Option<i32> {
    let offset = match &at.node.data {
        Data::Text(text) => match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(ahead), _) => clock(ahead).map(i32::from),
            (None, Some(behind)) => clock(behind).map(|minutes| -i32::from(minutes)),
            (None, None) => None,
        },
        Data::Null
        | Data::Bool(_)
        | Data::Int(_)
        | Data::Float(_)
        | Data::List(_)
        | Data::Object(_) => None,
    };
    let offset = offset.filter(|minutes| minutes.abs() <= UTC_OFFSET_MINUTES_MAX);
    if offset.is_none() {
        at.problem(findings, "must be an offset from \"-14:00\" to \"+14:00\"");
    }
    offset
}

/// Minutes of "hours:minutes".
fn clock(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours <= 24 && minutes < 60).then_some(hours * 60 + minutes)
}

// === impl ScheduledMinimum ===

impl ScheduledMinimum {
    fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let mut fields = Fields::open(findings, at, Place::Schedule)?;
        let days = fields.get(findings, "days", |findings, at| {
            list(findings, at, word_of(&DAYS))
        });
        let from = fields.require(findings, "from", time_of_day);
        let to = fields.require(findings, "to", time_of_day);
        let min_replicas = fields.require(findings, "min_replicas", count(1));
        fields.close(findings, Unknown::Reject);
        let (from, to) = (from?, to?);
        if from == to {
            at.problem(findings, "`from` and `to` must differ");
        }
        Some(Self {
            days: days.unwrap_or_else(|| DAYS.iter().map(|(_, day)| *day).collect()),
            from,
            to,
            min_replicas: min_replicas?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ServeConfig;

    fn of(scaling: &str) -> Result<Option<Scaling>, String> {
        let text = format!(
            "applications: [{{import_path: 'a:b', deployments: \
             [{{name: D, mobula: {{autoscaling: {scaling}}}}}]}}]"
        );
        let checked = ServeConfig::from_yaml(&text).map_err(|errors| errors.to_string())?;
        let stored = checked.config.to_json().to_string();
        let again = ServeConfig::from_json(stored.as_bytes()).map_err(|e| e.to_string())?;
        assert_eq!(again.config, checked.config, "what is stored says the same");
        let entry = &checked.config.applications[0].deployments[0];
        Ok(Scaling::of(entry.mobula.as_ref()))
    }

    #[test]
    fn times_may_stand_without_quotes_and_days_that_are_not_named_are_all() {
        let scaling = of("{policy: reactive, utc_offset: '-03:30', schedule: [\
             {days: [mon, fri], from: 08:00, to: 18:30, min_replicas: 4},\
             {from: '22:00', to: '24:00', min_replicas: 1}]}")
        .unwrap()
        .unwrap();
        assert_eq!(scaling.policy, ScalingPolicy::Reactive);
        assert_eq!(scaling.utc_offset_minutes, -210);
        let [day, night] = &scaling.schedule[..] else {
            panic!("two entries");
        };
        assert_eq!((&day.days[..], day.from, day.to), (&[0, 4][..], 480, 1110));
        assert_eq!((night.days.len(), night.to), (7, 1440));
        assert_eq!(of("{}"), Ok(Some(Scaling::default())));
    }

    #[test]
    fn wrong_values_say_what_is_allowed() {
        for (scaling, named) in [
            (
                "{policy: fast}",
                "policy: must be one of default, reactive, got `fast`",
            ),
            (
                "{schedule: [{from: '8:00', to: '09:00', min_replicas: 1}]}",
                "schedule[0].from: must be a time from \"00:00\" to \"24:00\"",
            ),
            (
                "{schedule: [{from: '08:00', to: '24:01', min_replicas: 1}]}",
                "schedule[0].to: must be a time from \"00:00\" to \"24:00\"",
            ),
            (
                "{schedule: [{from: '08:00', to: '08:00', min_replicas: 1}]}",
                "schedule[0]: `from` and `to` must differ",
            ),
            (
                "{schedule: [{from: '08:00', to: '09:00'}]}",
                "schedule[0]: `min_replicas` is required and missing",
            ),
            (
                "{schedule: [{from: '08:00', to: '09:00', min_replicas: 0}]}",
                "schedule[0].min_replicas: must be an integer of at least 1, got 0",
            ),
            (
                "{schedule: [{days: [Monday], from: '08:00', to: '09:00', min_replicas: 1}]}",
                "schedule[0].days[0]: must be one of mon, tue, wed, thu, fri, sat, sun",
            ),
            (
                "{utc_offset: Europe/Berlin}",
                "utc_offset: must be an offset from \"-14:00\"",
            ),
            (
                "{utc_offset: '+15:00'}",
                "utc_offset: must be an offset from \"-14:00\"",
            ),
            (
                "{polcy: x}",
                "polcy: the key is not known here, allowed: policy, schedule, utc_offset",
            ),
        ] {
            let errors = of(scaling).unwrap_err().replace(" (line 1)", "");
            assert!(errors.contains(named), "{errors}\nis not\n{named}");
        }
    }
}
