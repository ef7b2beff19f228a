//! Sends an admin request on to the head that leads, and its answer back.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use mobula_process::client_tls::Trust;
use mobula_process::http_client::{self, HttpClient};
use mobula_process::net::root_cause;

use crate::admin::reply::Reply;
use crate::admin::{BODY_BYTES_MAX, read_body, unavailable};

/// The leader itself takes up to 30 s for a shutdown.
const ANSWER_SECONDS_MAX: Duration = Duration::from_secs(40);

/// A dead leader is noticed sooner by the election.
const CONNECT_SECONDS_MAX: Duration = Duration::from_secs(2);

/// A status document with thousands of replicas is a few megabytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A request that was sent on once is not sent on again: two heads that each take the other for
/// the leader, for a moment, must not play ball with it.
const FORWARDED: HeaderName = HeaderName::from_static("x-mobula-forwarded");

/// Sends requests on; cheap to clone.
#[derive(Clone)]
pub(super) struct Forward(HttpClient);

// === impl Forward ===

impl Forward {
    pub(super) fn new(trust: Option<Trust>) -> Forward {
        Forward(http_client::client(trust, CONNECT_SECONDS_MAX))
    }

    /// The leader's answer, or 503 with what went wrong on the way.
    pub(super) async fn send(&self, leader: &Uri, request: Request<Incoming>) -> Reply {
        let (parts, body) = request.into_parts();
        let away = |why: &str| unavailable(parts.uri.path(), why);
        if parts.headers.contains_key(FORWARDED) {
            return away("the lead is changing hands; try again");
        }
        let body = match read_body(body).await {
            Ok(body) => body,
            Err(refusal) => return refusal,
        };
        debug_assert!(body.len() <= BODY_BYTES_MAX);
        let Some(uri) = target(leader, parts.uri.path_and_query()) else {
            return away("the leader's address cannot be used");
        };
        let mut onward = Request::new(Full::new(body));
        *onward.method_mut() = parts.method.clone();
        *onward.uri_mut() = uri;
        onward.headers_mut().clone_from(&parts.headers);
        for name in [HOST, CONNECTION, TRANSFER_ENCODING] {
            onward.headers_mut().remove(name);
        }
        onward
            .headers_mut()
            .insert(FORWARDED, HeaderValue::from_static("1"));
        match tokio::time::timeout(ANSWER_SECONDS_MAX, self.exchange(onward)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                let why = root_cause(error.as_ref());
                away(&format!("the leading head cannot be asked: {why}"))
            }
            Err(_) => away("the leading head did not answer in time"),
        }
    }

    async fn exchange(
        &self,
        onward: Request<Full<Bytes>>,
    ) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
        let (mut parts, body) = self.0.request(onward).await?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?;
        for name in [CONNECTION, TRANSFER_ENCODING] {
            parts.headers.remove(name);
        }
        Ok(Reply::from_parts(parts, Full::new(body.to_bytes())))
    }
}

/// The same path at another head.
fn target(leader: &Uri, path: Option<&PathAndQuery>) -> Option<Uri> {
    let mut parts = leader.clone().into_parts();
    parts.path_and_query = Some(path.cloned().unwrap_or(PathAndQuery::from_static("/")));
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_query_are_kept() {
        let leader: Uri = "http://10.0.0.1:8265".parse().unwrap();
        let asked: Uri = "/api/serve/applications/?api_type=declarative"
            .parse()
            .unwrap();
        let target = target(&leader, asked.path_and_query()).unwrap();
        assert_eq!(
            target.to_string(),
            "http://10.0.0.1:8265/api/serve/applications/?api_type=declarative"
        );
    }
}
