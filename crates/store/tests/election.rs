//! One suite for every implementation of `Election`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use mobula_store::{
    CANDIDATE_BYTES_MAX, Candidate, Election, MemoryStore, StateStore, StoreError, Transaction,
};
use support::{PATIENCE, next, subjects};
use tokio::time::{Instant, timeout};

fn candidate(name: &str) -> Candidate {
    Candidate {
        name: name.to_owned(),
        address: "127.0.0.1:8265".to_owned(),
    }
}

#[tokio::test]
async fn one_leads_until_it_resigns_and_the_next_one_leads_at_once() {
    for subject in subjects().await {
        let name = subject.name;
        assert_eq!(subject.election.leader().await.unwrap(), None, "{name}");
        let first = subject.election.campaign(candidate("a")).await.unwrap();
        let leader = subject.election.leader().await.unwrap().unwrap();
        assert_eq!(leader.candidate, candidate("a"), "{name}");
        assert_eq!(leader.revision, first.fence().revision(), "{name}");

        let election = Arc::clone(&subject.election);
        let mut second = tokio::spawn(async move { election.campaign(candidate("b")).await });
        // Long enough for a campaign that does not wait to have won.
        let early = timeout(Duration::from_millis(500), &mut second).await;
        assert!(early.is_err(), "{name}: two lead");
        assert!(!first.is_lost(), "{name}");

        let lost = first.lost();
        let resigned_at = Instant::now();
        first.resign().await.unwrap();
        assert!(lost.is_cancelled(), "{name}");
        let second = timeout(PATIENCE, second).await.unwrap().unwrap().unwrap();
        let waited = resigned_at.elapsed();
        // A lease of five seconds did not have to run out.
        assert!(waited < Duration::from_secs(4), "{name}: {waited:?}");
        let leader = subject.election.leader().await.unwrap().unwrap();
        assert_eq!(leader.candidate, candidate("b"), "{name}");
        assert!(second.fence().revision() > 0 && !second.is_lost(), "{name}");
    }
}

#[tokio::test]
async fn a_write_is_executed_only_while_its_fence_holds() {
    for subject in subjects().await {
        let (name, store) = (subject.name, &subject.state);
        let first = subject.election.campaign(candidate("a")).await.unwrap();
        let old = first.fence().clone();
        let put = Transaction::default().put("a", "1").fenced_by(&old);
        store.commit(put).await.unwrap();
        first.resign().await.unwrap();

        let late = Transaction::default().put("a", "late").fenced_by(&old);
        let error = store.commit(late.clone()).await.unwrap_err();
        assert!(matches!(error, StoreError::Fenced), "{name}: {error}");
        let second = subject.election.campaign(candidate("b")).await.unwrap();
        assert!(second.fence().revision() > old.revision(), "{name}");
        let error = store.commit(late).await.unwrap_err();
        assert!(matches!(error, StoreError::Fenced), "{name}: {error}");
        assert_eq!(store.get("a").await.unwrap().unwrap().value, b"1", "{name}");

        let put = Transaction::default().put("a", "2");
        store.commit(put.fenced_by(second.fence())).await.unwrap();
        assert_eq!(store.get("a").await.unwrap().unwrap().value, b"2", "{name}");
    }
}

#[tokio::test]
async fn a_fence_that_holds_leaves_a_conflict_a_conflict() {
    for subject in subjects().await {
        let (name, store) = (subject.name, &subject.state);
        let leading = subject.election.campaign(candidate("a")).await.unwrap();
        let stale = Transaction::default()
            .check("other", mobula_store::Expect::Absent)
            .check("a", mobula_store::Expect::Revision(7))
            .put("a", "1")
            .fenced_by(leading.fence());
        let error = store.commit(stale).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Conflict { key } if key == "a"),
            "{name}: {error}"
        );
    }
}

#[tokio::test]
async fn everybody_is_told_who_leads_and_the_state_is_not_mixed_with_it() {
    for subject in subjects().await {
        let name = subject.name;
        let mut leaders = subject.election.watch_leader().await.unwrap();
        assert_eq!(next(&mut leaders).await.unwrap(), None, "{name}");
        for who in ["a", "b"] {
            let leading = subject.election.campaign(candidate(who)).await.unwrap();
            let told = next(&mut leaders).await.unwrap().unwrap();
            assert_eq!(told.candidate, candidate(who), "{name}");
            assert_eq!(told.revision, leading.fence().revision(), "{name}");
            assert!(subject.state.list("").await.unwrap().is_empty(), "{name}");
            drop(leading); // resigns as well
            assert_eq!(next(&mut leaders).await.unwrap(), None, "{name}");
        }
    }
}

#[tokio::test]
async fn of_many_candidates_each_leads_alone_and_all_lead_in_turn() {
    const CANDIDATES: usize = 5;
    for subject in subjects().await {
        let turns = (0..CANDIDATES).map(|n| {
            let (election, state) = (Arc::clone(&subject.election), Arc::clone(&subject.state));
            tokio::spawn(async move {
                let leading = election.campaign(candidate(&format!("{n}"))).await.unwrap();
                // Not an atomic update: two leaders at once would lose one.
                let read = state.get("turns").await.unwrap();
                let turns = read.map_or(0, |read| read.value[0]);
                let put = Transaction::default().put("turns", [turns + 1]);
                state.commit(put.fenced_by(leading.fence())).await.unwrap();
                leading.resign().await.unwrap();
            })
        });
        for turn in turns.collect::<Vec<_>>() {
            timeout(PATIENCE, turn).await.unwrap().unwrap();
        }
        let turns = subject.state.get("turns").await.unwrap().unwrap();
        assert_eq!(turns.value, [CANDIDATES as u8], "{}", subject.name);
    }
}

#[tokio::test]
async fn a_candidate_that_cannot_be_stored_is_refused() {
    for subject in subjects().await {
        for name in ["", "two\nlines", &"x".repeat(CANDIDATE_BYTES_MAX + 1)] {
            let refused = subject.election.campaign(candidate(name)).await.err();
            let refused = refused.unwrap();
            assert!(matches!(refused, StoreError::Invalid(_)), "{refused}");
            assert!(refused.to_string().contains("name"), "{refused}");
        }
    }
}

/// On tokio's paused clock, which moves only when everything waits.
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_knows_it_before_the_next_one_leads() {
    let lease = Duration::from_secs(5);
    let store = MemoryStore::with_lease(lease);
    let other = store.handle();
    let first = store.campaign(candidate("a")).await.unwrap();
    tokio::time::sleep(lease * 10).await; // renewed all the while
    assert!(!first.is_lost());

    let cut_off_at = Instant::now();
    store.cut_off(true);
    let second = tokio::spawn(async move { (other.campaign(candidate("b")).await, other) });
    first.lost().cancelled().await;
    let lost_after = cut_off_at.elapsed();
    assert!(!second.is_finished());
    let (second, other) = second.await.unwrap();
    let second = second.unwrap();
    assert!(lost_after < cut_off_at.elapsed());
    assert!(cut_off_at.elapsed() <= lease, "{:?}", cut_off_at.elapsed());

    store.cut_off(false);
    let late = Transaction::default().put("a", "late");
    let error = store.commit(late.fenced_by(first.fence())).await;
    assert!(matches!(error, Err(StoreError::Fenced)));
    let put = Transaction::default().put("a", "2");
    other.commit(put.fenced_by(second.fence())).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_short_interruption_costs_no_leadership() {
    let lease = Duration::from_secs(5);
    let store = MemoryStore::with_lease(lease);
    let leading = store.campaign(candidate("a")).await.unwrap();
    for _ in 0..10 {
        store.cut_off(true);
        tokio::time::sleep(lease / 3).await;
        store.cut_off(false);
        tokio::time::sleep(lease / 3).await;
    }
    assert!(!leading.is_lost());
    let put = Transaction::default().put("a", "1");
    store.commit(put.fenced_by(leading.fence())).await.unwrap();
}
