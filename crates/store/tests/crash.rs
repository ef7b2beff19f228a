//! kill -9 at any moment loses nothing that was acknowledged.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use mobula_store::{EmbeddedStore, StateStore, Transaction};

const CHILD_PATH: &str = "MOBULA_STORE_CRASH_TEST_PATH";
const ROUNDS: usize = 12;

/// Not a test of its own: the process that is killed. It writes and says what was acknowledged.
#[tokio::test]
async fn writer_process() {
    let Ok(path) = std::env::var(CHILD_PATH) else {
        return;
    };
    let store = EmbeddedStore::open(path.as_ref()).unwrap();
    for n in 0u64.. {
        let value = n.to_le_bytes().repeat(512);
        let write = Transaction::default().put("latest", value.clone());
        store
            .commit(write.put(format!("log/{}", n % 64), value))
            .await
            .unwrap();
        println!("acknowledged {n}");
    }
}

#[tokio::test]
async fn kill_9_at_any_moment_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["writer_process", "--exact", "--nocapture"])
            .env(CHILD_PATH, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = None;
        let mut seen = 0;
        // Killed after a different number of writes each round; what was said before the pipe
        // closed counts, even if it was said after the kill was sent.
        while let Some(Ok(line)) = lines.next() {
            // The harness prints the test's name on the first line.
            if let Some((_, n)) = line.split_once("acknowledged ") {
                acknowledged = Some(n.parse::<u64>().unwrap());
                seen += 1;
                if seen == 1 + round * 7 {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        let acknowledged = acknowledged.expect("the writer acknowledged nothing");
        let store = EmbeddedStore::open(&path).unwrap();
        let value = store.get("latest").await.unwrap().unwrap().value;
        let stored = u64::from_le_bytes(value[..8].try_into().unwrap());
        assert!(
            stored >= acknowledged,
            "round {round}: {acknowledged} lost, have {stored}"
        );
        assert_eq!(
            value,
            stored.to_le_bytes().repeat(512),
            "round {round}: torn value"
        );
        let logged = store
            .get(&format!("log/{}", stored % 64))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(logged.value, value, "round {round}: half a transaction");
    }
}
