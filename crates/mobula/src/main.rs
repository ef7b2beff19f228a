//! The `mobula` binary: command line and wiring, nothing else.

mod access;
mod allocator;
mod args;
mod banner;
mod client;
mod etcd;
mod gpus;
mod head;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod launch;
mod models;
mod ray_version;
mod router;
mod run;
mod runtime;
mod state_dir;
mod telemetry;
mod worker;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use crate::args::{Cli, Command, LogArgs, LogFormat};

/// A request costs some thirty small allocations on its way, many of them freed by another thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start_logs(&cli.log).and_then(|()| execute(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_logs(args: &LogArgs) -> Result<()> {
    mobula_process::telemetry::init_logs(&args.log, args.log_format == LogFormat::Json)
        .map_err(|error| anyhow::anyhow!("--log '{}': {error}", args.log))
}

fn execute(cli: Cli) -> Result<()> {
    if let Command::Worker(args) = cli.command {
        return execute_worker(args);
    }
    // A worker keeps what was freed for a second, which saves it up to a fifth of its time with large
    // bodies; what it takes is the models' anyway.
    allocator::give_back_soon();
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        match cli.command {
            Command::Run(args) => execute_run(args, &cli.log).await,
            Command::Head(args) => head::run(args).await,
            Command::Router(args) => router::run(args).await,
            // Above.
            Command::Worker(_) => Ok(()),
            Command::Deploy(args) => client::deploy::deploy(&args).await,
            Command::Delete(args) => client::application::delete(&args).await,
            Command::Plan(args) => client::plan::plan(&args).await,
            Command::History(args) => client::history::history(&args).await,
            Command::Rollback(args) => client::history::rollback(&args).await,
            Command::Status(args) => client::show::status(&args).await,
            Command::Config(args) => client::show::config(&args).await,
            Command::Shutdown(args) => client::shutdown::shutdown(&args).await,
            Command::Validate(args) => client::deploy::validate(&args),
            Command::Import(args) => client::import::import(&args),
            Command::Models(args) => models::execute(args.action).await,
        }
    })
}

/// The router has a runtime of its own, so that a busy head does not hold up requests.
async fn execute_run(args: args::RunArgs, log: &LogArgs) -> Result<()> {
    let routing = runtime::of_requests(args.requests)?;
    let ended = run::run(args, log, routing.handle().clone()).await;
    // The router has drained; a runtime must not be waited for on another one.
    routing.shutdown_background();
    ended
}

/// A worker has two runtimes: one for the replicas and their calls, whose models compute on
/// threads of their own; and this thread for what speaks with the head and answers probes, so
/// that code that blocks does not hold it up.
fn execute_worker(args: args::WorkerArgs) -> Result<()> {
    let replicas = runtime::of_requests(args.requests)?;
    let here = Builder::new_current_thread().enable_all().build()?;
    let ended = here.block_on(worker::run(args, replicas.handle().clone()));
    // Code that blocks would be waited for.
    replicas.shutdown_background();
    ended
}

/// The applications that this binary holds.
fn registry() -> mobula_app::Registry {
    let mut registry = mobula_app::Registry::default();
    mobula_models::register(&mut registry);
    registry
}

/// The process's environment as the builders of applications see it.
fn environment() -> std::collections::BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
