//! What `mobula run` says when it serves: the addresses, and commands that work when pasted.

use std::path::Path;

use serde_json::Value;

/// The banner for what is deployed. `document` is the GET document of the admin API.
/// `token_file`: with the token that the admin API wants.
pub fn banner(admin: &str, token_file: Option<&Path>, document: &Value) -> String {
    let mut lines = vec![
        format!("Mobula {} is serving.", env!("CARGO_PKG_VERSION")),
        String::new(),
    ];
    lines.push(format!("  admin  {admin} (in a browser: the dashboard)"));
    let http = http_address(document);
    if let Some(http) = &http {
        lines.push(format!("  http   {http}"));
    }
    if let Some(grpc) = grpc_address(document) {
        lines.push(format!("  grpc   {grpc}"));
    }
    let status = status_command(admin, token_file);
    let commands = commands(status, http.as_deref(), document);
    if !commands.is_empty() {
        lines.push(String::new());
        lines.push("Try:".to_owned());
        lines.extend(commands.into_iter().map(|command| format!("  {command}")));
    }
    lines.push(String::new());
    lines.push("Ctrl-C drains and ends.".to_owned());
    lines.join("\n") + "\n"
}

/// A client on this machine cannot connect to "every address".
fn reachable(host: &str) -> String {
    match host {
        "0.0.0.0" | "" => "127.0.0.1".to_owned(),
        "::" | "[::]" => "[::1]".to_owned(),
        other => other.to_owned(),
    }
}

fn http_address(document: &Value) -> Option<String> {
    let options = document.get("http_options")?;
    let port = options["port"].as_u64()?;
    let has_tls = options["ssl_certfile"]
        .as_str()
        .is_some_and(|file| !file.is_empty());
    let scheme = if has_tls { "https" } else { "http" };
    let host = reachable(options["host"].as_str()?);
    Some(format!("{scheme}://{host}:{port}"))
}

fn grpc_address(document: &Value) -> Option<String> {
    let port = document.get("grpc_options")?["port"].as_u64()?;
    let host = document.get("http_options")?["host"].as_str()?;
    Some(format!("{}:{port}", reachable(host)))
}

/// Three curl lines: for the deployments that are there, and the status for the rest.
fn commands(status: String, http: Option<&str>, document: &Value) -> Vec<String> {
    let mut commands = Vec::new();
    let applications = document["applications"].as_object();
    for application in applications.into_iter().flat_map(|map| map.values()) {
        let (Some(http), Some(prefix)) = (http, application["route_prefix"].as_str()) else {
            continue;
        };
        let base = format!("{http}{}", prefix.trim_end_matches('/'));
        let deployments = application["deployments"].as_object();
        for name in deployments.into_iter().flat_map(|map| map.keys()) {
            commands.push(example(name, &base));
        }
    }
    commands.truncate(3);
    if commands.len() < 3 {
        commands.push(status);
    }
    commands
}

/// The token itself is not shown: whoever may use it can read the file.
fn status_command(admin: &str, token_file: Option<&Path>) -> String {
    let header = token_file.map_or_else(String::new, |file| {
        format!(" -H \"authorization: Bearer $(cat '{}')\"", file.display())
    });
    format!("curl -s {admin}/api/serve/applications/{header}")
}

fn example(deployment: &str, base: &str) -> String {
    let post = |path: &str, body: &str| {
        format!("curl -s {base}{path} -H 'content-type: application/json' -d '{body}'")
    };
    match deployment {
        "Embedder" => post("/v1/embeddings", r#"{"input": "What is deep learning?"}"#),
        "Reranker" => post(
            "/rerank",
            r#"{"query": "What is deep learning?", "texts": ["Deep learning is a kind of machine learning.", "Cheese is made of milk."]}"#,
        ),
        "Classifier" => post(
            "/infer",
            r#"{"inputs": ["I love this!", "This is awful."]}"#,
        ),
        _ => format!("curl -s {base}/"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_banner_names_addresses_and_commands_that_can_be_pasted() {
        let document = json!({
            "http_options": {"host": "0.0.0.0", "port": 8000},
            "grpc_options": {"port": 9000},
            "applications": {"rag": {"route_prefix": "/rag", "deployments": {
                "Embedder": {}, "Reranker": {}, "Classifier": {},
            }}},
        });
        insta::assert_snapshot!(banner("http://127.0.0.1:8265", None, &document));
    }

    #[test]
    fn without_a_config_the_banner_points_to_the_admin_api() {
        let text = banner("http://127.0.0.1:8265", None, &json!({"applications": {}}));
        assert!(
            text.contains("curl -s http://127.0.0.1:8265/api/serve/applications/"),
            "{text}"
        );
        assert!(!text.contains("grpc"), "{text}");
    }

    #[test]
    fn the_admin_line_shows_where_the_token_is_and_not_the_token() {
        let file = Some(Path::new("/etc/my token"));
        let text = banner("http://127.0.0.1:8265", file, &json!({"applications": {}}));
        let header = r#"-H "authorization: Bearer $(cat '/etc/my token')""#;
        assert!(text.contains(header), "{text}");
    }
}
