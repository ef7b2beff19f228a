//! Workers as pods that the head makes and takes away by itself.
//!
//! [`plan`] decides, as a pure function of the groups, the pods, the demand and the time;
//! [`survey`] and [`ledger`] are what it looks at and remembers. The shell watches pods, does
//! what was planned, and tells the head which pods are about to go.

pub mod action;
mod api;
pub mod budget;
mod generations;
pub mod groups;
mod keeper;
pub mod ledger;
pub mod manifest;
pub mod plan;
pub mod pods;
mod quantity;
mod roll;
mod roll_call;
pub mod survey;
pub mod template;
mod trouble;
mod verdicts;
mod watch;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod generations_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod plan_property_tests;
#[cfg(test)]
mod plan_tests;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinHandle;

use super::{Notice, ProvisionError, Provisioner, WorkerSet};
use crate::world::supply::Demand;
use groups::Group;
use keeper::Keeper;

/// Notices that wait for the head.
const NOTICES_QUEUED_MAX: usize = 64;

/// What the provisioner shall keep.
#[derive(Clone, Debug)]
pub struct Settings {
    pub groups: Vec<Group>,
    /// The cluster's name; its owner is the ConfigMap `<cluster>-cluster`.
    pub cluster: String,
    /// None: that of the client's configuration.
    pub namespace: Option<String>,
}

/// Makes and removes worker pods.
pub struct KubernetesProvisioner {
    settings: Settings,
    task: Option<JoinHandle<()>>,
}

// === impl KubernetesProvisioner ===

impl KubernetesProvisioner {
    /// Nothing is asked of Kubernetes yet.
    pub fn new(settings: Settings) -> KubernetesProvisioner {
        KubernetesProvisioner {
            settings,
            task: None,
        }
    }
}

#[async_trait]
impl Provisioner for KubernetesProvisioner {
    async fn ensure(&mut self, _wanted: WorkerSet) -> Result<(), ProvisionError> {
        Ok(())
    }

    fn attend(&mut self, demand: channel::Receiver<Demand>) -> mpsc::Receiver<Notice> {
        let (notices, heard) = mpsc::channel(NOTICES_QUEUED_MAX);
        let Settings {
            groups,
            cluster,
            namespace,
        } = self.settings.clone();
        let keeper = Keeper {
            groups,
            cluster,
            namespace,
            demand,
            notices,
        };
        if let Some(earlier) = self.task.replace(tokio::spawn(keeper.run())) {
            earlier.abort();
        }
        heard
    }

    /// Pods stay: they serve without a head, and the next one adopts them.
    async fn shutdown(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // It was told to end just now; how it ended does not matter.
            let _ = task.await;
        }
    }

    fn workers_outlive_head(&self) -> bool {
        true
    }
}

impl Drop for KubernetesProvisioner {
    /// A head that fails takes the loop with it.
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
