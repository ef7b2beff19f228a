//! Calls whose code blocks the thread it runs on.
//!
//! All replicas of a worker share a runtime of few threads, because a call that crosses from
//! thread to thread costs more than most calls do. Code that blocks holds up the others there.
//! So whoever was seen to block is run on threads of its own from then on, one for each call.
//!
//! Not here: what a replica's code does besides calls, which always has a thread (`threads`).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

/// Code that keeps its thread for so long blocks it. Long enough that a busy machine, which takes
/// the thread away from innocent code, hardly ever makes it look so.
const BLOCKS_SECONDS_MIN: Duration = Duration::from_millis(250);

/// Whether the code of one replica was seen to block.
#[derive(Debug)]
pub(crate) struct Blocking {
    replica_id: String,
    deployment: String,
    seen: AtomicBool,
}

pin_project! {
    /// Code of a replica: watched while it runs here, or on a thread of its own. Which one is
    /// decided when it begins, not when it is made: what waits behind code that blocks need not.
    pub(crate) struct Guarded<C, F> {
        blocking: Arc<Blocking>,
        #[pin]
        run: Run<C, F>,
    }
}

pin_project! {
    #[project = RunPinned]
    enum Run<C, F> {
        Fresh { make: Option<C> },
        Here { #[pin] code: F },
        // Rare, so on the heap.
        Aside { code: Pin<Box<dyn Future<Output = Result<(), JoinError>> + Send>> },
    }
}

// === impl Blocking ===

impl Blocking {
    /// Of a replica whose code is innocent so far.
    pub(crate) fn new(replica_id: &str, deployment: &str) -> Arc<Blocking> {
        Arc::new(Blocking {
            replica_id: replica_id.to_owned(),
            deployment: deployment.to_owned(),
            seen: AtomicBool::new(false),
        })
    }

    /// Code of the replica. Dropping it drops the code, or has it dropped as soon as it waits for
    /// something.
    pub(crate) fn guard<C, F>(self: &Arc<Self>, make: C) -> Guarded<C, F>
    where
        C: FnOnce() -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Guarded {
            blocking: Arc::clone(self),
            run: Run::Fresh { make: Some(make) },
        }
    }

    fn note(&self, kept: Duration) {
        if kept < BLOCKS_SECONDS_MIN || self.seen.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::warn!(
            replica = %self.replica_id,
            deployment = %self.deployment,
            seconds = kept.as_secs_f64(),
            "code blocked its thread, which other replicas share; its calls have threads of their \
             own from now on. Work that takes long belongs on tokio::task::spawn_blocking"
        );
    }
}

impl<C, F> Future for Guarded<C, F>
where
    C: FnOnce() -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if let RunPinned::Fresh { make } = this.run.as_mut().project()
            && let Some(make) = make.take()
        {
            let is_blocking = this.blocking.seen.load(Ordering::Relaxed);
            this.run.set(match is_blocking {
                false => Run::Here { code: make() },
                true => Run::Aside {
                    code: Box::pin(aside(make)),
                },
            });
        }
        match this.run.as_mut().project() {
            RunPinned::Here { code } => {
                let began = Instant::now();
                let polled = code.poll(cx);
                this.blocking.note(began.elapsed());
                polled
            }
            RunPinned::Aside { code } => code.as_mut().poll(cx).map(|ended| {
                if let Err(error) = ended {
                    let replica = &this.blocking.replica_id;
                    tracing::error!(%replica, %error, "code of a replica broke off");
                }
            }),
            // It was made above.
            RunPinned::Fresh { .. } => Poll::Ready(()),
        }
    }
}

/// Runs code on a thread of the runtime's pool for code that blocks.
async fn aside<F>(code: impl FnOnce() -> F + Send + 'static) -> Result<(), JoinError>
where
    F: Future<Output = ()> + 'static,
{
    let (runtime, stop) = (Handle::current(), CancellationToken::new());
    let _stops = stop.clone().drop_guard();
    let running = tokio::task::spawn_blocking(move || {
        // None: nobody waits for it any more, which is never seen.
        runtime.block_on(stop.run_until_cancelled_owned(code()))
    });
    match running.await? {
        Some(output) => Ok(output),
        None => std::future::pending().await,
    }
}
