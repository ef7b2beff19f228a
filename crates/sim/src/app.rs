//! What is deployed: an application whose behaviour is in its `args`, and configs of three of
//! them, as a user would write them.

use std::collections::BTreeMap;

use mobula_app::{Application, BuildError, Deployment, Registry};
use serde_json::{Value, json};

use crate::rng::Rng;

pub const APPS: [&str; 3] = ["fixed", "scaled", "auto"];
pub const DEPLOYMENT: &str = "D";
const IMPORT_PATH: &str = "sim:app";

/// How a version behaves, by its `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Good,
    /// Takes long to start.
    Slow,
    /// Never starts.
    Bad,
    /// Starts every other time.
    Flaky,
    /// Does not build.
    Broken,
    /// Answers, and half of its answers are errors.
    Failing,
}

/// The code that a head knows.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.register(IMPORT_PATH, |context| {
        if context.args.get("kind") == Some(&json!("broken")) {
            return Err(BuildError::Invalid("broken on purpose".to_owned()));
        }
        Ok(Application::single(Deployment::without_code(DEPLOYMENT)))
    });
    registry
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Good => "good",
            Kind::Slow => "slow",
            Kind::Bad => "bad",
            Kind::Flaky => "flaky",
            Kind::Broken => "broken",
            Kind::Failing => "failing",
        }
    }

    /// Of a replica that a worker was assigned.
    pub fn of(args_json: &str) -> Kind {
        let args: Value = serde_json::from_str(args_json).unwrap_or_default();
        let kinds = [
            Kind::Slow,
            Kind::Bad,
            Kind::Flaky,
            Kind::Broken,
            Kind::Failing,
        ];
        let named = kinds.into_iter().find(|kind| args["kind"] == kind.name());
        named.unwrap_or(Kind::Good)
    }

    pub fn any(rng: &mut Rng) -> Kind {
        match rng.range(0, 12) {
            0..5 => Kind::Good,
            5 => Kind::Slow,
            6 => Kind::Flaky,
            7 | 8 => Kind::Bad,
            9 | 10 => Kind::Failing,
            _ => Kind::Broken,
        }
    }
}

/// An entry of the document. `number` tells every change apart.
pub fn entry(name: &str, kind: Kind, number: u64, rng: &mut Rng) -> Value {
    let mut deployment = json!({
        "name": DEPLOYMENT,
        "max_ongoing_requests": rng.range(1, 6),
        "graceful_shutdown_timeout_s": 20.0,
        "health_check_period_s": 2.0,
        "ray_actor_options": {"num_cpus": 1.0},
    });
    let gang_size = grouped(&mut deployment, rng);
    if rng.percent(50) {
        let settings = if rng.percent(15) { "bad" } else { "good" };
        deployment["user_config"] = json!({"settings": settings, "number": number});
    }
    if name == "auto" {
        // More than the target: replicas that cannot have what the count is made from are too
        // few as soon as there are enough of them.
        deployment["max_ongoing_requests"] = json!(rng.range(4, 8));
        deployment["autoscaling_config"] = json!({
            "min_replicas": rng.range(0, 2),
            "max_replicas": rng.range(3, 6) * gang_size,
            "target_ongoing_requests": 2.0,
            "upscale_delay_s": 2.0,
            "downscale_delay_s": 8.0,
            "look_back_period_s": 5.0,
        });
        deployment["mobula"] = json!({"autoscaling": scaling(rng)});
    } else {
        deployment["num_replicas"] = json!(replicas(gang_size, rng));
    }
    let external = name == "scaled";
    let mut entry = json!({
        "name": name,
        "route_prefix": format!("/{name}"),
        "import_path": IMPORT_PATH,
        "args": args(kind, number),
        "external_scaler_enabled": external,
        "deployments": [deployment],
    });
    if rng.percent(40) {
        entry["mobula"] = json!({"traffic": traffic(rng)});
    }
    entry
}

/// A policy, and perhaps a minimum for a minute; the simulation begins twenty seconds before a
/// quarter past ten in the evening, by UTC.
fn scaling(rng: &mut Rng) -> Value {
    let policy = ["default", "reactive"][rng.index(2)];
    let mut scaling = json!({"policy": policy});
    if rng.percent(50) {
        let every_day = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
        let (from, to) = [("22:14", "22:15"), ("00:00", "24:00")][rng.index(2)];
        let min_replicas = rng.range(1, 4);
        scaling["schedule"] = json!([
            {"days": every_day, "from": from, "to": to, "min_replicas": min_replicas}
        ]);
    }
    scaling
}

/// A new version gets a part of the requests first.
fn traffic(rng: &mut Rng) -> Value {
    let steps = [vec![20], vec![20, 50], vec![5, 30, 60]];
    json!({
        "steps": steps[rng.index(3)],
        "step_s": rng.range(2, 5),
        "error_rate_max": 0.1,
        "requests_min": 10,
    })
}

/// As the last entry, for a cluster in which nothing goes wrong: it bears the steady load.
pub fn settled(name: &str, number: u64, rng: &mut Rng) -> Value {
    let mut entry = entry(name, Kind::Good, number, rng);
    let deployment = &mut entry["deployments"][0];
    deployment["user_config"] = json!({"settings": "good"});
    deployment["max_ongoing_requests"] = json!(rng.range(4, 8));
    if deployment.get("num_replicas").is_some() {
        let gang_size = deployment["gang_scheduling_config"]["gang_size"].as_u64();
        let count = rng.range(2, 5).next_multiple_of(gang_size.unwrap_or(1));
        deployment["num_replicas"] = json!(count);
    }
    // What the clock says would change a count under a steady load.
    let schedule = deployment.pointer_mut("/mobula/autoscaling/schedule/0");
    if let Some(minimum) = schedule {
        minimum["from"] = json!("00:00");
        minimum["to"] = json!("24:00");
    }
    entry
}

/// The same deployment with new code, which begins as a canary.
pub fn trial(entry: &Value, kind: Kind, number: u64) -> Value {
    let mut entry = entry.clone();
    entry["args"] = args(kind, number);
    entry["mobula"] = json!({"traffic": {
        "steps": [20, 50], "step_s": 3, "error_rate_max": 0.1, "requests_min": 10,
    }});
    entry
}

fn args(kind: Kind, number: u64) -> Value {
    json!({"kind": kind.name(), "number": format!("n{number}.")})
}

/// The same code, another number of replicas or other settings.
pub fn changed(entry: &Value, number: u64, rng: &mut Rng) -> Value {
    let mut entry = entry.clone();
    let deployment = &mut entry["deployments"][0];
    if rng.percent(50) {
        deployment["user_config"] = json!({"settings": "good", "number": number});
    } else if deployment.get("num_replicas").is_some() {
        let gang_size = deployment["gang_scheduling_config"]["gang_size"].as_u64();
        deployment["num_replicas"] = json!(replicas(gang_size.unwrap_or(1), rng));
    }
    entry
}

/// Some are in gangs, some have bundles; the size of the gangs.
fn grouped(deployment: &mut Value, rng: &mut Rng) -> u64 {
    match rng.range(0, 8) {
        0 => {
            let strategy = ["PACK", "SPREAD"][rng.range(0, 2) as usize];
            deployment["gang_scheduling_config"] =
                json!({"gang_size": 2, "gang_placement_strategy": strategy});
            return 2;
        }
        1 => {
            let all = ["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"];
            deployment["placement_group_bundles"] = json!([{"CPU": 1.0}, {"CPU": 0.5}]);
            deployment["placement_group_strategy"] = json!(all[rng.range(0, 4) as usize]);
        }
        _ => {}
    }
    1
}

/// Whole gangs.
fn replicas(gang_size: u64, rng: &mut Rng) -> u64 {
    rng.range(1, 5).next_multiple_of(gang_size)
}

/// A whole document.
pub fn document(entries: &BTreeMap<String, Value>, capacity: Option<u64>) -> Value {
    json!({
        "applications": entries.values().collect::<Vec<_>>(),
        "target_capacity": capacity,
    })
}
