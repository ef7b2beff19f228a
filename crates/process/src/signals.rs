//! Signals that end a process, as one cancellation token.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that fires on SIGTERM or SIGINT. A second signal while the drain is under way ends
/// the process at once with the status that shells give to it (128 + signal).
///
/// # Errors
/// When the handlers cannot be installed.
pub fn shutdown_token() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let fired = token.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => ("SIGTERM", 143),
                _ = interrupt.recv() => ("SIGINT", 130),
            }
        };
        let (name, _) = next().await;
        tracing::info!(signal = name, "draining");
        fired.cancel();
        let (name, status) = next().await;
        tracing::warn!(signal = name, "second signal, leaving without draining");
        std::process::exit(status);
    });
    Ok(token)
}

/// Asks the kernel to end this process with SIGTERM when its parent dies, so that the workers of
/// `mobula run` never outlive a head that was killed.
///
/// # Errors
/// When the kernel refuses, or the parent is already gone.
pub fn end_with_parent(parent_pid: u32) -> std::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    // The parent may have died before the line above.
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if parent != i32::try_from(parent_pid).ok() {
        return Err(std::io::Error::other("the parent process is gone"));
    }
    Ok(())
}
