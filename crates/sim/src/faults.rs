//! What goes wrong, by seed, and how it ends.

use crate::cluster::{Cluster, Event, HEADS, ROUTERS, WORKERS};
use crate::net::Node;

/// How a fault ends.
#[derive(Clone, Debug)]
pub enum Cure {
    Wires(Vec<(Node, Node)>),
    Slow(Node),
    StoreBack,
    StoreQuick,
}

impl Cluster {
    pub fn fault(&mut self) {
        if self.queue.now() >= self.faults_end_at {
            return;
        }
        let pause = self.rng.range(300, 5000);
        self.queue.after(pause, Event::Fault);
        match self.rng.range(0, 16) {
            0..4 => self.crash(),
            4 | 5 => self.pause(),
            6..9 => self.partition(),
            9 => self.slow_link(),
            10 => self.store_outage(),
            11 => self.store_slow(),
            12 => {
                let h = self.rng.index(HEADS);
                let skew = self.rng.range(0, 240_000) as i64 - 120_000;
                self.log(&format!("the clock of head{h} is {skew} ms wrong"));
                self.heads[h].skew_ms = skew;
            }
            13 | 14 => {
                let w = self.rng.index(WORKERS);
                if self.workers[w].up && !self.is_paused(Node::Worker(w)) {
                    self.afflict(w);
                }
            }
            _ => self.told_to_end(),
        }
    }

    fn any_node(&mut self) -> Node {
        match self.rng.range(0, 6) {
            0 => Node::Head(self.rng.index(HEADS)),
            1 => {
                let leading = (0..HEADS).find(|h| self.heads[*h].leads());
                Node::Head(leading.unwrap_or(0))
            }
            2 => Node::Router(self.rng.index(ROUTERS)),
            _ => Node::Worker(self.rng.index(WORKERS)),
        }
    }

    fn crash(&mut self) {
        let node = self.any_node();
        self.paused.remove(&node);
        match node {
            Node::Head(h) => self.head_end(h),
            Node::Router(r) => self.router_end(r),
            Node::Worker(w) => self.worker_end(w, true),
            Node::Store => {}
        }
        let pause = self.rng.range(300, 8000);
        self.queue.after(pause, Event::Start(node));
    }

    fn pause(&mut self) {
        let node = self.any_node();
        let until = self.queue.now() + self.rng.range(200, 15_000);
        self.log(&format!("{node:?} stands still until {until}"));
        self.paused.insert(node, until);
    }

    /// Two groups do not reach each other.
    fn partition(&mut self) {
        let heads: Vec<Node> = (0..HEADS).map(Node::Head).collect();
        let routers: Vec<Node> = (0..ROUTERS).map(Node::Router).collect();
        let workers: Vec<Node> = (0..WORKERS).map(Node::Worker).collect();
        let one_head = vec![heads[self.rng.index(HEADS)]];
        let (some, others) = match self.rng.range(0, 6) {
            0 => (one_head, vec![Node::Store]),
            1 => (one_head, [routers, workers].concat()),
            2 => (
                vec![routers[self.rng.index(ROUTERS)]],
                self.some_of(workers),
            ),
            3 => (heads, self.some_of([routers, workers].concat())),
            4 => (self.some_of(workers), routers),
            _ => {
                let all = [heads, routers, workers, vec![Node::Store]].concat();
                let some = self.some_of(all.clone());
                let others = all.into_iter().filter(|node| !some.contains(node));
                (some.clone(), others.collect())
            }
        };
        let pause = self.rng.range(500, 25_000);
        self.log(&format!("{some:?} and {others:?} are apart for {pause} ms"));
        let mut pairs = Vec::new();
        for a in &some {
            for b in &others {
                self.net.cut(*a, *b);
                pairs.push((*a, *b));
            }
        }
        self.queue.after(pause, Event::Heal(Cure::Wires(pairs)));
    }

    fn some_of(&mut self, nodes: Vec<Node>) -> Vec<Node> {
        let percent = self.rng.range(20, 80);
        let mut some = Vec::new();
        for node in nodes {
            if self.rng.percent(percent) {
                some.push(node);
            }
        }
        some
    }

    fn slow_link(&mut self) {
        let node = self.any_node();
        let delay = self.rng.range(20, 400);
        self.log(&format!("{node:?} is {delay} ms away"));
        self.net.slow.insert(node, delay);
        let pause = self.rng.range(2000, 20_000);
        self.queue.after(pause, Event::Heal(Cure::Slow(node)));
    }

    fn store_outage(&mut self) {
        self.log("the store is away");
        self.store.lock().outage = true;
        let pause = self.rng.range(500, 10_000);
        self.queue.after(pause, Event::Heal(Cure::StoreBack));
    }

    fn store_slow(&mut self) {
        self.log("the store is slow");
        self.store.lock().slow_ms = self.rng.range(50, 1500);
        let pause = self.rng.range(2000, 15_000);
        self.queue.after(pause, Event::Heal(Cure::StoreQuick));
    }

    fn told_to_end(&mut self) {
        if self.rng.percent(40) {
            if let Some(h) = (0..HEADS).find(|h| self.heads[*h].leads()) {
                self.step_down(h, "it is told to end");
                self.head_end(h);
                let pause = self.rng.range(300, 5000);
                self.queue.after(pause, Event::Start(Node::Head(h)));
            }
            return;
        }
        let w = self.rng.index(WORKERS);
        if !self.is_paused(Node::Worker(w)) && !self.evict(w) {
            self.worker_drain(w);
        }
    }

    pub fn cure(&mut self, cure: Cure) {
        match cure {
            Cure::Wires(pairs) => {
                self.log("wires are mended");
                self.net.mend(&pairs);
            }
            Cure::Slow(node) => drop(self.net.slow.remove(&node)),
            Cure::StoreBack => {
                self.log("the store is back");
                self.store.lock().outage = false;
            }
            Cure::StoreQuick => self.store.lock().slow_ms = 0,
        }
    }

    /// From here on nothing goes wrong any more.
    pub fn faults_end(&mut self) {
        self.log("nothing goes wrong any more");
        self.net.heal();
        {
            let mut store = self.store.lock();
            store.outage = false;
            store.slow_ms = 0;
        }
        let heads = (0..HEADS).map(Node::Head);
        let routers = (0..ROUTERS).map(Node::Router);
        let workers = (0..WORKERS).map(Node::Worker);
        let now = self.queue.now();
        for until in self.paused.values_mut() {
            *until = (*until).min(now);
        }
        for node in heads.chain(routers).chain(workers) {
            self.queue.after(500, Event::Start(node));
        }
    }
}
