//! A small HTTP client for the admin API.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue, IF_MATCH};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use mobula_process::http_client;
use mobula_process::net::root_cause;

use super::target::Target;

/// The one path of the Serve API; the slash at its end is part of it.
pub const APPLICATIONS: &str = "/api/serve/applications/";

/// DELETE answers after at most 30 s (the shutdown goes on in the background).
const ANSWER_SECONDS_MAX: Duration = Duration::from_secs(40);

/// For name, connection and TLS together.
const CONNECT_SECONDS_MAX: Duration = Duration::from_secs(10);

/// A status document with thousands of replicas is a few megabytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What the admin API answered.
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, if the call was successful.
    pub fn json(&self) -> Result<serde_json::Value> {
        self.ok()?;
        serde_json::from_slice(&self.body).context("the answer is not JSON")
    }

    /// An error that names the status and the server's words, unless it is 200.
    pub fn ok(&self) -> Result<()> {
        if self.status != StatusCode::OK {
            let code = self.status.as_u16();
            bail!(
                "request failed with status code {code}: {}",
                self.text().trim_end()
            );
        }
        Ok(())
    }
}

/// Sends one request to the admin API.
pub async fn send(target: &Target, method: Method, path: &str, body: Vec<u8>) -> Result<Answer> {
    send_if(target, method, path, body, None).await
}

/// Sends one request that counts only while that revision is the newest.
pub async fn send_if(
    target: &Target,
    method: Method,
    path: &str,
    body: Vec<u8>,
    revision: Option<u64>,
) -> Result<Answer> {
    let address = &target.address;
    let base = address.trim_end_matches('/');
    let secure = base.starts_with("https://");
    if !secure && !base.starts_with("http://") {
        bail!("the address '{address}' must start with http:// or https://");
    }
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{base}{path}"))
        .header("content-type", "application/json")
        .header("user-agent", concat!("mobula/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::from(body)))?;
    if let Some(revision) = revision {
        let value = HeaderValue::from_str(&format!("\"{revision}\""))?;
        request.headers_mut().insert(IF_MATCH, value);
    }
    if let Some(token) = &target.token {
        let mut value = HeaderValue::from_str(&token.bearer())?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    let client = http_client::client(target.trust.clone(), CONNECT_SECONDS_MAX);
    let answered = tokio::time::timeout(ANSWER_SECONDS_MAX, client.request(request)).await;
    let response = answered
        .with_context(|| format!("no answer from {base} within {ANSWER_SECONDS_MAX:?}"))?
        .map_err(|error| unreachable(base, secure, &error))?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect();
    let body = tokio::time::timeout(ANSWER_SECONDS_MAX, body)
        .await
        .context("the answer did not end in time")?
        .map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?
        .to_bytes();
    Ok(Answer {
        status: head.status,
        body,
    })
}

fn unreachable(base: &str, secure: bool, error: &dyn std::error::Error) -> anyhow::Error {
    let why = root_cause(error);
    let hint = match secure {
        true => "does --ca-file name the authority of its certificate, and that this host?",
        false => "is `mobula run` running?",
    };
    anyhow::anyhow!("cannot reach Mobula at {base}: {why}; {hint}")
}
