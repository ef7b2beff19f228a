//! Headers across the router: which are the request's and which belong to the connection. Pure.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use mobula_proto::v1;
use uuid::Uuid;

use crate::limits::REQUEST_ID_BYTES_MAX;

/// `x-request-id`.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Overrides the configured time-out; 0 or less: none.
pub const TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-seconds");
/// A client says that repeating the request does no harm.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const DISCONNECT_DISABLED: HeaderName = HeaderName::from_static("x-request-disconnect-disabled");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Requests with the same value go to the same replica while it has room.
const SESSION_ID: HeaderName = HeaderName::from_static("x-session-id");
/// Both spellings that Ray Serve reads.
const MODEL_ID: [HeaderName; 2] = [
    HeaderName::from_static("serve_multiplexed_model_id"),
    HeaderName::from_static("serve-multiplexed-model-id"),
];

/// The client's request id, or a new one.
pub fn request_id(headers: &HeaderMap, name: &HeaderName) -> String {
    let given = headers.get(name).and_then(|value| value.to_str().ok());
    match given {
        Some(id) if !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX => id.to_owned(),
        Some(_) | None => Uuid::new_v4().to_string(),
    }
}

/// The multiplexed model id; empty when none.
pub fn model_id(headers: &HeaderMap) -> String {
    let value = MODEL_ID.into_iter().find_map(|name| headers.get(name));
    let value = value.and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// The session that the request belongs to; empty when none.
pub fn session_id(headers: &HeaderMap) -> &str {
    let value = headers.get(&SESSION_ID);
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// How long the request may take: what the client says, else the config.
pub fn timeout(headers: &HeaderMap, configured_s: Option<f64>) -> Option<f64> {
    let asked = headers.get(&TIMEOUT).and_then(|value| value.to_str().ok());
    let asked = asked.and_then(|text| text.trim().parse::<f64>().ok());
    let seconds = asked.or(configured_s)?;
    // Also not NaN, and not more than a Duration holds.
    (seconds > 0.0 && Duration::try_from_secs_f64(seconds).is_ok()).then_some(seconds)
}

/// Whether a client says that repeating the request does no harm.
pub fn has_idempotency_key(headers: &HeaderMap) -> bool {
    headers.contains_key(&IDEMPOTENCY_KEY)
}

/// Whether the request goes on when the client leaves: `?1` is true where headers have types
/// (RFC 9651), and the one value that Ray takes for it.
pub fn outlasts_client(headers: &HeaderMap) -> bool {
    headers
        .get(&DISCONNECT_DISABLED)
        .is_some_and(|value| value == "?1")
}

/// Whether a header belongs to the connection and not to the message.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || *name == header::TE
        || *name == header::TRAILER
        || *name == header::PROXY_AUTHENTICATE
        || *name == header::PROXY_AUTHORIZATION
        || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION
}

/// Whether `Connection` names the header.
fn is_named_by_connection(headers: &HeaderMap, name: &HeaderName) -> bool {
    let values = headers.get_all(header::CONNECTION).into_iter();
    let mut names = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','));
    names.any(|named| named.trim().eq_ignore_ascii_case(name.as_str()))
}

/// The headers that a replica sees.
pub fn to_replica(headers: &HeaderMap) -> Vec<v1::Header> {
    let has_connection = headers.contains_key(header::CONNECTION);
    let mut seen = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        if is_hop_by_hop(name) || (has_connection && is_named_by_connection(headers, name)) {
            continue;
        }
        seen.push(v1::Header {
            name: name.as_str().to_owned(),
            value: Bytes::copy_from_slice(value.as_bytes()),
        });
    }
    seen
}

/// The headers that a client sees. What a replica must not set is left out.
pub fn to_client(headers: Vec<v1::Header>, into: &mut HeaderMap) {
    for header in headers {
        let Ok(name) = HeaderName::from_bytes(header.name.as_bytes()) else {
            continue;
        };
        if is_hop_by_hop(&name) || name == REQUEST_ID {
            continue;
        }
        if let Ok(value) = HeaderValue::from_maybe_shared(header.value) {
            into.append(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn headers_of_the_connection_stay_with_it() {
        let map = headers(&[
            ("connection", "keep-alive, X-Private"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("accept", "*/*"),
            ("accept", "text/html"),
        ]);
        let sent: Vec<_> = to_replica(&map)
            .into_iter()
            .map(|h| (h.name, h.value))
            .collect();
        let accept = |value| ("accept".to_owned(), Bytes::from_static(value));
        assert_eq!(sent, [accept(b"*/*"), accept(b"text/html")]);

        let header = |name: &str, value: &'static [u8]| v1::Header {
            name: name.to_owned(),
            value: Bytes::from_static(value),
        };
        let mut back = HeaderMap::new();
        let reply = vec![
            header("Connection", b"close"),
            header("x-request-id", b"not yours"),
            header("X-Ok", b"1"),
            header("bad name", b"1"),
            header("bad-value", b"a\nb"),
        ];
        to_client(reply, &mut back);
        assert_eq!(back, headers(&[("x-ok", "1")]));
    }

    #[test]
    fn a_request_id_is_echoed_unless_it_is_empty_or_absurd() {
        let given = headers(&[("x-request-id", "abc")]);
        assert_eq!(request_id(&given, &REQUEST_ID), "abc");
        for bad in [String::new(), "x".repeat(REQUEST_ID_BYTES_MAX + 1)] {
            let made = request_id(&headers(&[("x-request-id", &bad)]), &REQUEST_ID);
            assert!(Uuid::parse_str(&made).is_ok(), "{made}");
        }
    }

    #[test]
    fn the_clients_time_out_wins_and_zero_means_none() {
        let asked = |value| timeout(&headers(&[("x-request-timeout-seconds", value)]), Some(5.0));
        assert_eq!(asked("0.5"), Some(0.5));
        assert_eq!(asked("0"), None);
        assert_eq!(asked("-1"), None);
        assert_eq!(asked("nan"), None);
        assert_eq!(asked("1e300"), None);
        assert_eq!(asked("soon"), Some(5.0));
        assert_eq!(timeout(&HeaderMap::new(), None), None);
    }

    #[test]
    fn only_the_true_of_typed_headers_lets_a_request_outlast_its_client() {
        let asked = |value| outlasts_client(&headers(&[("x-request-disconnect-disabled", value)]));
        assert!(asked("?1"));
        for other in ["?0", "1", "true", ""] {
            assert!(!asked(other), "{other}");
        }
        assert!(!outlasts_client(&HeaderMap::new()));
    }

    #[test]
    fn the_model_id_is_read_in_both_spellings() {
        for name in ["serve_multiplexed_model_id", "Serve-Multiplexed-Model-Id"] {
            assert_eq!(model_id(&headers(&[(name, "m1")])), "m1");
        }
        assert_eq!(model_id(&HeaderMap::new()), "");
        assert_eq!(session_id(&headers(&[("X-Session-Id", "s1")])), "s1");
        assert_eq!(session_id(&HeaderMap::new()), "");
    }
}
