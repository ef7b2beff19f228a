//! `GET /api/mobula/overview`: what the dashboard shows, and with `?application=A&deployment=D`
//! the replicas of one deployment.

use http::header::{CACHE_CONTROL, HeaderValue};
use serde::Serialize;

use super::Admin;
use super::reply::{JSON, Reply, error_reply, reply};
use super::route::decoded;
use crate::world::DeploymentId;

pub async fn get(admin: &Admin, query: &str) -> Reply {
    let asked = match deployment(query) {
        Ok(asked) => asked,
        Err(why) => return error_reply(400, &why),
    };
    let Some(id) = asked else {
        return match admin.controller.overview().await {
            Ok(overview) => document(&*overview),
            Err(error) => error_reply(503, &error.to_string()),
        };
    };
    match admin.controller.replicas(id.clone()).await {
        Ok(Some(replicas)) => document(&replicas),
        Ok(None) => error_reply(404, &format!("deployment '{id}' is not deployed")),
        Err(error) => error_reply(503, &error.to_string()),
    }
}

/// What is true now, and nothing that a cache should keep.
fn document(value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(body) => {
            let mut reply = reply(200, JSON, body);
            reply
                .headers_mut()
                .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            reply
        }
        Err(error) => error_reply(500, &format!("the document cannot be written: {error}")),
    }
}

/// The deployment that is asked for, if one is.
fn deployment(query: &str) -> Result<Option<DeploymentId>, String> {
    let (mut application, mut deployment) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let slot = match key {
            "application" => &mut application,
            "deployment" => &mut deployment,
            unknown => {
                let shown: String = unknown.chars().take(80).collect();
                return Err(format!(
                    "the parameter '{shown}' is not known here, allowed: application, deployment"
                ));
            }
        };
        let text = decoded(&value.replace('+', "%20"));
        *slot = Some(text.ok_or_else(|| format!("{key}: must be a name, percent-encoded"))?);
    }
    match (application, deployment) {
        (None, None) => Ok(None),
        (Some(application), Some(deployment)) => Ok(Some(DeploymentId {
            application,
            deployment,
        })),
        (Some(_), None) => Err("deployment: must be given with application".to_owned()),
        (None, Some(_)) => Err("application: must be given with deployment".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_is_named_whole_or_not_at_all() {
        assert_eq!(deployment(""), Ok(None));
        let id = deployment("application=my+app&deployment=D%23%26").unwrap();
        assert_eq!(id.unwrap().to_string(), "my app#D#&");
        for (query, named) in [
            ("application=a", "deployment"),
            ("deployment=a", "application"),
            ("application=&deployment=d", "application"),
            ("deployment=%zz", "deployment"),
            ("replica=a", "replica"),
        ] {
            let why = deployment(query).unwrap_err();
            assert!(why.contains(named), "{query}: {why}");
        }
    }
}
