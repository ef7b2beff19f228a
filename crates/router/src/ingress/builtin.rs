//! What the HTTP ingress answers by itself: `/-/healthz`, `/-/routes`, `/healthz`. Pure.

use http::StatusCode;

use crate::table::Table;

const NOT_POPULATED: &str = "Route table is not populated yet.";
const DRAINING: &str = "This node is being drained.";

/// An answer of the router's own.
#[derive(Debug, PartialEq, Eq)]
pub struct Builtin {
    /// Status.
    pub status: StatusCode,
    /// Body.
    pub body: String,
    /// Content type.
    pub content_type: &'static str,
}

/// Content type of texts, as Ray sends it.
pub const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Answers a path of the router's own; `None` for all others.
pub fn answer(path: &str, table: &Table, draining: bool) -> Option<Builtin> {
    match path {
        "/-/healthz" => Some(alive(table, draining)),
        "/-/routes" => Some(routes(table, draining)),
        "/healthz" => Some(ready(table, draining)),
        _ => None,
    }
}

/// Why the router cannot take requests, as Ray's proxies say it.
pub fn not_alive(table: &Table, draining: bool) -> Option<&'static str> {
    if draining {
        Some(DRAINING)
    } else if table.version == 0 {
        Some(NOT_POPULATED)
    } else {
        None
    }
}

fn alive(table: &Table, draining: bool) -> Builtin {
    match not_alive(table, draining) {
        None => text(StatusCode::OK, "success"),
        Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

/// Ready is more than alive: every application is RUNNING, so its models are loaded.
fn ready(table: &Table, draining: bool) -> Builtin {
    let reason = match not_alive(table, draining) {
        Some(reason) => Some(reason.to_owned()),
        None => table.not_ready(),
    };
    match reason {
        None => text(StatusCode::OK, "success"),
        Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}

fn routes(table: &Table, draining: bool) -> Builtin {
    if let Some(reason) = not_alive(table, draining) {
        return text(StatusCode::SERVICE_UNAVAILABLE, reason);
    }
    let by_prefix: serde_json::Map<String, serde_json::Value> = table
        .http_prefixes()
        .map(|(prefix, name)| (prefix.to_owned(), name.into()))
        .collect();
    Builtin {
        status: StatusCode::OK,
        body: serde_json::Value::Object(by_prefix).to_string(),
        content_type: JSON,
    }
}

fn text(status: StatusCode, body: &str) -> Builtin {
    Builtin {
        status,
        body: body.to_owned(),
        content_type: TEXT,
    }
}

#[cfg(test)]
mod tests {
    use mobula_proto::v1;

    use super::*;

    fn table(running: bool) -> Table {
        let deployment = v1::TableDeployment {
            name: "D".into(),
            ..Default::default()
        };
        Table::new(v1::RouteTable {
            routers: Vec::new(),
            version: 3,
            ingress: None,
            applications: vec![v1::TableApplication {
                name: "app1".into(),
                route_prefix: Some("/a".into()),
                ingress_deployment: "D".into(),
                running,
                deployments: vec![deployment],
                ..Default::default()
            }],
        })
    }

    fn said(path: &str, table: &Table, draining: bool) -> (u16, String) {
        let builtin = answer(path, table, draining).unwrap();
        (builtin.status.as_u16(), builtin.body)
    }

    #[test]
    fn alive_needs_a_table_and_ready_needs_every_application_running() {
        let none = Table::default();
        for path in ["/-/healthz", "/-/routes", "/healthz"] {
            assert_eq!(said(path, &none, false), (503, NOT_POPULATED.into()));
            assert_eq!(said(path, &table(true), true), (503, DRAINING.into()));
        }
        assert_eq!(said("/-/healthz", &table(false), false).0, 200);
        assert_eq!(
            said("/healthz", &table(false), false),
            (503, "Applications not RUNNING yet: app1.".into())
        );
        assert_eq!(
            said("/healthz", &table(true), false),
            (200, "success".into())
        );
    }

    #[test]
    fn routes_are_a_json_object_of_prefix_and_application() {
        let routes = said("/-/routes", &table(true), false);
        assert_eq!(routes, (200, r#"{"/a":"app1"}"#.into()));
    }

    #[test]
    fn other_paths_are_the_applications() {
        assert_eq!(answer("/healthz/x", &table(true), false), None);
        assert_eq!(answer("/", &table(true), false), None);
    }
}
