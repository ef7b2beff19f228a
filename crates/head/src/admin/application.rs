//! `GET`, `PUT` and `DELETE /api/mobula/applications/{application}`: one application, the
//! others untouched.
//!
//! Ray has one document for all of them, so that two people who change two applications
//! overwrite each other. Here a change says with `If-Match` which revision it was made from.

use http::HeaderMap;
use http::header::IF_MATCH;
use serde_json::{Value, json};

use super::applications::{accepted_warnings, now_s, store_failed};
use super::reply::{Reply, error_reply, json_reply, with_revision};
use super::{Admin, guard};
use crate::edit::{exchanged, name};
use crate::handle::NoAnswer;
use crate::history::End;
use crate::message::{DeployError, Found, Proposal};

/// Changes without `If-Match` that meet another change are made anew this often.
const TRIES_MAX: usize = 5;

pub async fn get(admin: &Admin, application: &str, from_browser: bool) -> Reply {
    let found = match current(admin).await {
        Ok(found) => found,
        Err(reply) => return reply,
    };
    match entry(&found, application) {
        Some(mut entry) => {
            if from_browser {
                guard::redact(&mut entry);
            }
            with_revision(json_reply(200, &entry), found.version)
        }
        None => with_revision(unknown(application), found.version),
    }
}

pub async fn put(admin: &Admin, application: &str, headers: &HeaderMap, body: &[u8]) -> Reply {
    let entry = match entry_of(application, body) {
        Ok(entry) => entry,
        Err(why) => return error_reply(400, &why),
    };
    change(admin, application, headers, Some(entry)).await
}

pub async fn delete(admin: &Admin, application: &str, headers: &HeaderMap) -> Reply {
    change(admin, application, headers, None).await
}

/// The entry of the body; its name is the path's.
fn entry_of(application: &str, body: &[u8]) -> Result<Value, String> {
    let mut entry: Value =
        serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
    let Some(fields) = entry.as_object_mut() else {
        return Err("the body must be one application, an object".to_owned());
    };
    let given = fields.entry("name").or_insert_with(|| json!(application));
    if given.as_str() != Some(application) {
        return Err(format!(
            "name: must be '{application}' as in the path, or be left out"
        ));
    }
    Ok(entry)
}

async fn change(
    admin: &Admin,
    application: &str,
    headers: &HeaderMap,
    entry: Option<Value>,
) -> Reply {
    let expected = match if_match(headers) {
        Ok(expected) => expected,
        Err(why) => return error_reply(400, &why),
    };
    for _ in 0..TRIES_MAX {
        match try_change(admin, application, expected, entry.clone()).await {
            Ok(reply) | Err(Refused::Reply(reply)) => return reply,
            Err(Refused::Moved { newest }) if expected.is_some() => {
                return mismatch(expected.unwrap_or_default(), newest);
            }
            Err(Refused::Moved { .. }) => {}
        }
    }
    error_reply(503, "the config changes too often, try again")
}

/// Why a change did not happen.
enum Refused {
    Reply(Reply),
    /// It was made from a revision that is not the newest any more.
    Moved {
        newest: u64,
    },
}

async fn try_change(
    admin: &Admin,
    application: &str,
    expected: Option<u64>,
    entry: Option<Value>,
) -> Result<Reply, Refused> {
    let found = current(admin).await.map_err(Refused::Reply)?;
    if expected.is_some_and(|expected| expected != found.version) {
        return Err(Refused::Moved {
            newest: found.version,
        });
    }
    if entry.is_none() && self::entry(&found, application).is_none() {
        return Err(Refused::Reply(unknown(application)));
    }
    let verb = if entry.is_some() {
        "deployed"
    } else {
        "deleted"
    };
    let now = now_s();
    let edited = exchanged(found.config.as_ref(), application, entry, now)
        .map_err(|why| Refused::Reply(error_reply(400, &why)))?;
    let config = &edited.checked.config;
    if verb == "deployed" {
        let paths = admin.preparer.unknown_import_paths(config);
        if !paths.is_empty() {
            return Err(Refused::Reply(error_reply(400, &paths.join("\n"))));
        }
    }
    let proposal = Proposal {
        spec: admin.preparer.prepare_only(config, application, now).await,
        config: edited.stored,
        reason: format!("application '{application}' was {verb}"),
        end: End::Superseded,
        expected: Some(found.version),
    };
    let answer = admin.controller.deploy(proposal).await;
    match answer.map_err(|error| Refused::Reply(away(error)))? {
        Ok(deployed) => {
            let answer = json!({"revision": deployed.revision});
            let early = edited.checked.warnings.iter().map(ToString::to_string);
            let warnings = early.chain(deployed.warnings).collect();
            let reply = accepted_warnings(json_reply(200, &answer), warnings);
            Ok(with_revision(reply, deployed.revision))
        }
        Err(DeployError::Conflict { newest, .. }) => Err(Refused::Moved { newest }),
        Err(DeployError::Store(error)) => Err(Refused::Reply(store_failed(&error))),
    }
}

async fn current(admin: &Admin) -> Result<Found, Reply> {
    match admin.controller.config(None).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(store_failed(&error)),
        Err(error) => Err(away(error)),
    }
}

fn entry(found: &Found, application: &str) -> Option<Value> {
    let entries = found.config.as_ref()?.config["applications"].as_array()?;
    let entry = entries.iter().find(|entry| name(entry) == application);
    entry.cloned()
}

fn away(error: NoAnswer) -> Reply {
    error_reply(503, &error.to_string())
}

fn unknown(application: &str) -> Reply {
    let shown: String = application.chars().take(80).collect();
    error_reply(404, &format!("application '{shown}' is not deployed"))
}

fn mismatch(expected: u64, newest: u64) -> Reply {
    let text = format!(
        "If-Match names revision {expected}, the newest revision is {newest}; look at the \
         config again and decide anew"
    );
    with_revision(error_reply(412, &text), newest)
}

/// The revision that a change was made from, as `ETag` named it; `*` is any.
fn if_match(headers: &HeaderMap) -> Result<Option<u64>, String> {
    let Some(value) = headers.get(IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    text.strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .and_then(|digits| digits.parse().ok())
        .map(Some)
        .ok_or_else(|| "If-Match: must be one revision in quotes, as ETag names it".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(IF_MATCH, value.parse().unwrap())])
    }

    #[test]
    fn if_match_is_a_quoted_revision() {
        assert_eq!(if_match(&HeaderMap::new()), Ok(None));
        assert_eq!(if_match(&header("\"12\"")), Ok(Some(12)));
        assert_eq!(if_match(&header("*")), Ok(None));
        for wrong in ["12", "\"x\"", "W/\"12\"", "\"1\", \"2\"", ""] {
            assert!(if_match(&header(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_name_is_the_one_of_the_path() {
        let entry = entry_of("a", br#"{"import_path": "x:y"}"#).unwrap();
        assert_eq!(entry["name"], "a");
        assert!(entry_of("a", br#"{"name": "b"}"#).is_err());
        assert!(entry_of("a", br#"{"name": 1}"#).is_err());
        assert!(entry_of("a", b"[]").is_err());
    }
}
