//! `max_queued_requests` is a limit of all routers together.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::json;

use crate::client::{get, send};
use crate::house::{House, Role};
use crate::process::wait_for;

/// May wait in all routers together; not a multiple of the routers.
const QUEUED_MAX: usize = 5;

/// Requests sent to each router, far above the limit.
const SENT: usize = 20;

/// One replica, which has one request at a time and takes an hour for it.
fn deploy(house: &House) {
    let config = json!({
        "http_options": {"host": "127.0.0.1"},
        "applications": [{
            "name": "sleep",
            "route_prefix": "/",
            "import_path": "mobula.apps:sleep",
            "args": {"seconds": 3600},
            "deployments": [{
                "name": "Sleep",
                "num_replicas": 1,
                "max_ongoing_requests": 1,
                "max_queued_requests": QUEUED_MAX,
                "graceful_shutdown_timeout_s": 0,
                "ray_actor_options": {"num_cpus": 1},
            }],
        }],
    });
    let path = "/api/serve/applications/";
    let answer = send(house.admin, "PUT", path, "", &config.to_string()).unwrap();
    assert_eq!(answer.0, 200, "{}", answer.1);
    wait_for("the application", || {
        let state = house.state();
        (state["applications"]["sleep"]["status"] == "RUNNING").then_some(())
    });
}

fn metric(router: &Role, name: &str) -> usize {
    let text = get(router.admin, "/metrics").map_or_else(|_| String::new(), |answer| answer.1);
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("{name}{{")));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or(0)
}

fn wait_for_parts(routers: &[Role], wanted: &[usize]) {
    wait_for(&format!("parts of the limit: {wanted:?}"), || {
        let parts = routers
            .iter()
            .map(|r| metric(r, "mobula_router_queued_requests_max"));
        let mut parts: Vec<_> = parts.collect();
        parts.sort_unstable();
        (parts == wanted).then_some(())
    });
}

/// A request whose answer is looked for later.
struct Pending(TcpStream);

impl Pending {
    fn send(router: SocketAddr) -> Pending {
        let mut stream = TcpStream::connect(router).unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .unwrap();
        stream.set_nonblocking(true).unwrap();
        Pending(stream)
    }

    /// Whether it was answered, which can only be a refusal.
    fn is_refused(&mut self) -> bool {
        let mut answer = [0; 12];
        match self.0.read(&mut answer) {
            Ok(read) => {
                assert_eq!(&answer[..read], b"HTTP/1.1 503");
                true
            }
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                false
            }
        }
    }
}

#[test]
fn what_waits_in_two_routers_together_respects_the_limit_and_one_that_leaves_gives_its_part_back() {
    let house = House::with_token();
    let _head = house.head("head", &[]);
    let _worker = house.worker("worker", 1);
    let mut routers = vec![house.router("router-1"), house.router("router-2")];
    deploy(&house);
    for router in &routers {
        router.wait_until_ready();
    }
    wait_for_parts(&routers, &[2, 3]);

    let mut open: Vec<Pending> = Vec::new();
    for router in &routers {
        open.extend((0..SENT).map(|_| Pending::send(router.http)));
    }
    let mut refused = 0;
    // One runs. One more was sent to the replica by the router that did not know that it is
    // busy; the replica refused it, and it waits beyond the limit, since it was admitted.
    let most_held = 1 + QUEUED_MAX + 1;
    wait_for("all others to be refused", || {
        let before = open.len();
        open.retain_mut(|request| !request.is_refused());
        refused += before - open.len();
        (refused >= 2 * SENT - most_held).then_some(())
    });
    wait_for("as many to wait as may", || {
        let waiting = routers
            .iter()
            .map(|r| metric(r, "ray_serve_deployment_queued_queries"));
        (waiting.sum::<usize>() >= QUEUED_MAX).then_some(())
    });
    open.retain_mut(|request| !request.is_refused());
    assert!(
        (1 + QUEUED_MAX..=most_held).contains(&open.len()),
        "{} are held",
        open.len()
    );

    routers.pop().unwrap().process.kill();
    wait_for_parts(&routers, &[QUEUED_MAX]);
}
