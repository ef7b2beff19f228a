//! Three members of etcd, one killed and started again under constant writes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mobula_store::{
    Candidate, Change, Election, EtcdConfig, EtcdStore, StateStore, StoreError, Transaction, Watch,
    WatchEvent,
};
use support::etcd::{Etcd, Setup, connect};
use support::{PATIENCE, next};
use tokio::time::{sleep, timeout};

const WRITERS: u64 = 4;

/// What a writer knows of its writes.
#[derive(Default)]
struct Written {
    acknowledged: Vec<String>,
    unknown: Vec<String>,
}

/// Each write has a key of its own, so that nothing hides what happened to it.
async fn write_until(
    store: Arc<EtcdStore>,
    writer: u64,
    stop: Arc<AtomicBool>,
    progress: Arc<AtomicU64>,
) -> Written {
    let mut written = Written::default();
    for n in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("log/{writer}/{n:06}");
        match store
            .commit(Transaction::default().put(&key, key.as_str()))
            .await
        {
            Ok(_) => {
                written.acknowledged.push(key);
                progress.fetch_add(1, Ordering::Relaxed);
            }
            Err(StoreError::Unknown(_)) => written.unknown.push(key),
            Err(StoreError::Unavailable(_)) => {
                // Surely not executed: it must not be there in the end.
                let there = store.get(&key).await;
                assert!(matches!(there, Ok(None) | Err(_)), "{there:?}");
            }
            Err(error) => panic!("{error}"),
        }
    }
    written
}

async fn after_more_writes(progress: &AtomicU64) {
    let goal = progress.load(Ordering::Relaxed) + 100;
    timeout(PATIENCE, async {
        while progress.load(Ordering::Relaxed) < goal {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("writes do not go on");
}

// 3.4: etcd 3.5.0 to 3.5.2 can themselves lose writes when they are killed under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_each_member_killed_in_turn_no_acknowledged_write_is_lost_and_reads_go_on() {
    let mut members = Etcd::start_three(Setup::version(Some("3.4.23"))).await;
    let urls: Vec<_> = members.iter().map(|member| member.url.clone()).collect();
    let store = Arc::new(connect(EtcdConfig::plain(urls, "c")).await);
    let leading = store
        .campaign(Candidate {
            name: "head".to_owned(),
            address: "127.0.0.1:8265".to_owned(),
        })
        .await
        .unwrap();
    let mut changes = store.watch("log/", 1).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let progress = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| {
            let (stop, progress) = (Arc::clone(&stop), Arc::clone(&progress));
            tokio::spawn(write_until(Arc::clone(&store), n, stop, progress))
        })
        .collect();

    // One of the three is etcd's own leader.
    for victim in &mut members {
        after_more_writes(&progress).await;
        victim.kill();
        // Linearizable, and within one call: the client passes over the dead member.
        let first = timeout(PATIENCE, async {
            loop {
                match store.get("log/0/000000").await {
                    Ok(found) => return found,
                    Err(StoreError::Unavailable(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        assert!(first.await.unwrap().is_some());
        after_more_writes(&progress).await;
        victim.start_again();
        after_more_writes(&progress).await;
    }
    stop.store(true, Ordering::Relaxed);

    let mut written = Written::default();
    for writer in writers {
        let one = timeout(PATIENCE, writer).await.unwrap().unwrap();
        written.acknowledged.extend(one.acknowledged);
        written.unknown.extend(one.unknown);
    }
    let end = store
        .commit(Transaction::default().put("log/end", ""))
        .await
        .unwrap();
    let stored: BTreeMap<_, _> = store.list("log/").await.unwrap().into_iter().collect();
    for key in &written.acknowledged {
        let there = stored.get(key).map(|there| there.value.as_slice());
        assert_eq!(there, Some(key.as_bytes()), "an acknowledged write is lost");
    }
    let known = |key: &String| {
        written.acknowledged.contains(key) || written.unknown.contains(key) || key == "log/end"
    };
    assert!(
        stored.keys().all(known),
        "something is there that was never written"
    );

    // The watch told the same, each once, through all of it.
    let mut told = BTreeMap::new();
    let mut newest = 0;
    while newest < end {
        let WatchEvent::Changed { revision, changes } = next(&mut changes).await.unwrap() else {
            panic!("nothing was compacted");
        };
        assert!(revision > newest);
        newest = revision;
        for change in changes {
            let Change::Put { key, .. } = change else {
                panic!("nothing was deleted: {change:?}");
            };
            assert_eq!(told.insert(key, revision), None, "told twice");
        }
    }
    let stored: BTreeMap<_, _> = stored.into_iter().map(|(k, v)| (k, v.revision)).collect();
    assert_eq!(told, stored);
    assert!(!leading.is_lost(), "a member's death cost the leadership");
    println!(
        "{} acknowledged, {} unknown",
        written.acknowledged.len(),
        written.unknown.len()
    );
}
