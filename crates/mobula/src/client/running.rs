//! Waits until every application runs, for scripts and `helm test`.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Map, Value};
use tokio::time::Instant;

/// How often the head is asked.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// What a look at the applications says.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Running,
    /// Names and statuses of those that do not run yet.
    Waiting(String),
    /// Names and messages of those that will not without a change.
    Failed(String),
}

/// Asks again until all applications run, one has failed, or the time is up. Answers the last
/// document.
pub async fn wait(
    within: Duration,
    mut fetch: impl AsyncFnMut() -> Result<Value>,
) -> Result<Value> {
    let deadline = Instant::now() + within;
    loop {
        let document = fetch().await;
        let waiting = match document {
            Ok(document) => match outcome(document["applications"].as_object()) {
                Outcome::Running => return Ok(document),
                Outcome::Failed(which) => bail!("not RUNNING: {which}"),
                Outcome::Waiting(which) => which,
            },
            // The head may be on its way, or another one about to lead.
            Err(error) if Instant::now() < deadline => format!("{error:#}"),
            Err(error) => return Err(error),
        };
        if Instant::now() >= deadline {
            bail!("not RUNNING within {} s: {waiting}", within.as_secs());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

fn outcome(applications: Option<&Map<String, Value>>) -> Outcome {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (mut waiting, mut failed) = (Vec::new(), Vec::new());
    for (name, application) in applications.into_iter().flatten() {
        match application["status"].as_str() {
            Some("RUNNING") => {}
            Some("DEPLOY_FAILED") => {
                failed.push(format!("{name}: {}", text(&application["message"])));
            }
            _ => waiting.push(format!("{name} is {}", text(&application["status"]))),
        }
    }
    if !failed.is_empty() {
        Outcome::Failed(failed.join("; "))
    } else if waiting.is_empty() {
        Outcome::Running
    } else {
        Outcome::Waiting(waiting.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(statuses: &[&str]) -> Value {
        let application = |(n, status): (usize, &&str)| {
            let content = json!({"status": status, "message": "no such model"});
            (format!("app{n}"), content)
        };
        json!({"applications": statuses.iter().enumerate().map(application).collect::<Map<_, _>>()})
    }

    const LONG: Duration = Duration::from_secs(60);

    async fn waited(within: Duration, answers: &[&[&str]]) -> Result<Value> {
        let mut answers = answers.iter();
        wait(within, async || {
            // The last answer is given again and again.
            Ok(of(answers.next().copied().unwrap_or(&["DEPLOYING"])))
        })
        .await
    }

    #[tokio::test]
    async fn it_waits_until_all_applications_run() {
        let answers: [&[&str]; 2] = [&["DEPLOYING", "RUNNING"], &["RUNNING", "RUNNING"]];
        assert_eq!(
            waited(LONG, &answers).await.unwrap(),
            of(&["RUNNING", "RUNNING"])
        );
        assert!(waited(LONG, &[&[]]).await.is_ok(), "nothing is deployed");
    }

    #[tokio::test]
    async fn it_does_not_wait_for_what_has_failed() {
        let error = waited(LONG, &[&["DEPLOYING", "DEPLOY_FAILED"]])
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "not RUNNING: app1: no such model");
    }

    #[tokio::test]
    async fn it_ends_when_the_time_is_up_and_says_what_is_missing() {
        let error = waited(Duration::ZERO, &[]).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "not RUNNING within 0 s: app0 is DEPLOYING"
        );
    }

    #[tokio::test]
    async fn a_head_that_does_not_answer_yet_is_asked_again() {
        let mut first = true;
        let document = wait(LONG, async || {
            if std::mem::take(&mut first) {
                bail!("connection refused");
            }
            Ok(of(&["RUNNING"]))
        });
        assert_eq!(document.await.unwrap(), of(&["RUNNING"]));
        let never = wait(Duration::ZERO, async || bail!("refused"));
        assert_eq!(never.await.unwrap_err().to_string(), "refused");
    }
}
