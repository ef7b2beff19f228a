//! One suite for every implementation of `StateStore`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use mobula_store::{
    EmbeddedStore, Expect, MemoryStore, StateStore, StoreError, TRANSACTION_OPERATIONS_MAX,
    Transaction, VALUE_BYTES_MAX,
};

/// Each store, and what must be kept alive beside it.
fn stores() -> Vec<(&'static str, Arc<dyn StateStore>, Option<tempfile::TempDir>)> {
    let dir = tempfile::tempdir().unwrap();
    let embedded = EmbeddedStore::open(&dir.path().join("state.redb")).unwrap();
    vec![
        ("memory", Arc::new(MemoryStore::default()), None),
        ("embedded", Arc::new(embedded), Some(dir)),
    ]
}

#[tokio::test]
async fn what_was_put_is_read_back_with_the_revision_that_wrote_it() {
    for (name, store, _dir) in stores() {
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
    for (name, store, _dir) in stores() {
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
    for (name, store, _dir) in stores() {
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
    for (name, store, _dir) in stores() {
        let revision = store
            .commit(Transaction::default().put("a", b"0"))
            .await
            .unwrap();
        let tries = (0..8u8).map(|n| {
            let store = Arc::clone(&store);
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
    for (name, store, _dir) in stores() {
        let large = Transaction::default().put("a", vec![0; VALUE_BYTES_MAX + 1]);
        let many = (0..=TRANSACTION_OPERATIONS_MAX)
            .fold(Transaction::default(), |t, n| t.put(n.to_string(), *b"x"));
        let no_key = Transaction::default().put("", *b"x");
        for (transaction, limit) in [(large, "1048576"), (many, "128"), (no_key, "1 to 1024")] {
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
