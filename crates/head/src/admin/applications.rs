//! `GET`, `PUT` and `DELETE /api/serve/applications/`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use mobula_spec::ServeConfig;
use mobula_store::StoreError;

use super::reply::{Reply, json_reply, text_reply, with_revision};
use super::{Admin, guard};
use crate::documents::StoredConfig;
use crate::history::End;
use crate::message::{DeployError, Proposal};
use crate::status::ApiType;

/// DELETE answers after this time even if replicas are still stopping, as with Ray.
const DELETE_SECONDS_MAX: Duration = Duration::from_secs(30);

/// Warnings travel in a header; this much of them, which every client takes.
const WARNINGS_BYTES_MAX: usize = 4 * 1024;

/// The header of a PUT's answer that holds what was accepted and will not act.
const WARNINGS: &str = "x-mobula-warnings";

pub async fn get(admin: &Admin, query: &str, from_browser: bool) -> Reply {
    let filter = match api_type(query) {
        Ok(filter) => filter,
        Err(text) => return text_reply(400, text),
    };
    match admin.controller.status(filter).await {
        Ok(mut document) => {
            if from_browser {
                guard::redact(&mut document);
            }
            json_reply(200, &document)
        }
        Err(error) => text_reply(503, error.to_string()),
    }
}

pub async fn put(admin: &Admin, body: &[u8]) -> Reply {
    let checked = match ServeConfig::from_json(body) {
        Ok(checked) => checked,
        Err(errors) => return text_reply(400, errors.to_string()),
    };
    let unknown = admin.preparer.refusals(&checked.config).await;
    if !unknown.is_empty() {
        return text_reply(400, unknown.join("\n"));
    }
    let deployed_time_s = now_s();
    let spec = admin
        .preparer
        .prepare(&checked.config, deployed_time_s)
        .await;
    let proposal = Proposal {
        config: StoredConfig::new(checked.config.to_json(), deployed_time_s),
        spec,
        reason: "the whole config was deployed".to_owned(),
        end: End::Superseded,
        expected: None,
    };
    match admin.controller.deploy(proposal).await {
        Ok(Ok(deployed)) => {
            let early = checked.warnings.iter().map(ToString::to_string);
            let warnings = early.chain(deployed.warnings).collect();
            with_revision(
                accepted_warnings(text_reply(200, ""), warnings),
                deployed.revision,
            )
        }
        Ok(Err(DeployError::Store(error))) => store_failed(&error),
        Ok(Err(error @ DeployError::Conflict { .. })) => text_reply(409, error.to_string()),
        Err(error) => text_reply(503, error.to_string()),
    }
}

pub async fn delete(admin: &Admin) -> Reply {
    let mut serving = admin.controller.serving();
    match admin.controller.delete_all().await {
        Ok(Ok(())) => {
            // Whoever has to wait longer finds out by GET.
            let gone = serving.wait_for(|serving| !serving);
            let _ = tokio::time::timeout(DELETE_SECONDS_MAX, gone).await;
            text_reply(200, "")
        }
        Ok(Err(error)) => store_failed(&error),
        Err(error) => text_reply(503, error.to_string()),
    }
}

/// Unix time.
pub fn now_s() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// The answer with what was accepted and will not act.
pub fn accepted_warnings(mut reply: Reply, warnings: Vec<String>) -> Reply {
    if !warnings.is_empty()
        && let Ok(value) = HeaderValue::from_str(&header_text(&warnings))
    {
        reply.headers_mut().insert(WARNINGS, value);
    }
    reply
}

/// The answer to a change that is not durable.
pub fn store_failed(error: &StoreError) -> Reply {
    let status = match error {
        StoreError::Invalid(_) => 400,
        StoreError::Fenced
        | StoreError::Conflict { .. }
        | StoreError::Unavailable(_)
        | StoreError::Unknown(_)
        | StoreError::Corrupt(_) => 503,
    };
    text_reply(status, format!("the config was not stored: {error}"))
}

/// One line of printable ASCII, within the limit.
fn header_text(warnings: &[String]) -> String {
    let mut text = String::new();
    for (index, warning) in warnings.iter().enumerate() {
        let separator = if index > 0 { "; " } else { "" };
        let plain = warning
            .chars()
            .map(|c| if matches!(c, ' '..='~') { c } else { '?' });
        if text.len() + separator.len() + warning.len() > WARNINGS_BYTES_MAX {
            text.push_str(&format!("; and {} more", warnings.len() - index));
            break;
        }
        text.push_str(separator);
        text.extend(plain);
    }
    text
}

fn api_type(query: &str) -> Result<Option<ApiType>, String> {
    let value = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("api_type="));
    match value.map(str::to_ascii_lowercase).as_deref() {
        None => Ok(None),
        Some("declarative") => Ok(Some(ApiType::Declarative)),
        Some("imperative") => Ok(Some(ApiType::Imperative)),
        Some(other) => {
            let shown: String = other.chars().take(80).collect();
            Err(format!(
                "api_type: '{shown}' is not allowed; allowed are declarative and imperative"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_become_one_bounded_line_of_ascii() {
        assert_eq!(header_text(&["a\nb".to_owned(), "é".to_owned()]), "a?b; ?");
        let many = vec!["x".repeat(1000); 100];
        let text = header_text(&many);
        assert!(text.len() < WARNINGS_BYTES_MAX + 32, "{}", text.len());
        assert!(text.ends_with("; and 96 more"), "{text}");
    }

    #[test]
    fn the_api_type_is_read_in_any_letter_case() {
        assert_eq!(api_type(""), Ok(None));
        assert_eq!(
            api_type("x=1&api_type=Declarative"),
            Ok(Some(ApiType::Declarative))
        );
        assert_eq!(
            api_type("api_type=IMPERATIVE"),
            Ok(Some(ApiType::Imperative))
        );
        assert!(
            api_type("api_type=unknown")
                .unwrap_err()
                .contains("declarative")
        );
    }
}
