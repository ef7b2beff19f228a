//! What a new config changes, in a line for the history: which applications come, go or differ,
//! and in which fields. Pure. Values are not told: some of them are secrets.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::world::World;
use crate::world::spec::{DeploySpec, Scope};

/// Names of one kind in the line.
const NAMES_MAX: usize = 5;

/// None: no application changes.
pub fn changed(world: &World, spec: &DeploySpec) -> Option<String> {
    let known = |name: &str| {
        let application = world.applications.get(name);
        application.filter(|application| !application.deleting)
    };
    let (mut comes, mut differs) = (Vec::new(), Vec::new());
    for entry in &spec.applications {
        match known(&entry.name) {
            None => comes.push(format!("'{}'", entry.name)),
            Some(known) => {
                let fields = fields(&known.declared.raw, &entry.raw);
                if !fields.is_empty() {
                    differs.push(format!("'{}' ({})", entry.name, listed(&fields)));
                }
            }
        }
    }
    let stays = |name: &str| spec.applications.iter().any(|entry| entry.name == name);
    // A config of one application leaves the others alone.
    let may_go = spec.scope == Scope::Whole;
    let goes = world.applications.iter();
    let goes = goes.filter(|(name, app)| may_go && !app.deleting && !stays(name));
    let goes: Vec<String> = goes.map(|(name, _)| format!("'{name}'")).collect();
    let parts = [("adds", comes), ("changes", differs), ("deletes", goes)];
    let parts = parts.iter().filter(|(_, names)| !names.is_empty());
    let parts: Vec<String> = parts
        .map(|(verb, names)| format!("{verb} {}", listed(names)))
        .collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// The fields of an application's entry whose values differ.
fn fields(before: &Value, after: &Value) -> Vec<String> {
    let names = [before, after].into_iter().filter_map(Value::as_object);
    let names: BTreeSet<&String> = names.flat_map(serde_json::Map::keys).collect();
    let differ = names
        .into_iter()
        .filter(|name| before.get(name) != after.get(name));
    differ.cloned().collect()
}

fn listed(names: &[String]) -> String {
    let (shown, rest) = names.split_at(names.len().min(NAMES_MAX));
    match rest.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::world::Event;
    use crate::world::fixtures::{V1, application, config};
    use crate::world::sim::Sim;

    fn world(names: &[&str]) -> World {
        let mut sim = Sim::new();
        let applications = names.iter().map(|name| application(name, V1));
        sim.observe(Event::Deploy(Box::new(config(applications.collect()))));
        sim.world
    }

    #[test]
    fn what_comes_differs_and_goes_is_named_without_values() {
        let mut other = application("same", V1);
        other.raw["args"] = json!({"key": "hunter2"});
        other.raw["route_prefix"] = json!("/new");
        let spec = config(vec![other, application("new", V1)]);
        assert_eq!(
            changed(&world(&["same", "old"]), &spec).unwrap(),
            "adds 'new'; changes 'same' (args, route_prefix); deletes 'old'"
        );
    }

    #[test]
    fn the_same_again_changes_nothing_and_others_stay_when_one_is_deployed() {
        let before = world(&["a", "b"]);
        let mut spec = config(vec![application("a", V1)]);
        spec.scope = Scope::Only("a".to_owned());
        assert_eq!(changed(&before, &spec), None);
        spec.applications = vec![application("c", V1)];
        assert_eq!(changed(&before, &spec).unwrap(), "adds 'c'");
    }

    #[test]
    fn a_long_list_says_how_much_it_leaves_out() {
        let names: Vec<String> = (0..9).map(|n| format!("a{n}")).collect();
        let many = names.iter().map(|name| application(name, V1)).collect();
        let line = changed(&world(&[]), &config(many)).unwrap();
        assert_eq!(line, "adds 'a0', 'a1', 'a2', 'a3', 'a4' and 4 more");
    }
}
