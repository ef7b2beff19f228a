//! What is placed at once: one replica, its bundles, or those of a whole gang, as parts that
//! each need room on one worker.

use std::borrow::Cow;

use mobula_spec::LabelSelector;

use crate::world::group::{Placed, Reservation, Strategy};
use crate::world::observed::Worker;
use crate::world::resources::GPU;
use crate::world::spec::DeploymentSpec;
use crate::world::{Resources, WorkerId};

/// All of it is placed, or nothing.
pub struct Unit<'a> {
    pub spec: &'a DeploymentSpec,
    pub strategy: Strategy,
    /// In the order of the replicas and their bundles.
    pub parts: Vec<Part<'a>>,
    /// Parts of each replica.
    parts_each: usize,
    pub needs_gpus: bool,
}

/// Room on one worker.
#[derive(Clone)]
pub struct Part<'a> {
    pub need: Cow<'a, Resources>,
    labels: Vec<&'a LabelSelector>,
    /// A replica runs here.
    pub hosts: bool,
}

// === impl Unit ===

impl<'a> Unit<'a> {
    pub fn of(spec: &'a DeploymentSpec) -> Unit<'a> {
        let group = &spec.replica.group;
        let bundles = spec.replica.bundles();
        let labels = |bundle: usize| {
            let own = group.labels.get(bundle).or(group.labels.first());
            let actor = (bundle == 0).then_some(&spec.labels);
            actor.into_iter().chain(own)
        };
        let one_worker = group.strategy == Strategy::StrictPack && bundles.len() > 1;
        let each: Vec<Part<'a>> = if one_worker {
            let mut need = Resources::default();
            bundles.iter().for_each(|bundle| need.add(bundle));
            vec![Part {
                need: Cow::Owned(need),
                labels: (0..bundles.len()).flat_map(labels).collect(),
                hosts: true,
            }]
        } else {
            let bundles = bundles.iter().enumerate();
            let part = |(bundle, need)| Part {
                need: Cow::Borrowed(need),
                labels: labels(bundle).collect(),
                hosts: bundle == 0,
            };
            bundles.map(part).collect()
        };
        let needs_gpus = each.iter().any(|part| part.need.parts(GPU) > 0);
        let parts_each = each.len();
        let mut parts = each;
        for _ in 1..group.gang_size.max(1) {
            for bundle in 0..parts_each {
                parts.push(parts[bundle].clone());
            }
        }
        Unit {
            spec,
            strategy: group.strategy,
            parts,
            parts_each,
            needs_gpus,
        }
    }

    /// Where each replica goes, if the parts go to these workers.
    pub fn placed(&self, workers: &[&Worker]) -> Vec<Placed> {
        let replicas = workers.chunks(self.parts_each.max(1));
        replicas.map(|workers| self.placed_one(workers)).collect()
    }

    fn placed_one(&self, workers: &[&Worker]) -> Placed {
        let bundles = self.spec.replica.bundles();
        // A bundle beyond the parts lies where the only part does.
        let at = |bundle: usize| workers.get(bundle).or(workers.first());
        let mut reserved: Vec<Reservation> = Vec::new();
        for (bundle, resources) in bundles.iter().enumerate().skip(1) {
            let worker: WorkerId = at(bundle).map(|w| w.id.clone()).unwrap_or_default();
            match reserved.iter_mut().find(|there| there.worker == worker) {
                Some(there) => there.resources.add(resources),
                None => reserved.push(Reservation {
                    worker,
                    resources: resources.clone(),
                }),
            }
        }
        Placed {
            worker: at(0).map(|w| w.id.clone()).unwrap_or_default(),
            reserved,
        }
    }
}

// === impl Part ===

impl Part<'_> {
    /// Whether the worker may have it at all.
    pub fn may_be_on(&self, worker: &Worker) -> bool {
        worker.takes_replicas()
            && self
                .labels
                .iter()
                .all(|labels| labels.matches(&worker.labels))
    }

    /// The labels that are asked for, for messages.
    pub fn labels(&self) -> String {
        let texts = self.labels.iter().map(ToString::to_string);
        let texts: Vec<String> = texts.filter(|text| !text.is_empty()).collect();
        texts.join(", ")
    }
}
