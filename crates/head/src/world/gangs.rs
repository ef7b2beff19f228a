//! Which replicas stand and fall together: those of a gang; any other alone.

use std::collections::BTreeMap;

use super::health::{is_out_of_reach, is_to_be_replaced, leaving_worker};
use super::intent::{Deployment, Phase, Replica};
use super::observed::Worker;
use super::{ReplicaId, World};

/// A replica and its id.
pub type Pair<'a> = (&'a ReplicaId, &'a Replica);

/// A gang, or what is left of it, or one replica that is of none. Never empty.
#[derive(Clone, Debug)]
pub struct Together<'a> {
    pub members: Vec<Pair<'a>>,
}

/// Groups replicas by gang, in the order of their first members.
pub fn together<'a>(replicas: impl IntoIterator<Item = Pair<'a>>) -> Vec<Together<'a>> {
    let mut all: Vec<Together<'a>> = Vec::new();
    let mut gangs: BTreeMap<&str, usize> = BTreeMap::new();
    for pair in replicas {
        let known = pair.1.gang.as_ref().map(|gang| gang.id.as_str());
        match known.and_then(|id| gangs.get(id)) {
            Some(index) => all[*index].members.push(pair),
            None => {
                if let Some(id) = known {
                    gangs.insert(id, all.len());
                }
                let members = vec![pair];
                all.push(Together { members });
            }
        }
    }
    all
}

// === impl Together ===

impl<'a> Together<'a> {
    /// Its members without their ids.
    pub fn replicas(&self) -> impl Iterator<Item = &'a Replica> {
        self.members.iter().map(|(_, replica)| *replica)
    }

    /// Of how many members the gang is, if some are missing.
    pub fn is_broken(&self) -> Option<u32> {
        let gang = self.members.first()?.1.gang.as_ref()?;
        (self.members.len() < gang.size as usize).then_some(gang.size)
    }

    pub fn answering(&self) -> usize {
        let answering = self.replicas().filter(|r| r.phase.is_answering());
        answering.count()
    }

    pub fn is_out_of_reach(&self, world: &World) -> bool {
        self.replicas().any(|r| is_out_of_reach(world, r))
    }

    pub fn is_to_be_replaced(&self, world: &World, deployment: &Deployment) -> bool {
        self.members
            .iter()
            .any(|(id, replica)| is_to_be_replaced(world, deployment, id, replica))
    }

    pub fn is_current(&self, deployment: &Deployment) -> bool {
        self.replicas().all(|r| deployment.is_current(r))
    }

    /// A worker that one of them needs and that leaves, if there is one.
    pub fn leaving_worker<'w>(&self, world: &'w World) -> Option<&'w Worker> {
        self.replicas().find_map(|r| leaving_worker(world, r))
    }

    /// The smallest goes first: not ready, then not well, then on a leaving worker, then the
    /// newest.
    pub fn order_of_leaving(&self, world: &World) -> (bool, bool, bool, std::cmp::Reverse<u64>) {
        (
            self.replicas().all(|r| r.phase.is_answering()),
            self.replicas().all(|r| r.phase != Phase::Unhealthy),
            self.leaving_worker(world).is_none(),
            std::cmp::Reverse(self.replicas().map(|r| r.serial).max().unwrap_or(0)),
        )
    }
}
