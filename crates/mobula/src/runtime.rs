//! The runtime that requests pass through.

use std::time::Duration;

use mobula_process::busy_poll;
use tokio::runtime::{Builder, Runtime};

use crate::args::RequestArgs;

/// How many threads tokio is told to use, by whoever starts the process.
const THREADS_VARIABLE: &str = "TOKIO_WORKER_THREADS";

/// Threads for code that blocks: calls of replicas that were seen to block, and files. What comes
/// beyond waits for one of them. tokio's default, held so that it is ours to change.
const BLOCKING_THREADS_MAX: usize = 512;

/// A runtime for where several roles share a machine: one thread for two CPUs, as requests that
/// cross from thread to thread cost more than they gain (docs/performance.md), and as many as
/// `TOKIO_WORKER_THREADS` says if it does.
pub fn of_requests(args: RequestArgs) -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = match std::env::var(THREADS_VARIABLE) {
        // tokio has read it, and says what is wrong with it.
        Ok(threads) => threads.parse().unwrap_or(0),
        Err(_) => {
            let threads = cpus.div_ceil(2);
            builder.worker_threads(threads);
            threads
        }
    };
    let longest = Duration::from_micros(args.busy_poll_us);
    builder.max_blocking_threads(BLOCKING_THREADS_MAX);
    busy_poll::enable(&mut builder, threads, cpus, longest);
    builder.enable_all().build()
}
