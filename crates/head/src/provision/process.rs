//! Workers as child processes on this machine.
//!
//! One task per slot keeps one process alive. A child that outlives us would hold ports and
//! memory, so it asks the kernel itself to be ended with its parent; nothing here relies on
//! our being alive to clean up.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Notice, ProvisionError, Provisioner, WorkerExit, WorkerSet};
use crate::world::supply::Demand;

/// Worker processes on one machine; more than cores is never useful.
pub const WORKERS_MAX: u32 = 1_024;

/// From SIGTERM to SIGKILL: above the default `graceful_shutdown_timeout_s` of 20 s.
pub const RETIRE_SECONDS_MAX: Duration = Duration::from_secs(30);

/// The pause before a worker that ended is started again.
const RESTART_PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest pause, for a worker that ends again and again.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(5);

/// A worker that lived this long was not broken from the start.
const HEALTHY_LIFE: Duration = Duration::from_secs(30);

/// Exits that wait to be told; each slot waits for its own.
const EXITS_QUEUED_MAX: usize = 64;

/// Which start of which worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// From 0 to the number of workers less one.
    pub slot: u32,
    /// How often the slot has been started before.
    pub restarts: u64,
}

/// How a worker process is started.
#[derive(Clone)]
pub struct WorkerCommand {
    /// The executable.
    pub program: PathBuf,
    /// The arguments of one start.
    pub args: Arc<dyn Fn(Launch) -> Vec<OsString> + Send + Sync>,
    /// What the environment of one start has beside this process's own.
    pub env: Arc<dyn Fn(Launch) -> Vec<(OsString, OsString)> + Send + Sync>,
}

/// Starts worker processes and keeps them.
pub struct ProcessProvisioner {
    command: WorkerCommand,
    retire_within: Duration,
    slots: Vec<Slot>,
    notices: mpsc::Receiver<Notice>,
    notices_in: mpsc::Sender<Notice>,
}

struct Slot {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

// === impl ProcessProvisioner ===

impl ProcessProvisioner {
    /// Nothing is started yet. `retire_within` is how long a worker may take to end when asked.
    pub fn new(command: WorkerCommand, retire_within: Duration) -> ProcessProvisioner {
        let (notices_in, notices) = mpsc::channel(EXITS_QUEUED_MAX);
        ProcessProvisioner {
            command,
            retire_within,
            slots: Vec::new(),
            notices,
            notices_in,
        }
    }

    fn start_slot(&mut self, slot: u32) {
        let stop = CancellationToken::new();
        let keeper = Keeper {
            slot,
            command: self.command.clone(),
            retire_within: self.retire_within,
            notices: self.notices_in.clone(),
            stop: stop.clone(),
        };
        self.slots.push(Slot {
            stop,
            task: tokio::spawn(keeper.keep()),
        });
    }

    async fn stop_slots(&mut self, keep: usize) {
        let stopping = self.slots.split_off(keep.min(self.slots.len()));
        for slot in &stopping {
            slot.stop.cancel();
        }
        for slot in stopping {
            // A slot's task does not panic; if it did, its process is gone with its handle.
            let _ = slot.task.await;
        }
    }
}

#[async_trait]
impl Provisioner for ProcessProvisioner {
    async fn ensure(&mut self, wanted: WorkerSet) -> Result<(), ProvisionError> {
        if wanted.workers > WORKERS_MAX {
            return Err(ProvisionError::TooMany {
                wanted: wanted.workers,
                max: WORKERS_MAX,
            });
        }
        for slot in self.slots.len() as u32..wanted.workers {
            self.start_slot(slot);
        }
        self.stop_slots(wanted.workers as usize).await;
        Ok(())
    }

    fn attend(&mut self, _demand: watch::Receiver<Demand>) -> mpsc::Receiver<Notice> {
        std::mem::replace(&mut self.notices, mpsc::channel(1).1)
    }

    async fn shutdown(&mut self) {
        self.stop_slots(0).await;
    }

    fn workers_outlive_head(&self) -> bool {
        false
    }
}

// === one slot ===

struct Keeper {
    slot: u32,
    command: WorkerCommand,
    retire_within: Duration,
    notices: mpsc::Sender<Notice>,
    stop: CancellationToken,
}

impl Keeper {
    async fn keep(self) {
        let mut pause = RESTART_PAUSE_MIN;
        let mut restarts = 0;
        while !self.stop.is_cancelled() {
            let born = Instant::now();
            match self.start(restarts) {
                Ok(child) => self.attend(child).await,
                Err(error) => warn!(slot = self.slot, %error, "a worker cannot be started"),
            }
            restarts += 1;
            if born.elapsed() >= HEALTHY_LIFE {
                pause = RESTART_PAUSE_MIN;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return,
            }
            pause = (pause * 2).min(RESTART_PAUSE_MAX);
        }
    }

    fn start(&self, restarts: u64) -> std::io::Result<Child> {
        let launch = Launch {
            slot: self.slot,
            restarts,
        };
        Command::new(&self.command.program)
            .args((self.command.args)(launch))
            .envs((self.command.env)(launch))
            .stdin(Stdio::null())
            // Ctrl-C in a terminal reaches the head alone, which then ends its workers in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Until the process has ended, by itself or because it shall.
    async fn attend(&self, mut child: Child) {
        let Some(pid) = child.id() else { return };
        info!(slot = self.slot, pid, "a worker process started");
        let ended = tokio::select! {
            ended = child.wait() => ended,
            () = self.stop.cancelled() => self.retire(&mut child, pid).await,
        };
        let how = ended.map_or_else(|error| error.to_string(), describe);
        info!(slot = self.slot, pid, how, "a worker process ended");
        let exit = WorkerExit { pid, how };
        // Nobody may be reading any more, and nobody has to.
        let _ = self.notices.send(Notice::Exited(exit)).await;
    }

    async fn retire(&self, child: &mut Child, pid: u32) -> std::io::Result<ExitStatus> {
        signal(pid, Signal::TERM);
        match tokio::time::timeout(self.retire_within, child.wait()).await {
            Ok(ended) => ended,
            Err(_) => {
                warn!(
                    slot = self.slot,
                    pid, "a worker did not end in time and is killed"
                );
                child.start_kill()?;
                child.wait().await
            }
        }
    }
}

/// The child has not been waited for, so its number is still its own.
fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid
        && let Err(error) = kill_process(pid, signal)
    {
        warn!(%error, "a worker cannot be signalled");
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &'static str) -> WorkerCommand {
        WorkerCommand {
            program: "/bin/sh".into(),
            args: Arc::new(move |launch| {
                vec![
                    "-c".into(),
                    script.into(),
                    "sh".into(),
                    launch.restarts.to_string().into(),
                ]
            }),
            env: Arc::new(|_| Vec::new()),
        }
    }

    fn how(notice: Option<Notice>) -> String {
        let Some(Notice::Exited(exit)) = notice else {
            panic!("not an exit: {notice:?}");
        };
        exit.how
    }

    #[tokio::test]
    async fn a_worker_that_ends_is_started_again_and_its_exit_is_told() {
        let command = shell("if [ $1 -lt 2 ]; then exit 7; else kill -9 $$; fi");
        let mut provisioner = ProcessProvisioner::new(command, RETIRE_SECONDS_MAX);
        let mut notices = provisioner.attend(watch::channel(Demand::default()).1);
        provisioner.ensure(WorkerSet { workers: 1 }).await.unwrap();
        let mut hows = Vec::new();
        for _ in 0..3 {
            hows.push(how(notices.recv().await));
        }
        assert_eq!(hows, ["exit code 7", "exit code 7", "signal 9"]);
        provisioner.shutdown().await;
    }

    #[tokio::test]
    async fn a_worker_that_ignores_the_request_to_end_is_killed() {
        let command = shell("trap '' TERM; while :; do sleep 0.05; done");
        let mut provisioner = ProcessProvisioner::new(command, Duration::from_millis(200));
        let mut notices = provisioner.attend(watch::channel(Demand::default()).1);
        provisioner.ensure(WorkerSet { workers: 1 }).await.unwrap();
        // Long enough for the shell to have set its trap; if not, it ends even sooner.
        tokio::time::sleep(Duration::from_millis(200)).await;
        provisioner.shutdown().await;
        assert_eq!(how(notices.recv().await), "signal 9");
    }

    #[tokio::test]
    async fn fewer_workers_wanted_ends_the_last_ones() {
        let mut provisioner = ProcessProvisioner::new(shell("sleep 60"), RETIRE_SECONDS_MAX);
        let mut notices = provisioner.attend(watch::channel(Demand::default()).1);
        provisioner.ensure(WorkerSet { workers: 2 }).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        provisioner.ensure(WorkerSet { workers: 1 }).await.unwrap();
        assert_eq!(how(notices.recv().await), "signal 15");
        assert_eq!(provisioner.slots.len(), 1);
        let too_many = provisioner
            .ensure(WorkerSet {
                workers: WORKERS_MAX + 1,
            })
            .await;
        assert!(matches!(too_many, Err(ProvisionError::TooMany { .. })));
        provisioner.shutdown().await;
    }
}
