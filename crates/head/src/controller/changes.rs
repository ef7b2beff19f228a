//! How configs come to count: stored first, then true.

use mobula_store::StoreError;
use tracing::{info, warn};

use super::State;
use crate::documents::{StoredConfig, StoredIntent};
use crate::edit::exchanged;
use crate::history::End;
use crate::message::{DeployError, Deployed, Found, Proposal};
use crate::world::Event;
use crate::world::good::FailedRollout;
use crate::world::spec::{DeploySpec, Scope};

/// Said when options come too late.
const INGRESS_IS_OPEN: &str = "http_options, grpc_options and proxy_location count when serving \
     starts; the changed ones wait for a shutdown and a new deploy";

// === impl State ===

impl State {
    pub(super) async fn deploy(&mut self, proposal: Proposal) -> Result<Deployed, DeployError> {
        let Proposal {
            config,
            mut spec,
            reason,
            end,
            expected,
        } = proposal;
        let newest = self.executor.history().version();
        if let Some(expected) = expected
            && expected != newest
        {
            return Err(DeployError::Conflict { expected, newest });
        }
        spec.goes_back = end == End::RolledBack;
        spec.revision = self.accept(&config, &reason, &end).await?;
        let mut warnings = Vec::new();
        if let Some(serving) = &self.world.serving {
            let same = serving.http_options == spec.serving.http_options
                && serving.grpc_options == spec.serving.grpc_options
                && serving.proxy_location == spec.serving.proxy_location;
            if !same {
                warnings.push(INGRESS_IS_OPEN.to_owned());
            }
        }
        let revision = spec.revision;
        info!(
            applications = spec.applications.len(),
            revision, reason, "a config was accepted"
        );
        self.observe(Event::Deploy(Box::new(spec)));
        Ok(Deployed { revision, warnings })
    }

    pub(super) async fn delete_all(&mut self) -> Result<(), StoreError> {
        if self.executor.history().current.is_some() {
            let accepted = self.executor.history().delete(self.now().unix_s);
            self.executor.accept(&accepted, None).await?;
        }
        info!("everything is being deleted");
        self.observe(Event::DeleteAll);
        Ok(())
    }

    pub(super) async fn config(&self, revision: Option<u64>) -> Result<Found, StoreError> {
        let history = self.executor.history();
        let config = match revision.or(history.current) {
            Some(revision) => self.executor.config(revision).await?,
            None => None,
        };
        Ok(Found {
            version: history.version(),
            config,
        })
    }

    /// Returns applications whose newest config failed to the one before; true if any did.
    pub(super) async fn take_back_failed(&mut self) -> bool {
        let mut any = false;
        for failed in self.world.failed_rollouts() {
            let application = failed.application.clone();
            match self.take_back(failed).await {
                Ok(()) => any = true,
                Err(TakeBack::Store(error)) => {
                    // The next tick tries again.
                    warn!(application, %error, "a rollback cannot be stored");
                }
                Err(TakeBack::Impossible(why)) => {
                    warn!(application, why, "a failed rollout cannot be taken back");
                    self.world.leave_failed(&application);
                }
            }
        }
        any
    }

    async fn take_back(&mut self, failed: FailedRollout) -> Result<(), TakeBack> {
        let FailedRollout {
            application,
            error,
            revision,
            mut spec,
        } = failed;
        let impossible = |why: &str| TakeBack::Impossible(why.to_owned());
        let base = self.config(None).await?.config;
        let base = base.ok_or_else(|| impossible("there is no current config"))?;
        let serving = self.world.serving.clone();
        let serving = serving.ok_or_else(|| impossible("nothing is served"))?;
        let now_s = self.now().unix_s;
        let mut edited = exchanged(Some(&base), &application, Some(spec.raw.clone()), now_s)
            .map_err(TakeBack::Impossible)?;
        let said = spec.taken_back.clone().unwrap_or_default();
        edited.stored.taken_back.insert(application.clone(), said);
        spec.deployed_time_s = now_s;
        let mut blamed = self.executor.history().clone();
        blamed.blame(&application, &error);
        let reason = format!(
            "application '{application}' failed and was rolled back to revision {revision}"
        );
        let accepted = blamed.accept(now_s, &reason, &End::RolledBack);
        self.executor
            .accept(&accepted, Some(&edited.stored))
            .await?;
        warn!(
            application,
            revision = accepted.revision,
            reason,
            "a rollout failed"
        );
        let spec = DeploySpec {
            serving,
            applications: vec![spec],
            revision: accepted.revision,
            scope: Scope::Only(application),
            goes_back: true,
        };
        self.observe(Event::Deploy(Box::new(spec)));
        Ok(())
    }

    /// Stores a config as the newest of the history; the same again keeps its revision.
    async fn accept(
        &mut self,
        config: &StoredConfig,
        reason: &str,
        end: &End,
    ) -> Result<u64, StoreError> {
        let history = self.executor.history().clone();
        let before = self.config(None).await?.config;
        let accepted = match history.current {
            Some(current) if before.is_some_and(|before| before.config == config.config) => {
                history.accept_again(current, config.deployed_time_s)
            }
            Some(_) | None => history.accept(config.deployed_time_s, reason, end),
        };
        self.executor.accept(&accepted, Some(config)).await?;
        Ok(accepted.revision)
    }

    /// Makes decisions durable, and what became of the config.
    pub(super) async fn save(&mut self) -> Result<(), StoreError> {
        let mut history = self.executor.history().clone();
        history.note(&self.world);
        self.executor.save_history(&history).await?;
        self.executor
            .save_intent(&StoredIntent::of(&self.world))
            .await
    }
}

/// Why a rollout was not taken back.
enum TakeBack {
    Store(StoreError),
    Impossible(String),
}

impl From<StoreError> for TakeBack {
    fn from(error: StoreError) -> TakeBack {
        TakeBack::Store(error)
    }
}
