//! Keeps a lease alive, and says that it is lost before the store can have given it away.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::StoreError;
use crate::election::{Fence, Leadership};

/// A lease is renewed this many times in its life: two attempts may fail.
pub const RENEWALS_PER_LEASE: u32 = 3;

/// The last fifth of a lease is not used: clocks run at different speeds, and whoever is told
/// `lost` needs a moment to stop.
pub const UNUSED_FRACTION: u32 = 5;

/// Between two attempts to renew that failed.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// For giving a lease back when nobody waits for it; it runs out by itself otherwise.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(1);

/// What a leadership rests on.
#[async_trait]
pub(crate) trait Lease: Send + Sync + 'static {
    /// The time it lives from now on, or `None` if it is gone.
    async fn renew(&self) -> Result<Option<Duration>, StoreError>;

    /// Gives it back.
    async fn revoke(&self) -> Result<(), StoreError>;
}

type Resignation = oneshot::Sender<Result<(), StoreError>>;

/// A leadership on a lease that lives for `time_to_live` from `asked_at`, the moment before it
/// was asked for.
pub(crate) fn keep(
    fence: Fence,
    lease: impl Lease,
    asked_at: Instant,
    time_to_live: Duration,
) -> Leadership {
    let lost = CancellationToken::new();
    let (resign, resigned) = oneshot::channel();
    let keeper = Keeper {
        lease,
        lost: lost.clone(),
        renew_at: renew_at(asked_at, time_to_live),
        lost_at: lost_at(asked_at, time_to_live),
    };
    tokio::spawn(keeper.run(resigned));
    Leadership {
        fence,
        _lost_on_drop: lost.clone().drop_guard(),
        lost,
        resign,
    }
}

struct Keeper<L> {
    lease: L,
    lost: CancellationToken,
    renew_at: Instant,
    lost_at: Instant,
}

// === impl Keeper ===

impl<L: Lease> Keeper<L> {
    async fn run(mut self, mut resigned: oneshot::Receiver<Resignation>) {
        loop {
            tokio::select! {
                biased;
                resignation = &mut resigned => return self.end(resignation.ok()).await,
                () = sleep_until(self.lost_at) => return self.end(None).await,
                (asked_at, answer) = self.renewal() => match answer {
                    Ok(Some(time_to_live)) => {
                        self.renew_at = renew_at(asked_at, time_to_live);
                        self.lost_at = lost_at(asked_at, time_to_live);
                    }
                    Ok(None) => return self.lost.cancel(),
                    // Whatever it was: asked again until the lease is over.
                    Err(_) => self.renew_at = Instant::now() + RETRY_DELAY,
                },
            }
        }
    }

    /// Waits for the time of the next renewal and asks. The answer counts from before the
    /// question: the store heard it later.
    async fn renewal(&self) -> (Instant, Result<Option<Duration>, StoreError>) {
        sleep_until(self.renew_at).await;
        let asked_at = Instant::now();
        (asked_at, self.lease.renew().await)
    }

    /// First this process stops to lead, then others are let in.
    async fn end(&self, resignation: Option<Resignation>) {
        self.lost.cancel();
        match resignation {
            Some(reply) => {
                let _nobody_waits = reply.send(self.lease.revoke().await);
            }
            None => {
                let _runs_out_by_itself = timeout(ABANDON_TIMEOUT, self.lease.revoke()).await;
            }
        }
    }
}

fn renew_at(asked_at: Instant, time_to_live: Duration) -> Instant {
    asked_at + time_to_live / RENEWALS_PER_LEASE
}

fn lost_at(asked_at: Instant, time_to_live: Duration) -> Instant {
    asked_at + (time_to_live - time_to_live / UNUSED_FRACTION)
}
