//! Routers as Ray's proxies, and what an outside load balancer may send to.

use serde_json::{Map, Value, json};

use super::ids;
use crate::world::World;
use crate::world::observed::Router;

/// One entry per router, by node as with Ray; a second router of a node goes by its own id.
pub fn proxies(world: &World) -> Value {
    let mut proxies = Map::new();
    for router in world.routers.values() {
        let key = if proxies.contains_key(&router.node_id) {
            &router.id
        } else {
            &router.node_id
        };
        let entry = json!({
            "node_id": router.node_id,
            "node_ip": router.node_ip,
            "node_instance_id": "",
            "actor_id": ids::actor_id("proxy", &router.id),
            "actor_name": actor_name(router),
            "worker_id": router.id,
            "log_file_path": format!("/serve/proxy_{}.log", router.node_ip),
            "status": status(router),
        });
        proxies.insert(key.clone(), entry);
    }
    Value::Object(proxies)
}

/// One group per protocol that somebody serves.
pub fn target_groups(world: &World) -> Value {
    let http = targets(world, |router| &router.http_addr);
    let grpc = targets(world, |router| &router.grpc_addr);
    let groups = [("HTTP", http), ("gRPC", grpc)]
        .into_iter()
        .filter(|(_, targets)| !targets.is_empty())
        .map(|(protocol, targets)| {
            json!({
                "targets": targets,
                "route_prefix": "/",
                "protocol": protocol,
                "app_name": "",
                "ingress_request_router_targets": [],
                "ingress_deployment_name": "",
            })
        });
    groups.collect()
}

fn targets(world: &World, addr: impl Fn(&Router) -> &String) -> Vec<Value> {
    world
        .routers
        .values()
        .filter(|router| !router.draining)
        .filter_map(|router| {
            let port = addr(router).rsplit_once(':')?.1.parse::<u16>().ok()?;
            Some(json!({
                "ip": router.node_ip,
                "port": port,
                "instance_id": "",
                "name": actor_name(router),
            }))
        })
        .collect()
}

fn actor_name(router: &Router) -> String {
    format!("SERVE_PROXY_ACTOR-{}", router.node_id)
}

/// Ray's word for how a router is.
pub(crate) fn status(router: &Router) -> &'static str {
    if !router.error.is_empty() {
        "UNHEALTHY"
    } else if router.draining {
        "DRAINING"
    } else if router.http_addr.is_empty() {
        "STARTING"
    } else {
        "HEALTHY"
    }
}
