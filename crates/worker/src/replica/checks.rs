//! Health checks of one replica: each on a thread of its own and within its time.

use std::sync::Arc;
use std::time::Duration;

use mobula_app::Replica;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::threads::Threads;

/// A check that does not come back keeps its thread. Those after it fail without another one.
const CHECKS_AT_ONCE_MAX: usize = 1;

pub(crate) struct Checks {
    code: Arc<dyn Replica>,
    threads: Threads,
    turns: Arc<Semaphore>,
}

impl Checks {
    pub(crate) fn new(code: Arc<dyn Replica>, threads: Threads) -> Checks {
        let turns = Arc::new(Semaphore::new(CHECKS_AT_ONCE_MAX));
        Checks {
            code,
            threads,
            turns,
        }
    }

    /// One health check; taking too long is failing.
    pub(crate) async fn check(&self, limit: Duration) -> Result<(), String> {
        let by = Instant::now() + limit;
        let Ok(Ok(turn)) = timeout_at(by, Arc::clone(&self.turns).acquire_owned()).await else {
            return Err("the health check before this one still keeps its thread".to_owned());
        };
        let code = Arc::clone(&self.code);
        let checking = self.threads.run(move || async move {
            let _turn = turn;
            code.check_health().await
        });
        match timeout_at(by, checking).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(format!("health check failed: {error}")),
            Ok(Err(broken)) => Err(format!("health check {broken}")),
            Err(_) => Err(format!(
                "health check took longer than health_check_timeout_s ({} s)",
                limit.as_secs_f64()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use mobula_app::{CallError, HealthError, Request, Response, async_trait};

    use super::*;

    /// A check takes as long as the test wants.
    struct Held {
        began: mpsc::Sender<()>,
        told: Mutex<mpsc::Receiver<()>>,
    }

    #[async_trait]
    impl Replica for Held {
        async fn call(&self, _request: Request) -> Result<Response, CallError> {
            Err(CallError("not for calls".to_owned()))
        }

        async fn check_health(&self) -> Result<(), HealthError> {
            self.began.send(()).unwrap();
            self.told.lock().unwrap().recv().unwrap();
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_check_that_still_keeps_its_thread_fails_the_next_one_which_gets_none() {
        const LONG: Duration = Duration::from_secs(60);
        let ((began, begun), (go, told)) = (mpsc::channel(), mpsc::channel());
        let told = Mutex::new(told);
        let code = Arc::new(Held { began, told });
        let checks = Arc::new(Checks::new(code, Threads::default()));
        let first = tokio::spawn({
            let checks = Arc::clone(&checks);
            async move { checks.check(LONG).await }
        });
        let (begun, has_begun) = tokio::task::spawn_blocking(move || {
            let has_begun = begun.recv().is_ok();
            (begun, has_begun)
        })
        .await
        .unwrap();
        assert!(has_begun);
        let second = checks.check(Duration::from_millis(10)).await;
        let text = "the health check before this one still keeps its thread";
        assert_eq!(second, Err(text.to_owned()));
        assert!(begun.try_recv().is_err(), "the code is asked once");
        go.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(()));
        go.send(()).unwrap();
        assert_eq!(checks.check(LONG).await, Ok(()));
    }
}
