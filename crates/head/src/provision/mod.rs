//! Where workers come from. Only this seam differs between one machine and a cluster.

#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod process;

use async_trait::async_trait;
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use crate::world::supply::{Demand, Supply};

/// The workers that there shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerSet {
    pub workers: u32,
}

/// The process of a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerExit {
    pub pid: u32,
    /// "exit code 1", "signal 9".
    pub how: String,
}

/// What a provisioner tells the head.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The process of a worker ended.
    Exited(WorkerExit),
    /// What can be made, what goes, and what is in the way.
    Supplied(Supply),
    /// A pod does not exist any more, or everything in it has ended.
    PodGone(String),
}

/// Workers cannot be had.
#[derive(Debug, Error)]
pub enum ProvisionError {
    /// The wish itself is too large.
    #[error("workers: {wanted} wanted, allowed are {max}")]
    TooMany { wanted: u32, max: u32 },
}

/// Makes and removes workers. Called again with the same wish it changes nothing.
#[async_trait]
pub trait Provisioner: Send {
    /// Brings the workers to what is wanted; returns before they have joined.
    async fn ensure(&mut self, wanted: WorkerSet) -> Result<(), ProvisionError>;

    /// Follows what is needed from now on. Ends of workers are told, those of the last ones at
    /// shutdown included. There is one receiver; asking again gives one that hears nothing.
    fn attend(&mut self, demand: watch::Receiver<Demand>) -> mpsc::Receiver<Notice>;

    /// Ends all workers that end with the head, and waits for them.
    async fn shutdown(&mut self);

    /// Whether workers of an earlier head may still run, so that a new one waits for them.
    fn workers_outlive_head(&self) -> bool;
}

/// No workers of its own: they are started by somebody else and join.
#[derive(Debug, Default)]
pub struct Joining;

#[async_trait]
impl Provisioner for Joining {
    async fn ensure(&mut self, _wanted: WorkerSet) -> Result<(), ProvisionError> {
        Ok(())
    }

    fn attend(&mut self, _demand: watch::Receiver<Demand>) -> mpsc::Receiver<Notice> {
        mpsc::channel(1).1
    }

    async fn shutdown(&mut self) {}

    fn workers_outlive_head(&self) -> bool {
        true
    }
}
