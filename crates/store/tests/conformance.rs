//! One suite for every implementation of `StateStore`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;

use mobula_store::{
    Change, EmbeddedStore, Expect, HISTORY_REVISIONS_MAX, MemoryStore, StateStore, StoreError,
    TRANSACTION_BYTES_MAX, TRANSACTION_OPERATIONS_MAX, Transaction, VALUE_BYTES_MAX, Watch,
    WatchEvent,
};
use support::{Subject, next, subjects};

#[tokio::test]
async fn what_was_put_is_read_back_with_the_revision_that_wrote_it() {
    for subject in subjects().await {
        let (name, store) = (subject.name, &subject.state);
        assert_eq!(store.get("a").await.unwrap(), None, "{name}");
        assert!(store.list("").await.unwrap().is_empty(), "{name}");
        let first = store
            .commit(Transaction::default().put("a", b"1"))
            .await
            .unwrap();
        let second = store
            .commit(Transaction::default().put("b", b"2"))
            .await
            .unwrap();
        assert!(second > first, "{name}");
        let read = store.get("a").await.unwrap().unwrap();
        assert_eq!(
            (read.value.as_slice(), read.revision),
            (&b"1"[..], first),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_prefix_lists_its_keys_in_order_and_no_others() {
    for subject in subjects().await {
        let (name, store) = (subject.name, &subject.state);
        let keys = ["serve/b", "serve/a", "serv", "serve0", "other"];
        let all = keys
            .iter()
            .fold(Transaction::default(), |t, key| t.put(*key, *b"x"));
        store.commit(all).await.unwrap();
        let listed = store.list("serve/").await.unwrap();
        let names: Vec<_> = listed.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(names, ["serve/a", "serve/b"], "{name}");
    }
}

#[tokio::test]
async fn a_failed_check_writes_nothing_at_all() {
    for subject in subjects().await {
        let (name, store) = (subject.name, &subject.state);
        let revision = store
            .commit(Transaction::default().put("a", b"1"))
            .await
            .unwrap();
        let stale = Transaction::default()
            .check("a", Expect::Revision(revision + 7))
            .put("a", b"2")
            .put("new", b"2");
        let refused = store.commit(stale).await;
        assert!(
            matches!(refused, Err(StoreError::Conflict { key }) if key == "a"),
            "{name}"
        );
        assert_eq!(store.get("a").await.unwrap().unwrap().value, b"1", "{name}");
        assert_eq!(store.get("new").await.unwrap(), None, "{name}");
        let fits = Transaction::default()
            .check("a", Expect::Revision(revision))
            .check("new", Expect::Absent)
            .delete("a")
            .put("new", b"2");
        store.commit(fits).await.unwrap();
        assert_eq!(store.get("a").await.unwrap(), None, "{name}");
        assert_eq!(
            store.get("new").await.unwrap().unwrap().value,
            b"2",
            "{name}"
        );
    }
}

#[tokio::test]
async fn of_concurrent_updates_of_one_revision_exactly_one_wins() {
    for subject in subjects().await {
        let (name, store) = (subject.name, &subject.state);
        let revision = store
            .commit(Transaction::default().put("a", b"0"))
            .await
            .unwrap();
        let tries = (0..8u8).map(|n| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                let update = Transaction::default().check("a", Expect::Revision(revision));
                store.commit(update.put("a", vec![n])).await.is_ok()
            })
        });
        let mut won = 0;
        for attempt in tries.collect::<Vec<_>>() {
            won += usize::from(attempt.await.unwrap());
        }
        assert_eq!(won, 1, "{name}");
    }
}

#[tokio::test]
async fn what_is_over_a_limit_is_refused_with_the_limit_in_the_message() {
    for subject in subjects().await {
        let (name, store) = (subject.name, &subject.state);
        let large = Transaction::default().put("a", vec![0; VALUE_BYTES_MAX + 1]);
        let many = (0..=TRANSACTION_OPERATIONS_MAX)
            .fold(Transaction::default(), |t, n| t.put(n.to_string(), *b"x"));
        let no_key = Transaction::default().put("", *b"x");
        let half = vec![0; TRANSACTION_BYTES_MAX / 2];
        let heavy = Transaction::default().put("a", half.clone()).put("b", half);
        for (transaction, limit) in [
            (large, "1048576"),
            (heavy, "1310720"),
            (many, "128"),
            (no_key, "1 to 1024"),
        ] {
            let error = store.commit(transaction).await.unwrap_err();
            assert!(matches!(error, StoreError::Invalid(_)), "{name}: {error}");
            assert!(error.to_string().contains(limit), "{name}: {error}");
        }
        assert!(store.list("").await.unwrap().is_empty(), "{name}");
    }
}

#[tokio::test]
async fn the_embedded_store_remembers_and_is_opened_by_one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    let revision = store
        .commit(Transaction::default().put("a", b"1"))
        .await
        .unwrap();
    let second = EmbeddedStore::open(&path).err().unwrap().to_string();
    assert!(second.contains("in use by another process"), "{second}");
    drop(store);
    let reopened = EmbeddedStore::open(&path).unwrap();
    assert_eq!(reopened.get("a").await.unwrap().unwrap().revision, revision);
    assert!(
        reopened
            .commit(Transaction::default().put("b", b"2"))
            .await
            .unwrap()
            > revision
    );
}

#[tokio::test]
async fn the_largest_values_and_the_most_operations_are_accepted_and_listed() {
    for subject in subjects().await {
        let (name, store) = (subject.name, &subject.state);
        for n in 0..3u8 {
            let large = vec![n; VALUE_BYTES_MAX];
            let put = Transaction::default().put(format!("large/{n}"), large);
            store.commit(put).await.unwrap();
        }
        let listed = store.list("large/").await.unwrap();
        assert_eq!(listed.len(), 3, "{name}");
        for (n, (_, versioned)) in (0u8..).zip(&listed) {
            assert!(versioned.value.iter().all(|byte| *byte == n), "{name}");
        }
        let half = TRANSACTION_OPERATIONS_MAX / 2;
        let many = (0..half).fold(Transaction::default(), |t, n| {
            t.check(format!("many/{n:03}"), Expect::Absent)
                .put(format!("many/{n:03}"), n.to_string())
        });
        store.commit(many).await.unwrap();
        let listed = store.list("many/").await.unwrap();
        let values: Vec<_> = listed.into_iter().map(|(_, v)| v.value).collect();
        let expected: Vec<_> = (0..half).map(|n| n.to_string().into_bytes()).collect();
        assert_eq!(values, expected, "{name}");
    }
}

#[tokio::test]
async fn the_last_write_of_a_key_in_a_transaction_counts_and_is_told_once() {
    for subject in subjects().await {
        let (name, store) = (subject.name, &subject.state);
        let twice = Transaction::default()
            .put("a", b"1")
            .delete("a")
            .put("a", b"3");
        let revision = store.commit(twice).await.unwrap();
        assert_eq!(store.get("a").await.unwrap().unwrap().value, b"3", "{name}");
        let mut changes = subject.watch.watch("", revision).await.unwrap();
        let expected = changed(revision, &[("a", Some("3"))]);
        assert_eq!(next(&mut changes).await.unwrap(), expected, "{name}");
    }
}

#[tokio::test]
async fn a_watch_tells_each_change_below_its_prefix_once_and_in_order() {
    for subject in subjects().await {
        let (name, store) = (subject.name, &subject.state);
        let before = put(&subject, "serve/before", "0").await;
        let mut changes = subject.watch.watch("serve/", before + 1).await.unwrap();
        let first = put(&subject, "serve/a", "1").await;
        put(&subject, "other", "x").await;
        let both = Transaction::default().put("serve/b", "2").delete("serve/a");
        let second = store.commit(both.put("other", "y")).await.unwrap();
        let nothing = Transaction::default().delete("serve/never-there");
        store.commit(nothing).await.unwrap();
        let third = put(&subject, "serve/b", "3").await;
        for expected in [
            changed(first, &[("serve/a", Some("1"))]),
            changed(second, &[("serve/a", None), ("serve/b", Some("2"))]),
            changed(third, &[("serve/b", Some("3"))]),
        ] {
            let told = sorted(next(&mut changes).await.unwrap());
            assert_eq!(told, expected, "{name}");
        }
    }
}

#[tokio::test]
async fn a_watch_from_revision_0_begins_with_all_there_is() {
    for subject in subjects().await {
        let name = subject.name;
        put(&subject, "serve/a", "1").await;
        let newest = put(&subject, "serve/b", "2").await;
        let mut changes = subject.watch.watch("serve/", 0).await.unwrap();
        let listed = subject.state.list("serve/").await.unwrap();
        let expected = WatchEvent::Relisted {
            revision: newest,
            values: listed,
        };
        assert_eq!(next(&mut changes).await.unwrap(), expected, "{name}");
        let later = put(&subject, "serve/a", "3").await;
        let expected = changed(later, &[("serve/a", Some("3"))]);
        assert_eq!(next(&mut changes).await.unwrap(), expected, "{name}");
    }
}

#[tokio::test]
async fn a_watch_taken_up_again_and_again_under_writes_loses_and_repeats_nothing() {
    const WRITES: u64 = 60;
    for subject in subjects().await {
        let store = Arc::clone(&subject.state);
        let start = put(&subject, "log/start", "").await;
        let writer = tokio::spawn(async move {
            let mut revisions = Vec::new();
            for n in 0..WRITES {
                let write = Transaction::default().put(format!("log/{}", n % 7), n.to_string());
                revisions.push((store.commit(write).await.unwrap(), n.to_string()));
            }
            revisions
        });
        let mut told = Vec::new();
        let mut from = start + 1;
        while told.len() < WRITES as usize {
            let mut changes = subject.watch.watch("log/", from).await.unwrap();
            for _ in 0..(WRITES as usize - told.len()).min(7) {
                let WatchEvent::Changed { revision, changes } = next(&mut changes).await.unwrap()
                else {
                    panic!("{}: relisted", subject.name);
                };
                let [Change::Put { value, .. }] = &changes[..] else {
                    panic!("{}: {changes:?}", subject.name);
                };
                told.push((revision, String::from_utf8(value.clone()).unwrap()));
                from = revision + 1;
            }
        }
        assert_eq!(told, writer.await.unwrap(), "{}", subject.name);
    }
}

#[tokio::test]
async fn a_watcher_that_falls_behind_what_memory_remembers_is_given_everything_anew() {
    let store = MemoryStore::default();
    let mut changes = store.watch("", 1).await.unwrap();
    let mut newest = 0;
    for n in 0..=HISTORY_REVISIONS_MAX {
        let write = Transaction::default().put((n % 3).to_string(), n.to_string());
        newest = store.commit(write).await.unwrap();
    }
    let expected = WatchEvent::Relisted {
        revision: newest,
        values: store.list("").await.unwrap(),
    };
    assert_eq!(next(&mut changes).await.unwrap(), expected);
    let later = store
        .commit(Transaction::default().delete("0"))
        .await
        .unwrap();
    assert_eq!(
        next(&mut changes).await.unwrap(),
        changed(later, &[("0", None)])
    );
}

#[tokio::test]
async fn an_embedded_store_opened_again_relists_for_an_old_revision() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    let put = Transaction::default().put("a", "1");
    let revision = store.commit(put).await.unwrap();
    drop(store);
    let store = EmbeddedStore::open(&path).unwrap();
    let expected = WatchEvent::Relisted {
        revision,
        values: store.list("").await.unwrap(),
    };
    let mut old = store.watch("", revision).await.unwrap();
    assert_eq!(next(&mut old).await.unwrap(), expected);
    let mut new = store.watch("", revision + 1).await.unwrap();
    let put = Transaction::default().put("a", "2");
    let later = store.commit(put).await.unwrap();
    let expected = changed(later, &[("a", Some("2"))]);
    assert_eq!(next(&mut old).await.unwrap(), expected);
    assert_eq!(next(&mut new).await.unwrap(), expected);
}

async fn put(subject: &Subject, key: &str, value: &str) -> u64 {
    let put = Transaction::default().put(key, value);
    subject.state.commit(put).await.unwrap()
}

fn changed(revision: u64, changes: &[(&str, Option<&str>)]) -> WatchEvent {
    let changes = changes.iter().map(|(key, value)| match value {
        Some(value) => Change::Put {
            key: (*key).to_owned(),
            value: value.as_bytes().to_vec(),
        },
        None => Change::Delete {
            key: (*key).to_owned(),
        },
    });
    WatchEvent::Changed {
        revision,
        changes: changes.collect(),
    }
}

/// Within one revision the order means nothing.
fn sorted(event: WatchEvent) -> WatchEvent {
    match event {
        WatchEvent::Changed {
            revision,
            mut changes,
        } => {
            changes.sort_by(|a, b| a.key().cmp(b.key()));
            WatchEvent::Changed { revision, changes }
        }
        relisted @ WatchEvent::Relisted { .. } => relisted,
    }
}
