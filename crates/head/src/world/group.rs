//! What is placed together, all or nothing: the bundles of a replica, the replicas of a gang.

use std::fmt;

use mobula_spec::LabelSelector;

use super::spec::ReplicaSpec;
use super::{Resources, WorkerId};

/// Names a gang; of the form of a replica's id.
pub type GangId = String;

/// How bundles that are placed together are laid out, in Ray's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// On few workers, if there is room.
    #[default]
    Pack,
    /// On many machines, if there is room.
    Spread,
    /// On one worker.
    StrictPack,
    /// On a machine each.
    StrictSpread,
}

/// The placement group of a replica, and the gang that it is of.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What a replica reserves; it runs in the first. Empty: it has no placement group, and
    /// reserves what it requires.
    pub bundles: Vec<Resources>,
    /// What the worker of each bundle must be labelled with; empty: nothing.
    pub labels: Vec<LabelSelector>,
    /// How the bundles lie, those of a whole gang where there are gangs.
    pub strategy: Strategy,
    /// Replicas that are placed, restarted and removed together; 1: each by itself.
    pub gang_size: u32,
}

/// A gang and how many replicas make it whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gang {
    pub id: GangId,
    pub size: u32,
}

/// What a replica holds on a worker beyond the bundle that it runs in.
#[derive(Clone, Debug, PartialEq)]
pub struct Reservation {
    pub worker: WorkerId,
    pub resources: Resources,
}

/// What an earlier head decided about a replica that its worker does not report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remembered {
    pub reserved: Vec<Reservation>,
    pub gang: Option<Gang>,
}

/// Where one replica goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// The worker that it runs in.
    pub worker: WorkerId,
    /// One entry per worker.
    pub reserved: Vec<Reservation>,
}

/// What is asked for, for messages.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    /// Of one replica, at least one.
    bundles: Vec<Resources>,
    strategy: Strategy,
    gang_size: u32,
}

// === impl Strategy ===

impl Strategy {
    pub fn name(self) -> &'static str {
        match self {
            Strategy::Pack => "PACK",
            Strategy::Spread => "SPREAD",
            Strategy::StrictPack => "STRICT_PACK",
            Strategy::StrictSpread => "STRICT_SPREAD",
        }
    }

    /// The one of that name; the config was checked before, so any other is the default.
    pub fn of(name: &str) -> Strategy {
        let all = [
            Strategy::Spread,
            Strategy::StrictPack,
            Strategy::StrictSpread,
        ];
        let named = all.into_iter().find(|strategy| strategy.name() == name);
        named.unwrap_or_default()
    }
}

// === impl Group ===

impl Default for Group {
    fn default() -> Self {
        Group {
            bundles: Vec::new(),
            labels: Vec::new(),
            strategy: Strategy::default(),
            gang_size: 1,
        }
    }
}

impl Group {
    /// Whether replicas are placed one by one, each in one place.
    pub fn is_plain(&self) -> bool {
        self.gang_size <= 1 && self.bundles.is_empty()
    }

    /// So many replicas that no gang is a part.
    pub fn whole_gangs(&self, count: u32) -> u32 {
        let size = self.gang_size.max(1);
        count.div_ceil(size).saturating_mul(size)
    }
}

// === impl ReplicaSpec ===

impl ReplicaSpec {
    /// The bundles of a replica; it runs in the first.
    pub fn bundles(&self) -> &[Resources] {
        if self.group.bundles.is_empty() {
            std::slice::from_ref(&self.required)
        } else {
            &self.group.bundles
        }
    }

    /// What a replica takes from the worker that it runs in.
    pub fn hosted(&self) -> &Resources {
        self.group.bundles.first().unwrap_or(&self.required)
    }

    /// All that a replica reserves, wherever.
    pub fn reserves(&self) -> Resources {
        let mut all = Resources::default();
        self.bundles().iter().for_each(|bundle| all.add(bundle));
        all
    }

    /// What is placed at once.
    pub fn need(&self) -> Need {
        Need {
            bundles: self.bundles().to_vec(),
            strategy: self.group.strategy,
            gang_size: self.group.gang_size.max(1),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, bundle) in self.bundles.iter().enumerate() {
            let and = if index > 0 { " + " } else { "" };
            write!(f, "{and}{bundle}")?;
        }
        if self.gang_size > 1 {
            write!(f, " for each of {} replicas", self.gang_size)?;
        }
        if self.gang_size > 1 || self.bundles.len() > 1 {
            write!(f, " at once ({})", self.strategy.name())?;
        }
        Ok(())
    }
}
