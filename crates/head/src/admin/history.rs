//! `GET /api/mobula/history` and `POST /api/mobula/rollback`.

use mobula_spec::ServeConfig;
use serde_json::{Value, json};

use super::Admin;
use super::applications::{now_s, store_failed};
use super::reply::{Reply, error_reply, json_reply, with_revision};
use crate::documents::StoredConfig;
use crate::history::{End, History};
use crate::message::{DeployError, Proposal};

pub async fn get(admin: &Admin) -> Reply {
    match admin.controller.history().await {
        Ok(history) => with_revision(json_reply(200, &history.document()), history.version()),
        Err(error) => error_reply(503, &error.to_string()),
    }
}

pub async fn rollback(admin: &Admin, body: &[u8]) -> Reply {
    let wanted = match wanted(body) {
        Ok(wanted) => wanted,
        Err(why) => return error_reply(400, &format!("invalid request body: {why}")),
    };
    match roll_back(admin, wanted).await {
        Ok(reply) | Err(reply) => reply,
    }
}

/// The revision that is asked for, if one is.
fn wanted(body: &[u8]) -> Result<Option<u64>, String> {
    if body.is_empty() {
        return Ok(None);
    }
    let body: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let fields = body.as_object().ok_or("it must be an object")?;
    if let Some(unknown) = fields.keys().find(|key| *key != "revision") {
        let shown: String = unknown.chars().take(80).collect();
        return Err(format!(
            "the key '{shown}' is not known here, allowed: revision"
        ));
    }
    match fields.get("revision") {
        None | Some(Value::Null) => Ok(None),
        Some(revision) => match revision.as_u64() {
            Some(revision) if revision > 0 => Ok(Some(revision)),
            Some(_) | None => Err(format!(
                "revision must be an integer of at least 1, got {revision}"
            )),
        },
    }
}

async fn roll_back(admin: &Admin, wanted: Option<u64>) -> Result<Reply, Reply> {
    let away = |error: crate::handle::NoAnswer| error_reply(503, &error.to_string());
    let history = admin.controller.history().await.map_err(away)?;
    let (target, stored) = target(admin, &history, wanted).await?;
    let checked = ServeConfig::from_json(stored.config.to_string().as_bytes())
        .map_err(|errors| error_reply(409, &format!("revision {target}: {errors}")))?;
    let unknown = admin.preparer.unknown_import_paths(&checked.config);
    if !unknown.is_empty() {
        let why = unknown.join("\n");
        return Err(error_reply(409, &format!("revision {target}: {why}")));
    }
    let now = now_s();
    let spec = admin.preparer.prepare(&checked.config, now).await;
    let proposal = Proposal {
        config: StoredConfig::new(stored.config, now),
        spec,
        reason: format!("rolled back to revision {target}"),
        end: End::RolledBack,
        expected: Some(history.version()),
    };
    match admin.controller.deploy(proposal).await.map_err(away)? {
        Ok(deployed) => {
            let answer = json!({"revision": deployed.revision, "rolled_back_to": target});
            Ok(with_revision(json_reply(200, &answer), deployed.revision))
        }
        Err(error @ DeployError::Conflict { .. }) => Err(error_reply(
            409,
            &format!("the config changed meanwhile: {error}"),
        )),
        Err(DeployError::Store(error)) => Err(store_failed(&error)),
    }
}

/// The revision to go back to and its config.
async fn target(
    admin: &Admin,
    history: &History,
    wanted: Option<u64>,
) -> Result<(u64, StoredConfig), Reply> {
    if let Some(revision) = wanted {
        let config = config(admin, revision).await?;
        return match config {
            Some(config) => Ok((revision, config)),
            None => Err(error_reply(404, &not_kept(history, revision))),
        };
    }
    let current = match history.current {
        Some(current) => config(admin, current).await?,
        None => None,
    };
    for revision in history.good() {
        let Some(config) = config(admin, revision).await? else {
            continue;
        };
        // Going back to what is there already is going nowhere.
        if current
            .as_ref()
            .is_none_or(|current| current.config != config.config)
        {
            return Ok((revision, config));
        }
    }
    Err(error_reply(
        409,
        "no other revision is known whose applications were all RUNNING; name one",
    ))
}

async fn config(admin: &Admin, revision: u64) -> Result<Option<StoredConfig>, Reply> {
    match admin.controller.config(Some(revision)).await {
        Ok(Ok(found)) => Ok(found.config),
        Ok(Err(error)) => Err(store_failed(&error)),
        Err(error) => Err(error_reply(503, &error.to_string())),
    }
}

fn not_kept(history: &History, revision: u64) -> String {
    if history.record(revision).is_some() {
        return format!("revision {revision} deleted everything, there is no config to go back to");
    }
    let kept: Vec<String> = history
        .records
        .iter()
        .map(|record| record.revision.to_string())
        .collect();
    format!(
        "revision {revision} is not kept; kept are: {}",
        kept.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_names_one_revision_or_none() {
        assert_eq!(wanted(b""), Ok(None));
        assert_eq!(wanted(b"{}"), Ok(None));
        assert_eq!(wanted(br#"{"revision": 3}"#), Ok(Some(3)));
        for wrong in [
            &b"[]"[..],
            b"x",
            br#"{"revision": 0}"#,
            br#"{"revision": "3"}"#,
            br#"{"to": 3}"#,
        ] {
            assert!(wanted(wrong).is_err());
        }
    }
}
