//! How configs come to count: stored first, then true.

use mobula_store::StoreError;
use tracing::{info, warn};

use super::ControlLoop;
use crate::changed::changed;
use crate::documents::{StoredConfig, StoredIntent};
use crate::edit::exchanged;
use crate::history::{Accepted, End, History};
use crate::message::{DeployError, Deployed, Found, Proposal, ScaleError};
use crate::world::good::FailedRollout;
use crate::world::spec::{DeploySpec, Scope};
use crate::world::{DeploymentId, Event, Now};

/// Said when options come too late.
const INGRESS_IS_OPEN: &str = "http_options, grpc_options and proxy_location count when serving \
     starts; the changed ones wait for a shutdown and a new deploy";

/// A change of what is declared of which the store did not say whether it happened.
pub(super) struct Unsettled {
    /// The history if it did.
    history: History,
    /// What follows then.
    event: Event,
}

// === impl ControlLoop ===

impl ControlLoop {
    /// Stores the config, and then makes it count.
    ///
    /// # Errors
    /// When it was made from an older one, or is not known to be stored.
    pub async fn deploy(&mut self, proposal: Proposal, now: Now) -> Result<Deployed, DeployError> {
        let Proposal {
            config,
            mut spec,
            reason,
            end,
            expected,
        } = proposal;
        self.settle(now).await?;
        let newest = self.executor.history().version();
        if let Some(expected) = expected
            && expected != newest
        {
            return Err(DeployError::Conflict { expected, newest });
        }
        spec.goes_back = end == End::RolledBack;
        let mut warnings = Vec::new();
        if let Some(serving) = &self.world.serving {
            let same = serving.http_options == spec.serving.http_options
                && serving.grpc_options == spec.serving.grpc_options
                && serving.proxy_location == spec.serving.proxy_location;
            if !same {
                warnings.push(INGRESS_IS_OPEN.to_owned());
            }
        }
        let reason = match (&end, changed(&self.world, &spec)) {
            (End::Superseded, Some(what)) => format!("{reason}: {what}"),
            _ => reason,
        };
        let accepted = self.acceptance(&config, &reason, &end).await?;
        let revision = accepted.revision;
        spec.revision = revision;
        let applications = spec.applications.len();
        let event = Event::Deploy(Box::new(spec));
        self.declare(&accepted, Some(&config), event, now).await?;
        info!(applications, revision, reason, "a config was accepted");
        let what = "a config was accepted";
        let why = format!("revision {revision}: {reason}");
        self.decisions.happened("config", what, &why, now.unix_s);
        Ok(Deployed { revision, warnings })
    }

    /// Stores that nothing is declared, and then makes it count.
    ///
    /// # Errors
    /// When it is not known to be stored.
    pub async fn delete_all(&mut self, now: Now) -> Result<(), StoreError> {
        self.settle(now).await?;
        if self.executor.history().current.is_some() {
            let accepted = self.executor.history().delete(now.unix_s);
            self.declare(&accepted, None, Event::DeleteAll, now).await?;
        } else {
            self.observe(Event::DeleteAll, now);
        }
        info!("everything is being deleted");
        let why = "it was asked for";
        self.decisions
            .happened("config", "delete everything", why, now.unix_s);
        Ok(())
    }

    /// Stores a count, as the scale route sets it, and then makes it true.
    ///
    /// # Errors
    /// When there is no such deployment, its application does not allow it, or the count is not
    /// known to be stored.
    pub async fn scale(
        &mut self,
        id: DeploymentId,
        target: u32,
        now: Now,
    ) -> Result<(), ScaleError> {
        let applications = &self.world.applications;
        let application = applications.get(&id.application);
        let application = application.ok_or(ScaleError::NotFound)?;
        let deployment = application.deployments.get(&id.deployment);
        let deployment = deployment.ok_or(ScaleError::NotFound)?;
        if application.deleting || deployment.deleting {
            return Err(ScaleError::Deleted);
        }
        if !application.declared.external_scaler_enabled {
            return Err(ScaleError::NotEnabled);
        }
        let whole = deployment.spec.replica.group.whole_gangs(target);
        let intent = StoredIntent::of(&self.world).with_count(&id, whole);
        self.executor.save_intent(&intent).await?;
        info!(deployment = %id, target, "the scale route set a count");
        let (subject, why) = (id.to_string(), format!("to {target}"));
        self.decisions
            .happened(&subject, "the scale route set a count", &why, now.unix_s);
        let deployment = id;
        self.observe(Event::Scale { deployment, target }, now);
        Ok(())
    }

    /// The newest revision, and the config of the one that is asked for or of the current one.
    ///
    /// # Errors
    /// When the store does not answer, or with what cannot be read.
    pub async fn config(&self, revision: Option<u64>) -> Result<Found, StoreError> {
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
    pub(super) async fn take_back_failed(&mut self, now: Now) -> bool {
        let mut any = false;
        for failed in self.world.failed_rollouts() {
            let application = failed.application.clone();
            match self.take_back(failed, now).await {
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

    async fn take_back(&mut self, failed: FailedRollout, now: Now) -> Result<(), TakeBack> {
        let FailedRollout {
            application,
            error,
            revision,
            mut spec,
        } = failed;
        let impossible = |why: &str| TakeBack::Impossible(why.to_owned());
        self.settle(now).await?;
        let base = self.config(None).await?.config;
        let base = base.ok_or_else(|| impossible("there is no current config"))?;
        let serving = self.world.serving.clone();
        let serving = serving.ok_or_else(|| impossible("nothing is served"))?;
        let now_s = now.unix_s;
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
        let spec = DeploySpec {
            serving,
            applications: vec![spec],
            revision: accepted.revision,
            scope: Scope::Only(application.clone()),
            goes_back: true,
        };
        let event = Event::Deploy(Box::new(spec));
        self.declare(&accepted, Some(&edited.stored), event, now)
            .await?;
        warn!(
            application,
            revision = accepted.revision,
            reason,
            "a rollout failed"
        );
        let what = "a failed rollout was taken back";
        self.decisions
            .happened(&application, what, &reason, now.unix_s);
        Ok(())
    }

    /// The history with a config as its newest; the same again keeps its revision.
    async fn acceptance(
        &self,
        config: &StoredConfig,
        reason: &str,
        end: &End,
    ) -> Result<Accepted, StoreError> {
        let history = self.executor.history();
        let before = self.config(None).await?.config;
        Ok(match history.current {
            Some(current) if before.is_some_and(|before| before.config == config.config) => {
                history.accept_again(current, config.deployed_time_s)
            }
            Some(_) | None => history.accept(config.deployed_time_s, reason, end),
        })
    }

    /// Stores a change of what is declared, and then makes it true.
    async fn declare(
        &mut self,
        accepted: &Accepted,
        config: Option<&StoredConfig>,
        event: Event,
        now: Now,
    ) -> Result<(), StoreError> {
        let stored = self.executor.accept(accepted, config).await;
        match &stored {
            Ok(()) => self.observe(event, now),
            Err(StoreError::Unknown(_) | StoreError::Conflict { .. }) => {
                let history = self.executor.with_digest(accepted, config);
                self.unsettled = Some(Unsettled { history, event });
            }
            Err(
                StoreError::Fenced
                | StoreError::Unavailable(_)
                | StoreError::Invalid(_)
                | StoreError::Corrupt(_),
            ) => {}
        }
        stored
    }

    /// Finds out what became of a change whose outcome the store did not tell. What is stored
    /// counts, whatever its user was told: another head would take it up as well.
    pub(super) async fn settle(&mut self, now: Now) -> Result<(), StoreError> {
        let Some(unsettled) = &self.unsettled else {
            return Ok(());
        };
        self.executor.settle().await?;
        let happened = *self.executor.history() == unsettled.history;
        warn!(happened, "the outcome of a change is known at last");
        if let Some(unsettled) = self.unsettled.take()
            && happened
        {
            self.observe(unsettled.event, now);
        }
        Ok(())
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
