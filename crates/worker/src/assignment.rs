//! What has to change so that what runs becomes what the head assigned. Pure.
//!
//! The head sends the whole set with a version, so the same assignment twice changes nothing and
//! a lost one is repaired by the next. Not here: doing it (`host`).

use std::collections::BTreeMap;
use std::time::Duration;

use mobula_proto::v1::AssignedReplica;

/// The longest time that a setting in seconds may mean: a year. Keeps arithmetic with instants
/// from overflowing when a config says `1e300`.
const SETTING_SECONDS_MAX: f64 = 365.0 * 24.0 * 3600.0;

/// The shortest period between health checks; zero would be a busy loop.
const HEALTH_CHECK_PERIOD_MIN: Duration = Duration::from_millis(10);

/// Settings of a running replica that change without its code noticing.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    pub max_ongoing_requests: u32,
    pub drain_timeout: Duration,
    pub health_check_period: Duration,
    pub health_check_timeout: Duration,
    pub route_prefix: String,
}

/// A `user_config` and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserConfig {
    pub version: String,
    pub json: Option<String>,
}

/// What a replica that exists was last told.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub config_version: String,
    pub limits: Limits,
    /// It was told to stop, or it has ended; it never comes back under the same id.
    pub stopping: bool,
}

/// One step from what runs to what shall run.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Start(Box<AssignedReplica>),
    Reconfigure(String, UserConfig),
    UpdateLimits(String, Limits),
    Stop(String),
}

/// Assignments are ordered by the session that brought them, then by version: within a session a
/// late one is ignored, and a new head may count from anywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    pub session: u64,
    pub version: u64,
}

/// The changes that turn `have` into `wanted`. Stops come last: add before remove.
pub fn diff(have: &BTreeMap<String, Told>, wanted: &[AssignedReplica]) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut wanted_by_id: BTreeMap<&str, &AssignedReplica> = BTreeMap::new();
    for replica in wanted {
        wanted_by_id.entry(&replica.replica_id).or_insert(replica);
    }
    for (id, replica) in &wanted_by_id {
        match have.get(*id) {
            None => changes.push(Change::Start(Box::new((*replica).clone()))),
            Some(told) if told.stopping => {}
            Some(told) => changes.extend(updates(told, replica)),
        }
    }
    let gone = have
        .iter()
        .filter(|(id, told)| !told.stopping && !wanted_by_id.contains_key(id.as_str()));
    changes.extend(gone.map(|(id, _)| Change::Stop(id.clone())));
    changes
}

fn updates(told: &Told, replica: &AssignedReplica) -> Vec<Change> {
    let mut changes = Vec::new();
    let limits = Limits::of(replica);
    if told.limits != limits {
        changes.push(Change::UpdateLimits(replica.replica_id.clone(), limits));
    }
    if told.config_version != replica.config_version {
        let config = UserConfig::of(replica);
        changes.push(Change::Reconfigure(replica.replica_id.clone(), config));
    }
    changes
}

// === impl Limits, UserConfig, Told ===

impl Limits {
    pub fn of(replica: &AssignedReplica) -> Limits {
        Limits {
            max_ongoing_requests: replica.max_ongoing_requests.max(1),
            drain_timeout: seconds(replica.graceful_shutdown_timeout_s),
            health_check_period: seconds(replica.health_check_period_s)
                .max(HEALTH_CHECK_PERIOD_MIN),
            health_check_timeout: seconds(replica.health_check_timeout_s),
            route_prefix: replica.route_prefix.clone(),
        }
    }
}

impl UserConfig {
    pub fn of(replica: &AssignedReplica) -> UserConfig {
        UserConfig {
            version: replica.config_version.clone(),
            json: replica.user_config_json.clone(),
        }
    }
}

impl Told {
    pub fn of(replica: &AssignedReplica) -> Told {
        Told {
            config_version: replica.config_version.clone(),
            limits: Limits::of(replica),
            stopping: false,
        }
    }
}

/// Seconds as the config writes them; what is no time at all (negative, NaN) is zero.
fn seconds(seconds: f64) -> Duration {
    if seconds.is_nan() || seconds <= 0.0 {
        return Duration::ZERO;
    }
    Duration::from_secs_f64(seconds.min(SETTING_SECONDS_MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn apply(have: &mut BTreeMap<String, Told>, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Start(replica) => {
                    let before = have.insert(replica.replica_id.clone(), Told::of(replica));
                    assert!(before.is_none(), "started twice");
                }
                Change::Reconfigure(id, config) => {
                    have.get_mut(id).unwrap().config_version = config.version.clone();
                }
                Change::UpdateLimits(id, limits) => {
                    have.get_mut(id).unwrap().limits = limits.clone();
                }
                Change::Stop(id) => have.get_mut(id).unwrap().stopping = true,
            }
        }
    }

    fn replicas() -> impl Strategy<Value = Vec<AssignedReplica>> {
        let replica = (0..8u8, 0..3u8, 1..4u32, 0..2u8).prop_map(|(id, config, ongoing, wait)| {
            AssignedReplica {
                replica_id: format!("r{id}"),
                config_version: format!("c{config}"),
                max_ongoing_requests: ongoing,
                graceful_shutdown_timeout_s: f64::from(wait),
                ..AssignedReplica::default()
            }
        });
        proptest::collection::vec(replica, 0..8)
    }

    fn expected(
        wanted: &[AssignedReplica],
        before: &BTreeMap<String, Told>,
    ) -> BTreeMap<String, Told> {
        let mut expected = BTreeMap::new();
        for replica in wanted {
            let ended = before.get(&replica.replica_id).is_some_and(|t| t.stopping);
            if !ended {
                expected
                    .entry(replica.replica_id.clone())
                    .or_insert_with(|| Told::of(replica));
            }
        }
        expected
    }

    proptest! {
        #[test]
        fn applying_the_changes_makes_reality_equal_the_assignment(
            assignments in proptest::collection::vec(replicas(), 1..6)
        ) {
            let mut have = BTreeMap::new();
            for wanted in &assignments {
                let expected = expected(wanted, &have);
                let changes = diff(&have, wanted);
                apply(&mut have, &changes);
                let mut runs = have.clone();
                runs.retain(|_, told| !told.stopping);
                prop_assert_eq!(&runs, &expected);
                prop_assert_eq!(diff(&have, wanted), vec![]);
            }
        }

        #[test]
        fn every_stop_comes_after_every_start(before in replicas(), after in replicas()) {
            let mut have = BTreeMap::new();
            apply(&mut have, &diff(&BTreeMap::new(), &before));
            let changes = diff(&have, &after);
            let first_stop = changes.iter().position(|c| matches!(c, Change::Stop(_)));
            let last_start = changes.iter().rposition(|c| matches!(c, Change::Start(_)));
            if let (Some(stop), Some(start)) = (first_stop, last_start) {
                prop_assert!(start < stop);
            }
        }
    }

    #[test]
    fn a_new_session_outranks_any_version_of_the_one_before() {
        let order = |session, version| Order { session, version };
        assert!(order(2, 1) > order(1, 900));
        assert!(order(1, 2) > order(1, 1));
        assert!(order(1, 2) <= order(1, 2));
    }

    #[test]
    fn seconds_that_are_no_time_are_zero_and_huge_ones_are_bounded() {
        assert_eq!(seconds(-1.0), Duration::ZERO);
        assert_eq!(seconds(f64::NAN), Duration::ZERO);
        assert_eq!(seconds(1e300), Duration::from_secs(365 * 24 * 3600));
        assert_eq!(seconds(0.25), Duration::from_millis(250));
    }
}
