//! The loop of the provisioner: on every change of pods or demand it looks, decides, does, and
//! tells the head which pods go. It decides nothing itself.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use mobula_process::ids;
use mobula_process::repeats::Repeats;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::action::{Action, Planned};
use super::api::{CallError, ClusterApi};
use super::budget::budgets;
use super::generations::{Generations, is_the_templates};
use super::groups::Group;
use super::ledger::Ledger;
use super::manifest::{self, Owner};
use super::plan::plan;
use super::pods::{PodView, Pods};
use super::roll_call::RollCall;
use super::survey::Survey;
use super::trouble::trouble;
use super::verdicts::{self, Verdicts};
use super::watch::{NODES_PAUSE_MAX, PODS_PAUSE_MAX, Seen, follow};
use crate::provision::Notice;
use crate::world::supply::{Demand, Supply};

/// Looks at least this often: some decisions only need time to pass.
const TICK: Duration = Duration::from_secs(1);

/// The pause before the configuration of the client is tried again.
const CONNECT_PAUSE: Duration = Duration::from_secs(2);

/// The pause before a budget that could not be set is tried again.
const BUDGET_PAUSE: Duration = Duration::from_secs(5);

/// The pause before the owner is asked again to keep what was found of a roll-out; it may be that
/// the head has no right to that.
const VERDICTS_PAUSE: Duration = Duration::from_secs(30);

/// Of a pod's name: random characters at its end.
const NAME_SUFFIX_CHARS: usize = 5;

/// How long replicas of a pod that we take away ourselves are kept for replacements: there is no
/// hurry, but a place that never comes must not hold it for good.
const OWN_REPLACE_MS_MAX: u64 = 600_000;

/// What the loop works on.
pub struct Keeper {
    pub groups: Vec<Group>,
    pub cluster: String,
    pub namespace: Option<String>,
    pub demand: watch::Receiver<Demand>,
    pub notices: mpsc::Sender<Notice>,
}

/// What it holds once it has a client.
struct Shell {
    keeper: Keeper,
    api: ClusterApi,
    ledger: Ledger,
    generations: Generations,
    /// What the owner keeps of roll-outs that were ended; None: not read yet.
    kept: Option<Verdicts>,
    keep_after: Instant,
    /// The groups with the templates that are in force.
    groups: Vec<Group>,
    roll_call: RollCall,
    supply: Supply,
    /// Budgets as they were set, by group; a group that is missing was never set.
    budgets: BTreeMap<String, Option<u32>>,
    budgets_after: Instant,
    /// What was last said in an event, by group.
    warned: BTreeMap<String, String>,
    started: Instant,
}

// === impl Keeper ===

impl Keeper {
    /// Runs until nobody listens to its notices.
    pub async fn run(self) {
        let mut repeats = Repeats::default();
        let api = loop {
            match ClusterApi::connect(&self.cluster, self.namespace.as_deref()).await {
                Ok(api) => break api,
                Err(error) => {
                    if repeats.is_news("connect", &error.to_string(), Instant::now().into()) {
                        warn!(%error, "no access to Kubernetes, it is tried again");
                    }
                    let supply = Supply {
                        on_demand: true,
                        trouble: format!("Kubernetes: {error}"),
                        ..Supply::default()
                    };
                    // Nobody listens: the head ends.
                    let _ = self.notices.send(Notice::Supplied(supply)).await;
                }
            }
            tokio::time::sleep(CONNECT_PAUSE).await;
        };
        // Large, and made once.
        Box::pin(self.keep(api)).await;
    }

    /// Runs with access to Kubernetes until nobody listens to its notices.
    pub async fn keep(self, api: ClusterApi) {
        let (seen_in, seen) = watch::channel(Seen::default());
        let selector = format!("{}={}", manifest::CLUSTER_LABEL, self.cluster);
        let watching = follow(api.pods.clone(), selector, PODS_PAUSE_MAX, seen_in);
        // Without the right to read nodes, none counts as cordoned.
        let (nodes_in, nodes) = watch::channel(Seen::default());
        let watching_nodes = follow(api.nodes.clone(), String::new(), NODES_PAUSE_MAX, nodes_in);
        let shell = Shell {
            groups: self.groups.clone(),
            keeper: self,
            api,
            ledger: Ledger::default(),
            generations: Generations::default(),
            kept: None,
            keep_after: Instant::now(),
            roll_call: RollCall::default(),
            supply: Supply::default(),
            budgets: BTreeMap::new(),
            budgets_after: Instant::now(),
            warned: BTreeMap::new(),
            started: Instant::now(),
        };
        tokio::select! {
            () = watching => {}
            () = watching_nodes => {}
            () = shell.run(seen, nodes) => {}
        }
    }
}

// === impl Shell ===

impl Shell {
    async fn run(
        mut self,
        mut seen: watch::Receiver<Seen<PodView>>,
        mut nodes: watch::Receiver<Seen<bool>>,
    ) {
        while !self.keeper.notices.is_closed() {
            let mut now = seen.borrow_and_update().clone();
            mark_cordoned(&mut now.objects, &nodes.borrow_and_update().objects);
            let demand = self.keeper.demand.borrow_and_update().clone();
            self.pass(&now, &demand).await;
            self.ledger.looked(self.now_ms());
            tokio::select! {
                Ok(()) = seen.changed() => {}
                Ok(()) = nodes.changed() => {}
                Ok(()) = self.keeper.demand.changed() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    async fn pass(&mut self, seen: &Seen<PodView>, demand: &Demand) {
        let now_ms = self.now_ms();
        let stood_still = self.ledger.stood_still(now_ms);
        if !seen.synced || stood_still {
            // What goes is still true; nothing else is known.
            self.tell(seen, &Survey::default()).await;
            return;
        }
        if let Err(error) = self.recall().await {
            let mut seen = seen.clone();
            seen.trouble = format!("the owner of the pods, a ConfigMap: {error}");
            self.tell(&seen, &Survey::default()).await;
            return;
        }
        self.tell_gone(&seen.objects, demand, now_ms).await;
        if self.roll_call.is_doubtful(&seen.objects, now_ms) {
            self.tell(seen, &Survey::default()).await;
            return;
        }
        self.ledger.forget(&seen.objects, now_ms);
        self.learn(&seen.objects).await;
        // Twice: how long a pod has been like that decides how it counts.
        let first = Survey::of(&self.groups, &seen.objects, demand, &self.ledger, now_ms);
        self.ledger.follow(&first, &seen.objects, now_ms);
        self.judge(&seen.objects, demand, now_ms).await;
        self.keep_verdicts().await;
        let groups = &self.groups;
        let survey = Survey::of(groups, &seen.objects, demand, &self.ledger, now_ms);
        let planned = plan(groups, &seen.objects, demand, &self.ledger, &survey, now_ms);
        self.carry_out(&planned).await;
        self.tell(seen, &survey).await;
        if demand.synced {
            self.keep_budgets(&seen.objects, &survey, now_ms).await;
        }
    }

    /// Learns, once and before anything is made, which templates heads before have given up.
    async fn recall(&mut self) -> Result<(), CallError> {
        if self.kept.is_some() {
            return Ok(());
        }
        let kept = self.api.kept_verdicts().await?;
        let wanted = &self.keeper.groups;
        self.generations.recall(wanted, &kept);
        self.groups = self.generations.in_force(wanted);
        for (group, aborted) in self.generations.aborted() {
            info!(group, "found earlier: {aborted}");
        }
        self.kept = Some(kept);
        Ok(())
    }

    /// Has the owner keep what was found, before anything is done about it. A head that does not
    /// lead any more may still do so: it is true of the template, whoever leads.
    async fn keep_verdicts(&mut self) {
        let found = self.generations.verdicts();
        let Some(kept) = self.kept.as_ref().filter(|kept| **kept != found) else {
            return;
        };
        if Instant::now() < self.keep_after {
            return;
        }
        let changes = verdicts::changes(kept, &found);
        match self.api.keep_verdicts(&changes).await {
            Ok(()) => self.kept = Some(found),
            Err(error) => {
                warn!(%error, "what was found of a roll-out cannot be kept, it is tried again");
                self.keep_after = Instant::now() + VERDICTS_PAUSE;
            }
        }
    }

    /// Asks one pod of each earlier template what it was made from, once.
    async fn learn(&mut self, pods: &Pods) {
        self.generations.forget(pods);
        while let Some((uid, pod)) = self.generations.unknown(&self.keeper.groups, pods) {
            match self.api.carried_template(&pod.name, uid).await {
                Ok(carried) => self.generations.learn(pod, carried.as_deref()),
                Err(error) => {
                    // The next look asks again.
                    warn!(pod = pod.name, %error, "its template cannot be read");
                    return;
                }
            }
        }
    }

    /// Ends roll-outs that fail, and says so.
    async fn judge(&mut self, pods: &Pods, demand: &Demand, now_ms: u64) {
        let wanted = &self.keeper.groups;
        let ended = self
            .generations
            .judge(wanted, pods, demand, &self.ledger, now_ms);
        if ended.is_empty() {
            return;
        }
        self.groups = self.generations.in_force(wanted);
        for group in ended {
            let Some(aborted) = self.generations.aborted().get(&group) else {
                continue;
            };
            let note = format!("worker group {group}: {aborted}");
            warn!("{note}");
            let outcome = match self.api.owner().await {
                Ok(owner) => self.api.warn(&owner, "RolloutAborted", &note).await,
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                warn!(%error, "the event cannot be written");
            }
        }
    }

    async fn carry_out(&mut self, planned: &[Planned]) {
        let mut creations = Vec::new();
        let mut deletions = Vec::new();
        for step in planned {
            info!("{step}");
            match &step.action {
                Action::Create { group } => creations.push(group.as_str()),
                Action::Drain { uid, .. } => self.ledger.drain(uid),
                Action::Rest { uid, .. } => self.ledger.rest(uid),
                Action::Wake { uid, .. } => self.ledger.wake(uid, self.now_ms()),
                Action::Delete { uid, name } => {
                    self.ledger.deleting(uid, self.now_ms());
                    deletions.push((name, uid));
                }
            }
        }
        self.create(&creations).await;
        let calls = deletions
            .iter()
            .map(|(name, uid)| self.api.delete_pod(name, uid));
        for ((name, _), outcome) in deletions.iter().zip(join_all(calls).await) {
            if let Err(error) = outcome {
                warn!(pod = name, %error, "a pod cannot be deleted, it is tried again");
            }
        }
    }

    async fn create(&mut self, creations: &[&str]) {
        if creations.is_empty() {
            return;
        }
        // Asked each time: pods of an owner that was made anew would be collected at once.
        let owner = match self.api.owner().await {
            Ok(owner) => owner,
            Err(error) => {
                let reason = format!("the owner of the pods, a ConfigMap: {error}");
                let now_ms = self.now_ms();
                for group in creations {
                    self.ledger.refused("", group, reason.clone(), now_ms);
                }
                return;
            }
        };
        let named: Vec<(String, &Group)> = creations
            .iter()
            .filter_map(|name| self.groups.iter().find(|group| group.name == **name))
            .map(|group| (self.pod_name(group), group))
            .collect();
        let now_ms = self.now_ms();
        for (name, group) in &named {
            self.ledger.creating(name, &group.name, now_ms);
        }
        let calls = named.iter().map(|(name, group)| {
            let pod = manifest::pod(group, &self.keeper.cluster, &owner, name);
            self.api.create_pod(pod)
        });
        let outcomes = join_all(calls).await;
        let outcomes: Vec<(String, String, Result<(), CallError>)> = named
            .into_iter()
            .zip(outcomes)
            .map(|((name, group), outcome)| (name, group.name.clone(), outcome))
            .collect();
        let mut refused = BTreeMap::new();
        for (name, group, outcome) in outcomes {
            match outcome {
                Ok(()) => self.ledger.accepted(&group),
                Err(error) => {
                    // Without the name, the same trouble has the same words each time.
                    let reason = error.to_string().replace(&format!("\"{name}\" "), "");
                    refused.insert(group.clone(), (name, reason, error));
                }
            }
        }
        self.note_refusals(&owner, refused).await;
    }

    /// One refusal per group and plan, however many pods it was.
    async fn note_refusals(
        &mut self,
        owner: &Owner,
        refused: BTreeMap<String, (String, String, CallError)>,
    ) {
        let now_ms = self.now_ms();
        for (group, (name, reason, error)) in refused {
            warn!(group, reason, "no pod for the group");
            match error {
                // The namespace or the owner is gone.
                CallError::Refused(_) | CallError::NotFound(_) => {
                    self.ledger.refused(&name, &group, reason.clone(), now_ms);
                    if let Some(generation) = self
                        .generation(&group)
                        .filter(|_| is_the_templates(&reason))
                    {
                        self.ledger.failed(&group, &generation, reason.clone());
                    }
                }
                // It may exist: a call without an answer is repeated by the client.
                CallError::Away(_) | CallError::Conflict(_) => {
                    self.ledger.unanswered(&group, reason.clone(), now_ms)
                }
            }
            if self.warned.get(&group) != Some(&reason) {
                let note = format!("no pod for worker group {group}: {reason}");
                if let Err(error) = self.api.warn(owner, "PodRefused", &note).await {
                    warn!(%error, "the event cannot be written");
                }
                self.warned.insert(group, reason);
            }
        }
    }

    /// Tells the head, once, which pods are gone: their workers are not waited for.
    async fn tell_gone(&mut self, pods: &Pods, demand: &Demand, now_ms: u64) {
        for uid in self.roll_call.look(pods, demand, now_ms) {
            // Nobody listens: the head ends.
            let _ = self.keeper.notices.send(Notice::PodGone(uid)).await;
        }
    }

    /// Tells the head what goes and what is in the way, when that changed.
    async fn tell(&mut self, seen: &Seen<PodView>, survey: &Survey) {
        let grace_ms = |group: &str| {
            let group = self.groups.iter().find(|held| held.name == group);
            group.map_or(0, |group| group.template.grace_ms)
        };
        let leaving = seen.objects.iter().filter_map(|(uid, pod)| {
            if pod.terminating {
                // The other half is for the requests in flight.
                Some((uid.clone(), grace_ms(&pod.group) / 2))
            } else {
                let ours = self.ledger.is_draining(uid) || self.ledger.is_resting(uid);
                ours.then(|| (uid.clone(), OWN_REPLACE_MS_MAX))
            }
        });
        let releasable = seen.objects.iter().filter(|(_, pod)| {
            let mut groups = self.keeper.groups.iter();
            groups.any(|group| group.name == pod.group && survey.count(&group.name) > group.min)
        });
        let supply = Supply {
            on_demand: true,
            leaving: leaving.collect(),
            resting: self.ledger.resting().clone(),
            releasable: releasable.map(|(uid, _)| uid.clone()).collect(),
            trouble: trouble(
                &seen.trouble,
                &self.ledger,
                &self.generations,
                survey,
                &seen.objects,
            ),
        };
        if supply != self.supply {
            self.supply.clone_from(&supply);
            let _ = self.keeper.notices.send(Notice::Supplied(supply)).await;
        }
    }

    async fn keep_budgets(&mut self, pods: &Pods, survey: &Survey, now_ms: u64) {
        if Instant::now() < self.budgets_after {
            return;
        }
        let wanted = budgets(&self.groups, pods, &self.ledger, survey, now_ms);
        let changed: Vec<(String, Option<u32>)> = self
            .keeper
            .groups
            .iter()
            .map(|group| (group.name.clone(), wanted.get(&group.name).copied()))
            .filter(|(group, wanted)| self.budgets.get(group) != Some(wanted))
            .collect();
        if changed.is_empty() {
            return;
        }
        let outcome = self.set_budgets(changed).await;
        if let Err(error) = outcome {
            warn!(%error, "a disruption budget cannot be set, it is tried again");
            self.budgets_after = Instant::now() + BUDGET_PAUSE;
        }
    }

    async fn set_budgets(&mut self, changed: Vec<(String, Option<u32>)>) -> Result<(), CallError> {
        let owner = self.api.owner().await?;
        for (group, wanted) in changed {
            self.api.set_budget(&group, &owner, wanted).await?;
            self.budgets.insert(group, wanted);
        }
        Ok(())
    }

    fn generation(&self, group: &str) -> Option<String> {
        let held = self.groups.iter().find(|held| held.name == group);
        held.map(|held| held.template.generation.clone())
    }

    fn pod_name(&self, group: &Group) -> String {
        let random = ids::replica_id();
        let suffix = &random[..NAME_SUFFIX_CHARS];
        format!("{}-{}-{suffix}", self.keeper.cluster, group.name)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn mark_cordoned(pods: &mut Pods, nodes: &BTreeMap<String, bool>) {
    for pod in pods.values_mut() {
        pod.cordoned = nodes.get(&pod.node).copied().unwrap_or(false);
    }
}
