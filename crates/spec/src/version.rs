//! Hashes that say whether two things are the same, between processes and releases.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::schema::application::Application;

/// A hash over what makes an application's code: if it changes, the application is built anew
/// and every replica replaced. If not, only the overrides are applied.
pub fn code_version(application: &Application) -> String {
    application.code_version().to_owned()
}

/// The same set of fields as Ray, except that an entry without such a field does not count:
/// the order of the entries that have one does, as there.
pub(crate) fn hash_of_code(application: &Application) -> String {
    let options = || application.deployments.iter().map(|entry| &entry.options);
    let policies: Vec<Option<&Value>> = options()
        .filter_map(|options| options.autoscaling_config.value())
        .map(|config| config.get("policy"))
        .collect();
    let routers: Vec<_> = options()
        .filter_map(|options| options.request_router_config.as_ref())
        .collect();
    let actors: Vec<_> = options()
        .filter_map(|options| options.deployment_actors.value())
        .collect();
    hash(&json!({
        "import_path": application.import_path,
        "runtime_env": application.runtime_env,
        "args": application.args,
        "autoscaling_policy": application.autoscaling_policy,
        "deployment_autoscaling_policies": policies,
        "request_router_configs": routers,
        "deployment_actors": actors,
    }))
}

/// SHA-256 of the canonical text of a value, in hex.
pub(crate) fn hash(value: &Value) -> String {
    let mut text = String::new();
    canonical(value, &mut text);
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// JSON without blanks and with sorted keys. Not left to the map type, whose order depends on
/// the features that some other crate asks for.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&value.to_string());
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                canonical(item, text);
            }
            text.push(']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            text.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::String(key.clone()).to_string());
                text.push(':');
                canonical(value, text);
            }
            text.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_same_in_every_process_and_do_not_depend_on_key_order() {
        let one: Value =
            serde_json::from_str(r#"{"b": [1, 2.5, null], "a": {"y": 1, "x": "é"}}"#).unwrap();
        let two: Value =
            serde_json::from_str(r#"{"a": {"x": "é", "y": 1}, "b": [1, 2.5, null]}"#).unwrap();
        let mut text = String::new();
        canonical(&one, &mut text);
        assert_eq!(text, r#"{"a":{"x":"é","y":1},"b":[1,2.5,null]}"#);
        assert_eq!(hash(&one), hash(&two));
        // The SHA-256 of `{}`, known from elsewhere.
        assert_eq!(
            hash(&json!({})),
            "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
    }
}
