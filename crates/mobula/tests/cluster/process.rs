//! Processes that end with the test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Everything that a test waits for happens within this time, or not at all; a busy machine
/// takes a while to start a dozen processes.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// The release under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_mobula");

/// A running `mobula`.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn start(dir: &Path, name: &str, args: &[String]) -> Process {
        Process::start_of(Path::new(BINARY), dir, name, args)
    }

    /// Starts a binary that may be of another release.
    pub fn start_of(binary: &Path, dir: &Path, name: &str, args: &[String]) -> Process {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).unwrap();
        let child = command_of(binary)
            .args(args)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Process { child, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn wait_for_log(&self, text: &str) {
        let found = || self.log().contains(text).then_some(());
        wait_for(&format!("'{text}' in {}", self.log.display()), found);
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
    }

    /// SIGTERM, and its end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        wait_for("the process's end", || self.child.try_wait().unwrap())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}

/// The binary, without what the environment would tell it.
pub fn command() -> Command {
    command_of(Path::new(BINARY))
}

fn command_of(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for name in ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"] {
        command.env_remove(name);
    }
    command.env("MOBULA_LOG", "info");
    command
}

/// Asks again and again until there is an answer.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < WAIT_MAX, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
