//! Threads for what a replica's code does besides its calls: its start, `reconfigure`, health
//! checks and `shutdown`. These are rare, so a thread that is made for each costs little, and code
//! that blocks holds up nobody.
//!
//! They are not of the runtime's pool for code that blocks: calls and whatever code puts there may
//! fill that, and replicas that wait behind them would look ill.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::unpanicked;

/// Threads of one worker at once; what comes then waits. So many are kept only by code that never
/// comes back, of replicas that ended long ago.
const THREADS_MAX: usize = 512;

/// The threads of one worker.
#[derive(Clone, Debug)]
pub(crate) struct Threads {
    free: Arc<Semaphore>,
}

impl Default for Threads {
    fn default() -> Threads {
        Threads::at_most(THREADS_MAX)
    }
}

impl Threads {
    fn at_most(threads: usize) -> Threads {
        let free = Arc::new(Semaphore::new(threads));
        Threads { free }
    }

    /// Runs code on a thread of its own. Dropping this drops the code as soon as it waits for
    /// something; until then it keeps its thread.
    ///
    /// # Errors
    /// When the code panicked or there is no thread for it: the text that completes "it …".
    pub(crate) async fn run<F>(
        &self,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> Result<F::Output, String>
    where
        F: Future<Output: Send> + 'static,
    {
        let (runtime, stop) = (Handle::current(), CancellationToken::new());
        let _stops = stop.clone().drop_guard();
        if self.free.available_permits() == 0 {
            tracing::warn!(
                threads_max = THREADS_MAX,
                "code of replicas keeps every thread that there is for starts, reconfigures, \
                 health checks and shutdowns; the next waits"
            );
        }
        let free = Arc::clone(&self.free).acquire_owned().await;
        let taken = free.map_err(|error| format!("got no thread: {error}"))?;
        let (done, outcome) = oneshot::channel();
        let body = move || {
            let _taken = taken;
            let code = stop.run_until_cancelled_owned(unpanicked(make()));
            if let Some(ended) = runtime.block_on(code) {
                // Whoever waited may have gone.
                let _ = done.send(ended);
            }
        };
        std::thread::Builder::new()
            .name("replica".to_owned())
            .spawn(body)
            .map_err(|error| format!("got no thread: {error}"))?;
        outcome
            .await
            .map_err(|_| "lost its thread".to_owned())
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn beyond_the_limit_code_waits_for_a_thread_and_one_that_panics_gives_its_own_back() {
        let threads = Threads::at_most(1);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = |word: &'static str| {
            let seen = Arc::clone(&seen);
            move || seen.lock().unwrap().push(word)
        };
        let (go, told) = mpsc::channel::<()>();
        let (began, first_began) = oneshot::channel();
        let ended = note("the first ended");
        let first = threads.run(move || async move {
            began.send(()).unwrap();
            told.recv().unwrap();
            ended();
            panic!("on purpose");
        });
        let second = threads.run({
            let began = note("the second began");
            move || async move { began() }
        });
        let told_later = async {
            first_began.await.unwrap();
            go.send(()).unwrap();
        };
        let (first, second, ()) = tokio::join!(first, second, told_later);
        assert_eq!(first, Err::<(), _>("panicked: on purpose".to_owned()));
        assert_eq!(second, Ok(()));
        let seen = seen.lock().unwrap();
        assert_eq!(*seen, ["the first ended", "the second began"]);
    }
}
