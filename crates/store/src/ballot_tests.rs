//! Any sequence of campaigns, renewals, resignations and pauses.

use std::time::Duration;

use proptest::prelude::*;

use super::Ballot;
use crate::election::Candidate;

const LEASE: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
enum Step {
    Campaign(usize),
    Renew(usize),
    Resign(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3usize).prop_map(Step::Campaign),
        (0..3usize).prop_map(Step::Renew),
        (0..3usize).prop_map(Step::Resign),
        (1..150u64).prop_map(Step::Wait),
    ]
}

fn candidate(n: usize) -> Candidate {
    Candidate {
        name: format!("head-{n}"),
        address: "127.0.0.1:1".to_owned(),
    }
}

proptest! {
    #[test]
    fn at_most_one_leads_and_a_deposed_leader_never_holds_again(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let mut ballot = Ballot::default();
        let mut now = Duration::ZERO;
        let mut held = [0u64; 3]; // the newest leadership of each candidate
        let mut renewed_at = Duration::ZERO;
        let mut newest = 0;
        for step in steps {
            match step {
                Step::Campaign(n) => match ballot.campaign(&candidate(n), now, LEASE) {
                    Ok(leader) => {
                        prop_assert!(leader.revision > newest);
                        newest = leader.revision;
                        held[n] = newest;
                        renewed_at = now;
                    }
                    Err(until) => prop_assert!(until > now),
                },
                Step::Renew(n) => {
                    let alive = ballot.renew(held[n], now, LEASE);
                    prop_assert!(!alive || now < renewed_at + LEASE);
                    if alive {
                        renewed_at = now;
                    }
                }
                Step::Resign(n) => ballot.resign(held[n]),
                Step::Wait(millis) => now += Duration::from_millis(millis),
            }
            let holding = held.iter().filter(|revision| ballot.holds(**revision, now));
            prop_assert!(holding.clone().count() <= 1);
            prop_assert!(holding.clone().all(|revision| *revision == newest));
            prop_assert_eq!(holding.count() == 1, ballot.leader(now).is_some());
        }
    }
}
