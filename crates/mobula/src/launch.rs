//! How `mobula run` starts a worker process: this binary again, with an equal share of the
//! budget.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use mobula_head::provision::process::{Launch, WorkerCommand};
use mobula_process::net::Addr;

use crate::args::{LogArgs, LogFormat, RunArgs};
use crate::gpus::{self, VISIBLE_DEVICES};

/// The command of a worker that joins `head` and listens in the directory `sockets`.
pub fn worker_command(
    args: &RunArgs,
    log: &LogArgs,
    head: &Addr,
    sockets: &Path,
) -> Result<WorkerCommand> {
    let cpus = args.num_cpus.unwrap_or_else(machine_cpus);
    for (flag, value, least) in [
        ("--num-cpus", cpus, "above 0"),
        ("--num-gpus", args.num_gpus, "0 or more"),
    ] {
        let fits = value.is_finite() && (value > 0.0 || (value == 0.0 && flag == "--num-gpus"));
        if !fits {
            bail!("{flag} {value}: must be {least}");
        }
    }
    let share = f64::from(args.workers);
    let visible = gpus::divide(args.num_gpus, args.workers, visible_devices().as_deref())?;
    let format = match log.log_format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    let mut fixed: Vec<(&str, String)> = vec![
        ("--log", log.log.clone()),
        ("--log-format", format.to_owned()),
        ("--join", head.to_string()),
        ("--cpus", (cpus / share).to_string()),
        ("--gpus", (args.num_gpus / share).to_string()),
        ("--busy-poll-us", args.requests.busy_poll_us.to_string()),
        ("--parent-pid", std::process::id().to_string()),
    ];
    for (name, amount) in &args.resources {
        fixed.push(("--resources", format!("{name}={}", amount / share)));
    }
    let sockets = sockets.to_owned();
    let arguments = move |launch: Launch| {
        // A new name for each start: a socket of a process that is still draining stays its own.
        let name = format!("worker-{}-{}.sock", launch.slot, launch.restarts);
        let data_addr = Addr::Unix(sockets.join(name)).to_string();
        let mut argv: Vec<OsString> = vec!["worker".into()];
        for (flag, value) in fixed.iter().cloned().chain([("--data-addr", data_addr)]) {
            argv.extend([OsString::from(flag), OsString::from(value)]);
        }
        argv
    };
    let environment = move |launch: Launch| {
        let devices = visible.get(launch.slot as usize).cloned();
        let variable = |devices| (OsString::from(VISIBLE_DEVICES), OsString::from(devices));
        devices.map(variable).into_iter().collect()
    };
    Ok(WorkerCommand {
        program: std::env::current_exe().context("cannot find this program's own path")?,
        args: Arc::new(arguments),
        env: Arc::new(environment),
    })
}

fn visible_devices() -> Option<String> {
    std::env::var(VISIBLE_DEVICES).ok()
}

/// The CPUs of the machine, or of the container's limit.
fn machine_cpus() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cpus| cpus.get() as f64)
}
