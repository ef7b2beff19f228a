//! Routers that take tables, and say which they have and what they carry.

use std::collections::BTreeMap;

use super::Sim;
use crate::world::Event;
use crate::world::observed::{Router, RouterLoad};

impl Sim {
    /// The router takes the newest table.
    pub fn route(&mut self, id: &str) {
        let table = self.world.published.table().cloned();
        if let (Some(held), Some(table)) = (self.routers.get_mut(id), table) {
            *held = table;
        }
    }

    /// The router says which table it has.
    pub fn ack(&mut self, id: &str) {
        let Some(table) = self.routers.get(id) else {
            return;
        };
        let router = Router {
            id: id.to_owned(),
            node_id: "head-node".to_owned(),
            node_ip: "127.0.0.1".to_owned(),
            pid: 1,
            version: String::new(),
            http_addr: "127.0.0.1:8000".to_owned(),
            grpc_addr: String::new(),
            table_version: table.version,
            draining: false,
            error: String::new(),
            heard_ms: 0,
            behind_since_ms: None,
            loads: self.loads_of(id),
            answers: self.answers.get(id).cloned().unwrap_or_default(),
        };
        self.observe(Event::RouterReported(Box::new(router)));
    }

    fn loads_of(&self, id: &str) -> BTreeMap<(String, String), RouterLoad> {
        let load = |name: &str, (queued, ongoing): (u32, u32)| {
            let load = RouterLoad {
                queued,
                ongoing,
                counts: self.counts.get(id).copied(),
            };
            (("app".to_owned(), name.to_owned()), load)
        };
        let first = self.loads.get(id).map(|found| load("D", *found));
        let second = self.second_loads.get(id).map(|found| load("E", *found));
        first.into_iter().chain(second).collect()
    }
}
