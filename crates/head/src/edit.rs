//! A config made from another one by exchanging one application. Pure.

use std::collections::BTreeMap;

use mobula_spec::{Checked, ServeConfig};
use serde_json::{Value, json};

use crate::documents::StoredConfig;

/// The name of an entry that gives none, as with Ray.
const APPLICATION_NAME_DEFAULT: &str = "default";

/// A config that was checked, and how it is stored.
#[derive(Clone, Debug)]
pub struct Edited {
    pub stored: StoredConfig,
    pub checked: Checked,
}

/// The config with another entry of that application, or without it; everything else stays,
/// the times at which the other applications were declared and what is said of them included.
///
/// # Errors
/// When the whole would not be a config that is accepted.
pub fn exchanged(
    base: Option<&StoredConfig>,
    application: &str,
    entry: Option<Value>,
    now_s: f64,
) -> Result<Edited, String> {
    let mut document = base.map_or_else(|| json!({}), |base| base.config.clone());
    let mut entries = match document["applications"].take() {
        Value::Array(entries) => entries,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            Vec::new()
        }
    };
    let place = entries.iter().position(|entry| name(entry) == application);
    match (entry, place) {
        (Some(entry), Some(place)) => entries[place] = entry,
        (Some(entry), None) => entries.push(entry),
        (None, Some(place)) => drop(entries.remove(place)),
        (None, None) => {}
    }
    let others: Vec<String> = entries
        .iter()
        .map(|entry| name(entry).to_owned())
        .filter(|name| name != application)
        .collect();
    document["applications"] = Value::Array(entries);
    let checked = ServeConfig::from_json(document.to_string().as_bytes())
        .map_err(|errors| errors.to_string())?;
    let mut stored = StoredConfig::new(checked.config.to_json(), now_s);
    if let Some(base) = base {
        stored.earlier = others
            .iter()
            .map(|name| (name.clone(), base.declared_at_s(name)))
            .collect();
        stored.taken_back = of_others(&base.taken_back, &others);
    }
    Ok(Edited { stored, checked })
}

/// The name of an application's entry.
pub fn name(entry: &Value) -> &str {
    entry["name"].as_str().unwrap_or(APPLICATION_NAME_DEFAULT)
}

fn of_others(said: &BTreeMap<String, String>, others: &[String]) -> BTreeMap<String, String> {
    said.iter()
        .filter(|(name, _)| others.contains(name))
        .map(|(name, text)| (name.clone(), text.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> StoredConfig {
        let config = json!({
            "target_capacity": 50.0,
            "applications": [
                {"name": "a", "route_prefix": "/a", "import_path": "x:a"},
                {"name": "b", "route_prefix": "/b", "import_path": "x:b"},
            ],
        });
        let mut base = StoredConfig::new(config, 1.0);
        base.taken_back = BTreeMap::from([
            ("a".to_owned(), "a failed".to_owned()),
            ("b".to_owned(), "b failed".to_owned()),
        ]);
        base
    }

    fn names(edited: &Edited) -> Vec<&str> {
        let applications = edited.checked.config.applications.iter();
        applications.map(|app| app.name.as_str()).collect()
    }

    #[test]
    fn one_application_is_exchanged_and_the_rest_stays() {
        let entry = json!({"name": "a", "route_prefix": "/new", "import_path": "x:a"});
        let edited = exchanged(Some(&base()), "a", Some(entry), 2.0).unwrap();
        assert_eq!(names(&edited), ["a", "b"]);
        assert_eq!(
            edited.stored.config["applications"][0]["route_prefix"],
            "/new"
        );
        assert_eq!(edited.stored.config["target_capacity"], 50.0);
        assert_eq!(edited.stored.declared_at_s("a"), 2.0);
        assert_eq!(edited.stored.declared_at_s("b"), 1.0);
        // A new entry is a new try; what is said of the other one still holds.
        let said: Vec<_> = edited.stored.taken_back.keys().collect();
        assert_eq!(said, ["b"]);
    }

    #[test]
    fn applications_come_and_go() {
        let entry = json!({"route_prefix": "/c", "import_path": "x:c"});
        let edited = exchanged(Some(&base()), "default", Some(entry.clone()), 2.0).unwrap();
        assert_eq!(names(&edited), ["a", "b", "default"]);
        let edited = exchanged(Some(&edited.stored), "b", None, 3.0).unwrap();
        assert_eq!(names(&edited), ["a", "default"]);
        assert_eq!(edited.stored.declared_at_s("default"), 2.0);
        let edited = exchanged(None, "default", Some(entry), 2.0).unwrap();
        assert_eq!(names(&edited), ["default"]);
    }

    #[test]
    fn rules_between_applications_still_hold() {
        let entry = json!({"name": "c", "route_prefix": "/b", "import_path": "x:c"});
        let error = exchanged(Some(&base()), "c", Some(entry), 2.0).unwrap_err();
        assert!(error.contains("route prefix"), "{error}");
    }
}
