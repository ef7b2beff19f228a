//! What a config would do, without doing it: per deployment what changes and what that costs,
//! how many replicas start and stop, and whether there is room for them. Pure.

use serde_json::{Map, Value, json};

use super::World;
use super::autoscale::bounds::Capacity;
use super::intent::{Application, Deployment, Replica};
use super::placement::{Free, Peers};
use super::spec::{ApplicationSpec, BuiltApplication, DeploySpec, DeploymentSpec};

/// The preview as a document.
pub fn preview(world: &World, spec: &DeploySpec) -> Value {
    let mut room = Room::of(world, spec);
    let capacity = world
        .capacity
        .changed_to(spec.serving.target_capacity, false);
    let mut applications = Map::new();
    for application in &spec.applications {
        let now = declared(world, &application.name);
        applications.insert(
            application.name.clone(),
            application_preview(world, now, application, capacity, &mut room),
        );
    }
    for (name, application) in &world.applications {
        let named = spec.applications.iter().any(|app| app.name == *name);
        if !named && !application.deleting {
            applications.insert(name.clone(), deleted_application(application));
        }
    }
    let changes = applications
        .values()
        .any(|application| application["change"] != "nothing");
    json!({
        "revision": world.revision,
        "changes": changes,
        "applications": applications,
    })
}

fn declared<'a>(world: &'a World, name: &str) -> Option<&'a Application> {
    world.applications.get(name).filter(|app| !app.deleting)
}

fn application_preview(
    world: &World,
    now: Option<&Application>,
    spec: &ApplicationSpec,
    capacity: Capacity,
    room: &mut Room,
) -> Value {
    let built = match &spec.built {
        Ok(built) => built,
        Err(error) => return json!({"change": "fails", "message": error, "deployments": {}}),
    };
    let mut deployments = Map::new();
    for deployment in &built.deployments {
        let before = now
            .and_then(|app| app.deployments.get(&deployment.name))
            .filter(|deployment| !deployment.deleting);
        deployments.insert(
            deployment.name.clone(),
            deployment_preview(world, before, deployment, capacity, room),
        );
    }
    for (name, deployment) in now.into_iter().flat_map(|app| &app.deployments) {
        let named = built.deployments.iter().any(|spec| spec.name == *name);
        if !named && !deployment.deleting {
            deployments.insert(name.clone(), deleted_deployment(deployment));
        }
    }
    let fields = now.map_or_else(Vec::new, |now| application_fields(now, built));
    let same = fields.is_empty()
        && deployments
            .values()
            .all(|deployment| deployment["change"] == "nothing");
    let change = match now {
        None => "added",
        Some(_) if same => "nothing",
        Some(_) => "changed",
    };
    json!({"change": change, "fields": fields, "deployments": deployments})
}

fn application_fields(now: &Application, built: &BuiltApplication) -> Vec<String> {
    let Some(before) = &now.built else {
        return vec!["import_path".to_owned()];
    };
    let mut fields = Vec::new();
    if before.route_prefix != built.route_prefix {
        fields.push("route_prefix".to_owned());
    }
    fields
}

fn deployment_preview(
    world: &World,
    before: Option<&Deployment>,
    spec: &DeploymentSpec,
    capacity: Capacity,
    room: &mut Room,
) -> Value {
    let (change, fields) = match before {
        None => ("added", Vec::new()),
        Some(before) => (
            change(&before.spec, spec),
            changed_fields(&before.spec, spec),
        ),
    };
    let live = before.map_or(0, |before| {
        let replicas = before.replicas.values();
        replicas.filter(|replica| replica.phase.is_live()).count() as u32
    });
    let target = before.map_or(spec.target, |before| before.target_with(spec, capacity));
    let (start, stop) = if matches!(change, "replace" | "added") {
        (target, live)
    } else {
        (target.saturating_sub(live), live.saturating_sub(target))
    };
    let mut preview = json!({
        "change": change,
        "fields": fields,
        "replicas": {"now": live, "target": target, "start": start, "stop": stop},
    });
    if let Some(traffic) = &spec.traffic
        && change == "replace"
        && live > 0
    {
        preview["canary"] = json!(traffic.steps);
    }
    if start > 0 {
        preview["room"] = room.place(world, before, spec, start);
    }
    preview
}

/// What the change costs, in the words of `mobula_spec::Change`.
fn change(before: &DeploymentSpec, after: &DeploymentSpec) -> &'static str {
    if before.replica.code_version != after.replica.code_version {
        "replace"
    } else if before.replica.config_version != after.replica.config_version {
        "reconfigure"
    } else if before != after {
        "retarget"
    } else {
        "nothing"
    }
}

/// The names of the options that differ; never their values, which may be secrets.
fn changed_fields(before: &DeploymentSpec, after: &DeploymentSpec) -> Vec<String> {
    let mut fields = Vec::new();
    differences("", &before.config, &after.config, &mut fields);
    let (old, new) = (&before.replica, &after.replica);
    if old.import_path != new.import_path {
        fields.push("import_path".to_owned());
    }
    if old.args_json != new.args_json {
        fields.push("args".to_owned());
    }
    let names = old.env_vars.keys().chain(new.env_vars.keys());
    let mut variables: Vec<String> = names
        .filter(|name| old.env_vars.get(*name) != new.env_vars.get(*name))
        .map(|name| format!("runtime_env.env_vars.{name}"))
        .collect();
    variables.sort();
    variables.dedup();
    fields.retain(|field| !field.contains("runtime_env"));
    fields.extend(variables);
    if old.route_prefix != new.route_prefix {
        fields.push("route_prefix".to_owned());
    }
    if before.traffic != after.traffic {
        fields.push("mobula.traffic".to_owned());
    }
    fields
}

fn differences(path: &str, before: &Value, after: &Value, fields: &mut Vec<String>) {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        if before != after {
            fields.push(path.to_owned());
        }
        return;
    };
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        let side = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
        let (one, other) = (side(old), side(new));
        differences(&path, &one, &other, fields);
    }
}

fn deleted_application(application: &Application) -> Value {
    let deployments: Map<String, Value> = application
        .deployments
        .iter()
        .map(|(name, deployment)| (name.clone(), deleted_deployment(deployment)))
        .collect();
    json!({"change": "deleted", "fields": [], "deployments": deployments})
}

fn deleted_deployment(deployment: &Deployment) -> Value {
    let live = deployment.replicas.len();
    json!({
        "change": "deleted",
        "fields": [],
        "replicas": {"now": live, "target": 0, "start": 0, "stop": live},
    })
}

/// Where new replicas would find room: beside all that runs, or once what is replaced and
/// deleted has left.
struct Room {
    now: Free,
    afterwards: Free,
}

// === impl Room ===

impl Room {
    fn of(world: &World, spec: &DeploySpec) -> Room {
        let mut afterwards = Free::of(world);
        for (id, deployment) in world.deployments() {
            let stays = spec
                .applications
                .iter()
                .filter(|app| app.name == id.application)
                .filter_map(|app| app.built.as_ref().ok())
                .flat_map(|built| &built.deployments)
                .any(|after| {
                    after.name == id.deployment
                        && after.replica.code_version == deployment.spec.replica.code_version
                });
            // A config that cannot be built leaves what runs.
            let fails = spec
                .applications
                .iter()
                .any(|app| app.name == id.application && app.built.is_err());
            if !stays && !fails {
                for replica in deployment.replicas.values() {
                    afterwards.give_back(replica);
                }
            }
        }
        Room {
            now: Free::of(world),
            afterwards,
        }
    }

    /// Takes room for that many replicas; says how many find it when.
    fn place(
        &mut self,
        world: &World,
        before: Option<&Deployment>,
        spec: &DeploymentSpec,
        count: u32,
    ) -> Value {
        let size = spec.replica.group.gang_size.max(1);
        let found = |free: &mut Free, mut peers: Peers| {
            let units = (0..count / size)
                .take_while(|_| free.place(world, spec, &mut peers).is_some())
                .count();
            units as u32 * size
        };
        let all = || before.into_iter().flat_map(|d| d.replicas.values());
        let stays = |replica: &&Replica| replica.spec.code_version == spec.replica.code_version;
        let now = Peers::of(world, all(), all().filter(stays));
        let afterwards = Peers::of(world, all().filter(stays), all().filter(stays));
        let at_once = found(&mut self.now, now);
        let eventually = found(&mut self.afterwards, afterwards).max(at_once);
        json!({
            "needs_each": spec.replica.need().to_string(),
            "at_once": at_once,
            "after_others_left": eventually - at_once,
            "does_not_fit": count - eventually,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Event;
    use super::super::fixtures::{V1, Version, application, config};
    use super::super::sim::Sim;
    use super::*;

    fn running(version: Version, cpus: f64) -> Sim {
        let mut sim = Sim::new();
        sim.add_worker(cpus);
        let spec = config(vec![application("app", version)]);
        sim.observe(Event::Deploy(Box::new(spec)));
        sim.settle();
        sim
    }

    fn preview_of(sim: &Sim, version: Version) -> Value {
        preview(&sim.world, &config(vec![application("app", version)]))
    }

    #[test]
    fn the_cost_of_each_kind_of_change_is_named() {
        let two = Version { target: 2, ..V1 };
        let sim = running(two, 4.0);
        let cases = [
            (two, "nothing", 0, 0),
            (Version { target: 3, ..two }, "retarget", 1, 0),
            (Version { target: 1, ..two }, "retarget", 0, 1),
            (
                Version {
                    config: "c2",
                    ..two
                },
                "reconfigure",
                0,
                0,
            ),
            (Version { code: "v2", ..two }, "replace", 2, 2),
        ];
        for (version, change, start, stop) in cases {
            let document = preview_of(&sim, version);
            let deployment = &document["applications"]["app"]["deployments"]["D"];
            assert_eq!(deployment["change"], change, "{document:#}");
            assert_eq!(deployment["replicas"]["start"], start, "{document:#}");
            assert_eq!(deployment["replicas"]["stop"], stop, "{document:#}");
            assert_eq!(document["changes"], change != "nothing");
        }
        let more = preview_of(&sim, Version { target: 3, ..two });
        let fields = &more["applications"]["app"]["deployments"]["D"]["fields"];
        assert_eq!(*fields, json!(["num_replicas"]));
    }

    #[test]
    fn a_canary_is_announced_with_its_steps() {
        let mut sim = running(V1, 4.0);
        let with_traffic = |code: &'static str, steps: Vec<u32>| {
            let mut spec = application("app", Version { code, ..V1 });
            if let Ok(built) = &mut spec.built {
                built.deployments[0].traffic = Some(mobula_spec::Traffic {
                    steps,
                    ..mobula_spec::Traffic::default()
                });
            }
            config(vec![spec])
        };
        let announced = |sim: &Sim, spec: &DeploySpec| {
            let document = preview(&sim.world, spec);
            let deployment = &document["applications"]["app"]["deployments"]["D"];
            (deployment["fields"].clone(), deployment["canary"].clone())
        };
        assert_eq!(
            announced(&sim, &with_traffic("v1", vec![10])),
            (json!(["mobula.traffic"]), Value::Null)
        );
        let canary = with_traffic("v2", vec![10, 40]);
        assert_eq!(announced(&sim, &canary).1, json!([10, 40]));
        sim.observe(Event::Deploy(Box::new(canary.clone())));
        assert_eq!(announced(&sim, &canary), (json!([]), Value::Null));
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let two = Version { target: 2, ..V1 };
        let sim = running(two, 3.0);
        let room = |version: Version| {
            let document = preview_of(&sim, version);
            document["applications"]["app"]["deployments"]["D"]["room"].clone()
        };
        let numbers = |at_once: u32, later: u32, never: u32, needs: &str| {
            json!({"needs_each": needs, "at_once": at_once, "after_others_left": later,
                "does_not_fit": never})
        };
        let replaced = Version { code: "v2", ..two };
        assert_eq!(room(replaced), numbers(1, 1, 0, "1 CPU"));
        let larger = Version {
            cpus: 2.0,
            ..replaced
        };
        assert_eq!(room(larger), numbers(0, 1, 1, "2 CPU"));
        assert_eq!(
            room(Version { target: 5, ..two }),
            numbers(1, 0, 2, "1 CPU")
        );
    }

    #[test]
    fn applications_come_and_go_or_cannot_be_built() {
        let sim = running(V1, 4.0);
        let mut failing = application("app", V1);
        failing.built = Err("no such deployment".to_owned());
        let document = preview(&sim.world, &config(vec![application("new", V1)]));
        assert_eq!(document["applications"]["new"]["change"], "added");
        assert_eq!(document["applications"]["app"]["change"], "deleted");
        let document = preview(&sim.world, &config(vec![failing]));
        assert_eq!(document["applications"]["app"]["change"], "fails");
        assert_eq!(
            document["applications"]["app"]["message"],
            "no such deployment"
        );
    }

    #[test]
    fn environment_variables_are_named_without_their_values() {
        let before = super::super::fixtures::deployment(V1);
        let mut after = before.clone();
        let mut replica = (*after.replica).clone();
        replica
            .env_vars
            .insert("TOKEN".to_owned(), "secret".to_owned());
        after.replica = replica.into();
        assert_eq!(
            changed_fields(&before, &after),
            ["runtime_env.env_vars.TOKEN"]
        );
    }
}
