//! Where metrics are kept: those of the process, and beside them those of each replica, which go
//! when the replica is gone. In one recorder they would stay for as long as the process lives, a
//! few kilobytes for every replica that ever was.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;

use crate::metrics::merge_expositions;

/// The labels that say which replica a series is of.
const REPLICA_LABELS: [&str; 2] = ["replica", "replica_id"];

/// So long the series of a replica that is gone are still shown: a few scrapes.
const SHOWN_AFTER_END: Duration = Duration::from_secs(300);

static INSTALLED: OnceLock<Arc<Recorders>> = OnceLock::new();

pub(crate) type Build = Box<dyn Fn() -> Option<PrometheusRecorder> + Send + Sync>;

/// All recorders of a process.
pub(crate) struct Recorders {
    process: PrometheusRecorder,
    build: Build,
    shelves: Mutex<Shelves>,
}

#[derive(Default)]
struct Shelves {
    of: BTreeMap<String, Shelf>,
    /// What metrics are, by name.
    descriptions: BTreeMap<String, (Kind, Option<Unit>, SharedString)>,
}

/// The series of one replica.
struct Shelf {
    recorder: PrometheusRecorder,
    holders: usize,
    /// When nobody held it any more.
    let_go_at: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Keeps the series of a replica. They are shown for a while after the last one is dropped.
pub struct ReplicaSeries {
    replica: String,
    recorders: Option<Arc<Recorders>>,
}

// === impl ReplicaSeries ===

impl ReplicaSeries {
    /// To be held for as long as there are handles of series with that replica's label.
    pub fn hold(replica: &str) -> ReplicaSeries {
        let recorders = INSTALLED.get().cloned();
        if let Some(recorders) = &recorders {
            recorders.hold(replica);
        }
        ReplicaSeries {
            replica: replica.to_owned(),
            recorders,
        }
    }
}

impl Drop for ReplicaSeries {
    fn drop(&mut self) {
        if let Some(recorders) = &self.recorders {
            recorders.let_go(&self.replica, Instant::now());
        }
    }
}

// === impl Recorders ===

impl Recorders {
    pub(crate) fn new(process: PrometheusRecorder, build: Build) -> Arc<Recorders> {
        Arc::new(Recorders {
            process,
            build,
            shelves: Mutex::default(),
        })
    }

    /// From now on it is the one of which series are held.
    pub(crate) fn installed(self: &Arc<Self>) {
        // A process installs once.
        let _ = INSTALLED.set(Arc::clone(self));
    }

    pub(crate) fn render(&self) -> String {
        let mut texts = vec![self.process.handle().render()];
        let handles: Vec<_> = {
            let shelves = self.lock();
            let recorders = shelves.of.values().map(|shelf| shelf.recorder.handle());
            recorders.collect()
        };
        texts.extend(handles.iter().map(|handle| handle.render()));
        match texts.as_slice() {
            [whole] => whole.clone(),
            parts => merge_expositions(parts),
        }
    }

    pub(crate) fn upkeep(&self, now: Instant) {
        self.process.handle().run_upkeep();
        let mut shelves = self.lock();
        shelves.of.retain(|_, shelf| {
            let gone_for = |at: Instant| now.saturating_duration_since(at);
            shelf.let_go_at.map(gone_for) < Some(SHOWN_AFTER_END)
        });
        for shelf in shelves.of.values() {
            shelf.recorder.handle().run_upkeep();
        }
    }

    fn hold(&self, replica: &str) {
        let mut shelves = self.lock();
        if let Some(shelf) = self.shelf(&mut shelves, replica) {
            shelf.holders += 1;
            shelf.let_go_at = None;
        }
    }

    fn let_go(&self, replica: &str, now: Instant) {
        if let Some(shelf) = self.lock().of.get_mut(replica) {
            shelf.holders = shelf.holders.saturating_sub(1);
            shelf.let_go_at = (shelf.holders == 0).then_some(now);
        }
    }

    fn shelf<'a>(&self, shelves: &'a mut Shelves, replica: &str) -> Option<&'a mut Shelf> {
        if !shelves.of.contains_key(replica) {
            let recorder = (self.build)()?;
            let shelf = Shelf {
                recorder,
                holders: 0,
                // Nobody may ever hold it.
                let_go_at: Some(Instant::now()),
            };
            shelves.of.insert(replica.to_owned(), shelf);
        }
        shelves.of.get_mut(replica)
    }

    /// Does something with the recorder that a series belongs to.
    fn with<T>(&self, key: &Key, register: impl FnOnce(&PrometheusRecorder) -> T) -> T {
        let replica = key
            .labels()
            .find(|label| REPLICA_LABELS.contains(&label.key()));
        let Some(replica) = replica else {
            return register(&self.process);
        };
        let mut shelves = self.lock();
        let described = shelves.descriptions.get(key.name()).cloned();
        match self.shelf(&mut shelves, replica.value()) {
            None => register(&self.process),
            Some(shelf) => {
                if let Some((kind, unit, text)) = described {
                    kind.describe(&shelf.recorder, key.name().to_owned().into(), unit, text);
                }
                register(&shelf.recorder)
            }
        }
    }

    fn describe(&self, kind: Kind, name: KeyName, unit: Option<Unit>, text: SharedString) {
        let described = (kind, unit, text.clone());
        let known = name.as_str().to_owned();
        self.lock().descriptions.insert(known, described);
        kind.describe(&self.process, name, unit, text);
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        // Each entry stands alone.
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder for Recorders {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(Kind::Counter, name, unit, text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(Kind::Gauge, name, unit, text);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(Kind::Histogram, name, unit, text);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.with(key, |recorder| recorder.register_counter(key, metadata))
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.with(key, |recorder| recorder.register_gauge(key, metadata))
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.with(key, |recorder| recorder.register_histogram(key, metadata))
    }
}

// === impl Kind ===

impl Kind {
    fn describe(
        self,
        recorder: &PrometheusRecorder,
        name: KeyName,
        unit: Option<Unit>,
        text: SharedString,
    ) {
        match self {
            Kind::Counter => recorder.describe_counter(name, unit, text),
            Kind::Gauge => recorder.describe_gauge(name, unit, text),
            Kind::Histogram => recorder.describe_histogram(name, unit, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn the_series_of_a_replica_go_a_while_after_nobody_holds_them_and_all_others_stay() {
        let build = || Some(PrometheusBuilder::new().build_recorder());
        let recorders = Recorders::new(build().unwrap(), Box::new(build));
        let now = Instant::now();
        let later = now + 2 * SHOWN_AFTER_END;
        recorders.hold("r1");
        recorders.hold("r1");
        metrics::with_local_recorder(&recorders, || {
            metrics::describe_counter!("calls_total", "Calls.");
            for replica in ["r1", "r2"] {
                metrics::counter!("calls_total", "replica" => replica).increment(3);
            }
            metrics::counter!("calls_total").increment(5);
        });
        let shown = |line: &str| recorders.render().lines().any(|shown| shown == line);
        assert!(shown("# HELP calls_total Calls."));
        assert!(shown("calls_total 5") && shown("calls_total{replica=\"r1\"} 3"));
        assert!(shown("calls_total{replica=\"r2\"} 3"));

        recorders.let_go("r1", now);
        recorders.upkeep(later);
        assert!(shown("calls_total{replica=\"r1\"} 3"), "it is still held");
        assert!(!shown("calls_total{replica=\"r2\"} 3"), "nobody held it");
        recorders.let_go("r1", later);
        recorders.upkeep(later);
        assert!(shown("calls_total{replica=\"r1\"} 3"), "it is still shown");
        recorders.upkeep(later + SHOWN_AFTER_END);
        assert!(!shown("calls_total{replica=\"r1\"} 3"));
        assert!(shown("calls_total 5"));
    }
}
