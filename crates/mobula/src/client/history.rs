//! `mobula history` and `mobula rollback`.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use http::Method;
use serde_json::{Value, json};

use super::http::send;
use super::target::Target;
use crate::args::{HistoryArgs, RollbackArgs};

/// Prints the accepted configs, newest first, and what became of each.
pub async fn history(args: &HistoryArgs) -> Result<()> {
    let target = Target::from_args(&args.address)?;
    let path = "/api/mobula/history";
    let document = send(&target, Method::GET, path, Vec::new()).await?.json()?;
    let now_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64());
    print!("{}", table(&document, now_s));
    Ok(())
}

/// Deploys a config of before.
pub async fn rollback(args: &RollbackArgs) -> Result<()> {
    let target = Target::from_args(&args.address)?;
    let body = match args.revision {
        Some(revision) => json!({ "revision": revision }),
        None => json!({}),
    };
    let body = body.to_string().into_bytes();
    let answer = send(&target, Method::POST, "/api/mobula/rollback", body).await?;
    let answer = answer.json()?;
    println!(
        "Rolled back to revision {}; this is revision {}.",
        answer["rolled_back_to"], answer["revision"]
    );
    println!(" * Use `mobula status` to check the applications' statuses.");
    Ok(())
}

fn table(document: &Value, now_s: f64) -> String {
    let revisions = document["revisions"].as_array();
    let mut text = String::new();
    for record in revisions.into_iter().flatten() {
        let current = record["revision"] == document["current"];
        let age = age(now_s - record["time_s"].as_f64().unwrap_or(now_s));
        text.push_str(&format!(
            "{mark} {revision:>5}  {age:>8} ago  {outcome:<11}  {reason}\n",
            mark = if current { '*' } else { ' ' },
            revision = record["revision"].as_u64().unwrap_or(0),
            outcome = record["outcome"].as_str().unwrap_or("unknown"),
            reason = record["reason"].as_str().unwrap_or_default(),
        ));
        for (application, error) in record["errors"].as_object().into_iter().flatten() {
            let error = error.as_str().unwrap_or_default();
            for line in format!("{application}: {error}").lines() {
                text.push_str(&format!("{:22}{line}\n", ""));
            }
        }
    }
    if text.is_empty() {
        text.push_str("Nothing was deployed yet.\n");
    }
    text
}

/// A span of time as people say it.
fn age(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_a_table_with_the_current_one_marked() {
        let document = json!({"current": 3, "revisions": [
            {"revision": 3, "time_s": 9_990.0, "outcome": "running",
             "reason": "application 'a' failed and was rolled back to revision 1"},
            {"revision": 2, "time_s": 9_400.0, "outcome": "rolled_back",
             "reason": "the whole config was deployed",
             "errors": {"a": "it failed to start\nno such model"}},
            {"revision": 1, "time_s": 0.0, "outcome": "superseded",
             "reason": "the whole config was deployed"},
        ]});
        insta::assert_snapshot!(table(&document, 10_000.0), @r"
        *     3      10 s ago  running      application 'a' failed and was rolled back to revision 1
              2    10 min ago  rolled_back  the whole config was deployed
                              a: it failed to start
                              no such model
              1       2 h ago  superseded   the whole config was deployed
        ");
        let nothing = table(&json!({"current": null, "revisions": []}), 0.0);
        assert_eq!(nothing, "Nothing was deployed yet.\n");
    }
}
