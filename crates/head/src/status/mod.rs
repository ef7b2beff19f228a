//! From the world to the document of `GET /api/serve/applications/`. Pure.
//!
//! Ray's own command line parses it with a strict model: an unknown key or an unknown word in
//! an enumeration makes it fail, and which keys it knows depends on its version. So the keys
//! are those of a chosen Ray version, and every word comes from Ray's enumerations.

mod application;
mod ids;
mod proxies;
mod version;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

pub(crate) use application::replica_state;
pub(crate) use proxies::status as router_status;
pub use version::RayVersion;

use crate::world::{Now, World};

/// What the document says beside the world.
#[derive(Clone, Debug)]
pub struct About {
    pub ray_version: RayVersion,
    pub node_id: String,
    pub node_ip: String,
    pub pid: u32,
    /// Unix time at which the head started.
    pub started_at_s: f64,
}

/// How the controller has been doing, for `controller_health_metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoopStats {
    pub loops: u64,
    pub last_loop_at_s: f64,
    pub duration_mean_s: f64,
    pub duration_min_s: f64,
    pub duration_max_s: f64,
    pub duration_std_s: f64,
    /// The pause between two passes while nothing happens.
    pub pause_s: f64,
    pub reports_received: u64,
    pub memory_bytes: u64,
}

/// Which applications are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiType {
    Declarative,
    Imperative,
}

/// The document.
pub fn document(
    world: &World,
    about: &About,
    stats: &LoopStats,
    filter: Option<ApiType>,
    now: Now,
) -> Value {
    let Some(serving) = &world.serving else {
        return json!({
            "controller_info": {},
            "proxies": {},
            "applications": {},
            "target_capacity": null,
        });
    };
    // All our applications are declarative.
    let applications: Map<String, Value> = match filter {
        Some(ApiType::Imperative) => Map::new(),
        Some(ApiType::Declarative) | None => world
            .applications
            .iter()
            .map(|(name, app)| {
                let details = application::details(world, about, name, app, now);
                (name.clone(), details)
            })
            .collect(),
    };
    let mut document = json!({
        "controller_info": controller_info(about),
        "proxy_location": serving.proxy_location,
        "http_options": serving.http_options,
        "grpc_options": grpc_options(&serving.grpc_options, about.ray_version),
        "proxies": proxies::proxies(world),
        "applications": applications,
        "target_capacity": serving.target_capacity,
    });
    if about.ray_version.has_target_groups() {
        document["target_groups"] = proxies::target_groups(world);
    }
    if about.ray_version.is_at_least_2_60() {
        document["controller_health_metrics"] = health_metrics(about, stats, now);
        document["restores_unset_config_options"] = Value::Bool(true);
    }
    document
}

fn controller_info(about: &About) -> Value {
    json!({
        "node_id": about.node_id,
        "node_ip": about.node_ip,
        "node_instance_id": "",
        "actor_id": ids::actor_id("controller", &about.node_id),
        "actor_name": "SERVE_CONTROLLER_ACTOR",
        "worker_id": ids::worker_id("controller", &about.node_id, about.pid),
        "log_file_path": format!("/serve/controller_{}.log", about.pid),
    })
}

/// Reflection can be switched since 2.60; older command lines may not know the key.
fn grpc_options(options: &Value, version: RayVersion) -> Value {
    let mut options = options.clone();
    if let Some(options) = options.as_object_mut()
        && !version.is_at_least_2_60()
    {
        options.remove("enable_reflection");
    }
    options
}

fn health_metrics(about: &About, stats: &LoopStats, now: Now) -> Value {
    let uptime_s = (now.unix_s - about.started_at_s).max(0.0);
    let loops_per_second = if uptime_s > 0.0 {
        stats.loops as f64 / uptime_s
    } else {
        0.0
    };
    json!({
        "timestamp": now.unix_s,
        "controller_start_time": about.started_at_s,
        "uptime_s": uptime_s,
        "last_control_loop_time": stats.last_loop_at_s,
        "num_control_loops": stats.loops,
        "loop_duration_s": {
            "mean": stats.duration_mean_s,
            "std": stats.duration_std_s,
            "min": stats.duration_min_s,
            "max": stats.duration_max_s,
        },
        "loops_per_second": loops_per_second,
        "last_sleep_duration_s": stats.pause_s,
        "expected_sleep_duration_s": stats.pause_s,
        "event_loop_delay_s": 0.0,
        "num_asyncio_tasks": 0,
        "handle_reports_received": stats.reports_received,
        "process_memory_mb": stats.memory_bytes as f64 / 1e6,
    })
}
