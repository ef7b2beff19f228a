//! Requests that go on while something happens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crate::client::get;
use crate::process::wait_for;

/// Clients at once; some request is under way at any moment.
const CLIENTS: usize = 4;

/// Clients of one router that send one request after the other.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    pub fn start(router: SocketAddr) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let client = |_| {
            let (stop, answered) = (stop.clone(), answered.clone());
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match get(router, "/") {
                        Ok((200, _)) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        other => failures.push(format!("{other:?}")),
                    }
                }
                failures
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Load {
            stop,
            answered,
            clients,
        }
    }

    /// Waits until some hundred more requests were answered.
    pub fn goes_on(&self) {
        let until = self.answered.load(Ordering::Relaxed) + 200;
        wait_for("answers to requests", || {
            (self.answered.load(Ordering::Relaxed) >= until).then_some(())
        });
    }

    /// Ends the clients; every request must have been answered with 200.
    pub fn end_without_failure(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            let failures = client.join().unwrap();
            assert!(failures.is_empty(), "{failures:?}");
        }
        assert!(self.answered.load(Ordering::Relaxed) > 0);
    }
}
