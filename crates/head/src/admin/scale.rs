//! `POST /api/v1/applications/{application}/deployments/{deployment}/scale`, for scalers
//! outside of the head.

use serde_json::{Value, json};

use super::Admin;
use super::reply::{Reply, error_reply, json_reply};
use crate::message::ScaleError;
use crate::world::DeploymentId;

pub async fn scale(admin: &Admin, application: String, deployment: String, body: &[u8]) -> Reply {
    let target = match target(body) {
        Ok(target) => target,
        Err(why) => return error_reply(400, &format!("Invalid request body: {why}")),
    };
    let id = DeploymentId {
        application,
        deployment,
    };
    match admin.controller.scale(id.clone(), target).await {
        Ok(Ok(())) => json_reply(
            200,
            &json!({
                "message":
                    "Scaling request received. Deployment will get scaled asynchronously."
            }),
        ),
        Ok(Err(ScaleError::NotFound)) => error_reply(404, "Application or Deployment not found"),
        Ok(Err(ScaleError::Deleted)) => error_reply(412, "Deployment is deleted"),
        Ok(Err(ScaleError::NotEnabled)) => error_reply(
            412,
            &format!(
                "External scaler is not enabled for application '{}'. Set \
                 `external_scaler_enabled: true` in the application's config to let this route \
                 set the number of its replicas.",
                id.application
            ),
        ),
        Ok(Err(ScaleError::Store(error))) => error_reply(
            503,
            &format!("the count is not known to be stored: {error}"),
        ),
        Err(error) => error_reply(503, &error.to_string()),
    }
}

fn target(body: &[u8]) -> Result<u32, String> {
    let body: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let target = body
        .get("target_num_replicas")
        .ok_or("target_num_replicas is required")?;
    target
        .as_u64()
        .and_then(|target| u32::try_from(target).ok())
        .ok_or_else(|| {
            format!("target_num_replicas must be an integer of at least 0, got {target}")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_from_zero_on_are_counts() {
        assert_eq!(target(br#"{"target_num_replicas": 0}"#), Ok(0));
        for wrong in [
            &br#"{}"#[..],
            b"[]",
            b"x",
            br#"{"target_num_replicas": -1}"#,
        ] {
            assert!(target(wrong).is_err());
        }
        assert!(target(br#"{"target_num_replicas": 1.5}"#).is_err());
    }
}
