//! `mobula deploy --app` and `mobula delete`: one application, the others untouched.

use anyhow::{Context, Result};
use http::Method;
use serde_json::Value;

use super::deploy::read_config;
use super::http::{Answer, send_if};
use super::target::Target;
use crate::args::{DeleteArgs, DeployArgs};

/// Sends one application of a config file.
pub async fn deploy(args: &DeployArgs, application: &str) -> Result<()> {
    let document: Value = serde_json::from_slice(&read_config(&args.config)?)?;
    let entry = entry(&document, application).with_context(|| {
        format!(
            "{} has no application '{application}'",
            args.config.display()
        )
    })?;
    let body = serde_json::to_vec(entry).context("the application cannot be written as JSON")?;
    let target = Target::from_args(&args.address)?;
    let path = path(application);
    let answer = send_if(&target, Method::PUT, &path, body, args.revision).await?;
    println!(
        "Sent '{application}'; this is revision {}.",
        revision(&answer)?
    );
    println!(" * Use `mobula status -n {application}` to check its status.");
    Ok(())
}

/// Deletes one application.
pub async fn delete(args: &DeleteArgs) -> Result<()> {
    let target = Target::from_args(&args.address)?;
    let path = path(&args.name);
    let answer = send_if(&target, Method::DELETE, &path, Vec::new(), args.revision).await?;
    let revision = revision(&answer)?;
    println!(
        "'{}' is being deleted; this is revision {revision}. Its replicas drain in the background.",
        args.name
    );
    Ok(())
}

fn revision(answer: &Answer) -> Result<Value> {
    Ok(answer.json()?["revision"].clone())
}

fn entry<'a>(document: &'a Value, application: &str) -> Option<&'a Value> {
    let mut entries = document["applications"].as_array()?.iter();
    entries.find(|entry| entry["name"].as_str().unwrap_or("default") == application)
}

/// A name may hold anything, a path segment may not.
fn path(application: &str) -> String {
    let mut path = "/api/mobula/applications/".to_owned();
    for byte in application.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn any_name_becomes_one_path_segment() {
        assert_eq!(path("rag-1"), "/api/mobula/applications/rag-1");
        assert_eq!(path("a/b ü"), "/api/mobula/applications/a%2Fb%20%C3%BC");
    }

    #[test]
    fn an_entry_without_a_name_is_the_default_application() {
        let document = json!({"applications": [{"name": "a"}, {"import_path": "x:y"}]});
        assert_eq!(
            entry(&document, "default"),
            Some(&json!({"import_path": "x:y"}))
        );
        assert_eq!(entry(&document, "b"), None);
    }
}
