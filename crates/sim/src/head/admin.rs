//! What the admin API of a head does with a change.

use mobula_head::simulation::{DeployError, End, Preparer, Proposal, ScaleError, StoredConfig};
use mobula_head::world::{DeploymentId, Now};
use mobula_spec::ServeConfig;
use mobula_store::StoreError;
use serde_json::Value;

use super::{Lead, ready};
use crate::app::registry;
use crate::cluster::Cluster;
use crate::sabotage::Sabotage;

impl Cluster {
    fn lead_at(&mut self, h: usize) -> Option<(&mut Lead, Now)> {
        let now = self.queue.now();
        let lead = self.heads[h].lead.as_mut()?;
        let seen_at = lead.now(now);
        Some((lead, seen_at))
    }

    pub fn head_deploy(&mut self, h: usize, document: &Value) -> Option<Result<u64, DeployError>> {
        let checked = match ServeConfig::from_json(document.to_string().as_bytes()) {
            Ok(checked) => checked,
            Err(errors) => {
                self.check
                    .violated("the_simulation_writes_configs", &errors.to_string());
                return None;
            }
        };
        let lies = self.breaks(Sabotage::StoreRefused) && self.rng.percent(20);
        let (lead, now) = self.lead_at(h)?;
        let outcome = propose(lead, now, &checked.config, End::Superseded, None);
        if lies && outcome.is_ok() {
            let refused = StoreError::Unavailable("on purpose".to_owned());
            return Some(Err(DeployError::Store(refused)));
        }
        Some(outcome)
    }

    pub fn head_delete(&mut self, h: usize) -> Option<Result<(), StoreError>> {
        let (lead, now) = self.lead_at(h)?;
        Some(ready(lead.control.delete_all(now)))
    }

    pub fn head_scale(
        &mut self,
        h: usize,
        application: &str,
        deployment: &str,
        target: u32,
    ) -> Option<Result<(), ScaleError>> {
        let (lead, now) = self.lead_at(h)?;
        let id = DeploymentId {
            application: application.to_owned(),
            deployment: deployment.to_owned(),
        };
        Some(ready(lead.control.scale(id, target, now)))
    }

    /// To the newest revision that ran.
    pub fn head_rollback(&mut self, h: usize) -> Option<Result<u64, DeployError>> {
        let (lead, now) = self.lead_at(h)?;
        let history = lead.control.executor.history().clone();
        let revision = history.good().next()?;
        let found = ready(lead.control.config(Some(revision))).ok()?.config?;
        let checked = ServeConfig::from_json(found.config.to_string().as_bytes()).ok()?;
        let expected = Some(history.version());
        Some(propose(
            lead,
            now,
            &checked.config,
            End::RolledBack,
            expected,
        ))
    }
}

fn propose(
    lead: &mut Lead,
    now: Now,
    config: &ServeConfig,
    end: End,
    expected: Option<u64>,
) -> Result<u64, DeployError> {
    let preparer = Preparer::on_this_thread(registry());
    let spec = ready(preparer.prepare(config, now.unix_s));
    let proposal = Proposal {
        config: StoredConfig::new(config.to_json(), now.unix_s),
        spec,
        reason: "simulated".to_owned(),
        end,
        expected,
    };
    ready(lead.control.deploy(proposal, now)).map(|deployed| deployed.revision)
}
