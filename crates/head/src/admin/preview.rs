//! `POST /api/mobula/plan`: what a config would do. Changes nothing.

use mobula_spec::ServeConfig;
use serde_json::{Value, json};

use super::Admin;
use super::applications::now_s;
use super::reply::{Reply, error_reply, json_reply, with_revision};

pub async fn preview(admin: &Admin, body: &[u8]) -> Reply {
    let checked = match ServeConfig::from_json(body) {
        Ok(checked) => checked,
        Err(errors) => return error_reply(400, &errors.to_string()),
    };
    let unknown = admin.preparer.refusals(&checked.config).await;
    if !unknown.is_empty() {
        return error_reply(400, &unknown.join("\n"));
    }
    let spec = admin.preparer.prepare(&checked.config, now_s()).await;
    match admin.controller.preview(spec).await {
        Ok(mut document) => {
            let warnings: Vec<Value> = checked
                .warnings
                .iter()
                .map(|warning| json!(warning.to_string()))
                .collect();
            document["warnings"] = Value::Array(warnings);
            let revision = document["revision"].as_u64().unwrap_or(0);
            with_revision(json_reply(200, &document), revision)
        }
        Err(error) => error_reply(503, &error.to_string()),
    }
}
