//! Which of two versions of the code gets a request, while they share the requests.

use super::{Affinity, Dice, Queue, ReplicaKey, Seq, Side, Wanted};

impl<T: Clone, W> Queue<T, W> {
    /// For which version a request is that comes now. What cannot be reached at the moment makes
    /// no difference: it may be back before the request starts.
    pub(super) fn draw(&self, dice: &mut Dice) -> Side {
        let percent = usize::try_from(self.limits.canary_percent).unwrap_or(0);
        if self.replicas.any_live(Side::Canary) && dice.below(100) < percent {
            Side::Canary
        } else {
            Side::Stable
        }
    }

    /// For which version a request is that a replica refused. One of the old version may have
    /// been at the canary only because nothing else could be reached.
    pub(super) fn side_of(&self, key: ReplicaKey) -> Side {
        if self.replicas.any_live(Side::Stable) {
            self.replicas.side_of(key)
        } else {
            Side::Stable
        }
    }

    /// The preferred replica of the version that a request is for, or the better of two; a free
    /// one of the old version rather than wait for the canary. And whether it has a slot.
    pub(super) fn choose(
        &self,
        side: Side,
        affinity: Option<Affinity>,
        dice: &mut Dice,
    ) -> Option<(ReplicaKey, bool)> {
        let own = self.choose_of(side, affinity, dice);
        if matches!(own, Some((_, true))) {
            return own;
        }
        match side {
            Side::Stable if self.replicas.any_live(Side::Stable) => own,
            Side::Stable => self.choose_of(Side::Canary, affinity, dice),
            Side::Canary => {
                let other = self.choose_of(Side::Stable, affinity, dice);
                match (own, other) {
                    (Some(_), Some((_, false))) => own,
                    _ => other.or(own),
                }
            }
        }
    }

    fn choose_of(
        &self,
        side: Side,
        affinity: Option<Affinity>,
        dice: &mut Dice,
    ) -> Option<(ReplicaKey, bool)> {
        let max = self.limits.ongoing_max;
        let preferred = affinity.and_then(|key| self.replicas.preferred(side, key, max));
        match preferred {
            Some(key) => Some((key, true)),
            None => self.replicas.choose(side, max, dice),
        }
    }

    /// The request that is next to take a slot of a version.
    pub(super) fn next_for(&self, side: Side) -> Option<Seq> {
        if side == Side::Canary && self.replicas.any_live(Side::Stable) {
            return match &self.order {
                None => self.for_canary.first().copied(),
                Some(order) => order.next(|seq| self.for_canary.contains(&seq)),
            };
        }
        match &self.order {
            None => self.waiting.first_key_value().map(|(seq, _)| *seq),
            Some(order) => order.next(|_| true),
        }
    }

    /// Whether a canary takes the place of another one, whose requests it must not inherit.
    pub(super) fn is_other_canary(&self, wanted: &[Wanted<T>]) -> bool {
        !self.for_canary.is_empty() && !self.replicas.any_stays_canary(wanted)
    }
}
