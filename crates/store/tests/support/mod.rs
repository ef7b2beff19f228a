//! The stores under test, and what etcd tests need: servers, a faulty network, certificates.
#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::expect_used)]

pub mod etcd;
pub mod ports;
pub mod proxy;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use mobula_store::{EmbeddedStore, MemoryStore, StateStore, Watch};

/// A test that waits for longer has failed. Nothing passes because of it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One implementation, and what must be kept alive beside it.
pub struct Subject {
    pub name: &'static str,
    pub state: Arc<dyn StateStore>,
    pub watch: Arc<dyn Watch>,
    pub election: Arc<dyn mobula_store::Election>,
    _beside: Box<dyn Any>,
}

impl Subject {
    fn new<S>(name: &'static str, store: S, beside: impl Any) -> Subject
    where
        S: StateStore + Watch + mobula_store::Election + 'static,
    {
        let store = Arc::new(store);
        Subject {
            name,
            state: Arc::clone(&store) as _,
            watch: Arc::clone(&store) as _,
            election: store,
            _beside: Box::new(beside),
        }
    }
}

/// Each implementation, empty; etcd in each version.
pub async fn subjects() -> Vec<Subject> {
    let dir = tempfile::tempdir().unwrap();
    let embedded = EmbeddedStore::open(&dir.path().join("state.redb")).unwrap();
    let mut subjects = vec![
        Subject::new("memory", MemoryStore::default(), ()),
        Subject::new("embedded", embedded, dir),
    ];
    for (name, version) in [("etcd 3.4", Some("3.4.23")), ("etcd", None)] {
        let server = etcd::Etcd::start(etcd::Setup::version(version)).await;
        let store = server.store("conformance").await;
        subjects.push(Subject::new(name, store, server));
    }
    subjects
}

/// The next item, or a failed test.
pub async fn next<T>(stream: &mut (impl Stream<Item = T> + Unpin)) -> T {
    let item = tokio::time::timeout(PATIENCE, stream.next()).await;
    item.expect("nothing came").expect("the stream has ended")
}
