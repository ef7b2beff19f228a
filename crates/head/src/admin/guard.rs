//! Requests that a browser may have been tricked into sending. Pure.
//!
//! The admin API has no login on a developer's machine, so a web page that the developer opens
//! must not be able to deploy or delete. Ray's rules: what looks like a browser may only read.

use http::HeaderMap;
use http::header::{ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::header::{REFERER, USER_AGENT};
use serde_json::Value;

/// Whether the request looks like one of a browser.
pub fn is_from_browser(headers: &HeaderMap) -> bool {
    let agent = headers
        .get(USER_AGENT)
        .map(http::HeaderValue::as_bytes)
        .unwrap_or_default();
    agent.starts_with(b"Mozilla")
        || [
            ORIGIN,
            REFERER,
            ACCESS_CONTROL_REQUEST_METHOD,
            ACCESS_CONTROL_REQUEST_HEADERS,
        ]
        .iter()
        .any(|name| headers.contains_key(name))
        || headers
            .keys()
            .any(|name| name.as_str().starts_with("sec-fetch-"))
}

/// Replaces the values of all environment variables in a document.
pub fn redact(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::Object(variables) if key == "env_vars" => {
                        for value in variables.values_mut() {
                            *value = Value::String("<redacted>".to_owned());
                        }
                    }
                    other => redact(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn command_line_clients_are_no_browsers() {
        for agent in ["python-requests/2.32.3", "Go-http-client/1.1", "curl/8.5.0"] {
            assert!(
                !is_from_browser(&headers(&[("user-agent", agent)])),
                "{agent}"
            );
        }
        assert!(!is_from_browser(&HeaderMap::new()));
    }

    #[test]
    fn any_header_that_only_browsers_send_gives_them_away() {
        for pair in [
            ("user-agent", "Mozilla/5.0"),
            ("origin", "http://evil.example"),
            ("referer", "http://evil.example/"),
            ("sec-fetch-site", "cross-site"),
            ("access-control-request-method", "PUT"),
        ] {
            assert!(is_from_browser(&headers(&[pair])), "{pair:?}");
        }
    }

    #[test]
    fn values_of_environment_variables_are_hidden_at_every_level() {
        let mut document = serde_json::json!({
            "applications": {"a": {"deployed_app_config": {
                "runtime_env": {"env_vars": {"TOKEN": "secret"}},
                "deployments": [{"ray_actor_options": {"runtime_env": {
                    "env_vars": {"KEY": "secret"}}}}],
            }}},
            "env_vars": "not a map",
        });
        redact(&mut document);
        let text = document.to_string();
        assert!(!text.contains("secret"), "{text}");
        assert!(
            text.contains("TOKEN") && text.contains("not a map"),
            "{text}"
        );
    }
}
