//! Any bytes as what a client sends. Panics when something is not as it has to be.

use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use mobula_proto::v1;

use super::grpc_message::{self, Message};
use super::http::Deadline;
use super::{grpc, headers, websocket};
use crate::dispatch::UploadError;
use crate::limits::{GRPC_MESSAGE_BYTES_MAX, HEADERS_MAX, REQUEST_ID_BYTES_MAX};
use crate::ranking::Ranking;
use crate::table::Table;

/// A path in the first line and headers in the others, through every check of a request.
pub fn request(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let path = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let headers = header_map(lines);
    for name in [headers::REQUEST_ID, HeaderName::from_static("request_id")] {
        let id = headers::request_id(&headers, &name);
        assert!(!id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX, "{id}");
        assert!(HeaderValue::from_str(&id).is_ok(), "it cannot be echoed");
    }
    let timeouts = [
        headers::timeout(&headers, Some(1.0)),
        grpc::grpc_timeout(&headers).filter(|seconds| *seconds > 0.0),
    ];
    for seconds in timeouts.into_iter().flatten() {
        assert!(seconds > 0.0);
        if let Some(deadline) = Deadline::after(Instant::now(), seconds) {
            deadline.remaining_ms();
        }
    }
    check_forwarded(&headers);
    check_route(&path, &headers);
    websocket::refusal(&headers);
    headers::outlasts_client(&headers);
}

fn header_map<'a>(lines: impl Iterator<Item = &'a [u8]>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.take(HEADERS_MAX) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts
            .next()
            .and_then(|name| HeaderName::from_bytes(name).ok());
        let value = parts
            .next()
            .and_then(|value| HeaderValue::from_bytes(value).ok());
        if let (Some(name), Some(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

/// What a replica sees comes from the client, and nothing of the connection does.
fn check_forwarded(headers: &HeaderMap) {
    let forwarded = headers::to_replica(headers);
    for header in &forwarded {
        let values = headers.get_all(header.name.as_str());
        assert!(
            values
                .into_iter()
                .any(|value| value.as_bytes() == header.value)
        );
    }
    let mut back = HeaderMap::new();
    headers::to_client(forwarded, &mut back);
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        assert!(!back.contains_key(&name), "{name} was forwarded");
    }
}

fn check_route(path: &str, headers: &HeaderMap) {
    let table = table();
    if let Some(id) = table.route_http(path) {
        let prefix = table.routes[id].prefix.trim_end_matches('/');
        let rest = path.strip_prefix(prefix);
        assert!(rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    }
    let application = headers
        .get("application")
        .and_then(|value| value.to_str().ok());
    if let Ok(id) = table.route_grpc(path, application) {
        assert!(table.routes[id].is_grpc);
    }
    let ranking = Ranking::of(&v1::Queueing {
        priority_header: "x-priority".to_owned(),
        priorities: vec!["high".to_owned(), "low".to_owned()],
        default_priority: 1,
        tenant_header: "x-tenant".to_owned(),
        tenant_weights: [("gold".to_owned(), 3)].into(),
    });
    let rank = ranking.rank(headers);
    assert!(rank.class <= 1 && rank.weight >= 1);
}

fn table() -> Table {
    let application = |prefix: &str| v1::TableApplication {
        name: format!("app{prefix}"),
        route_prefix: Some(prefix.to_owned()),
        ingress_deployment: "D".to_owned(),
        grpc_routes: vec![v1::GrpcRoute {
            service: "p.S".to_owned(),
            method: "M".to_owned(),
            deployment: "D".to_owned(),
            streaming: false,
        }],
        deployments: vec![v1::TableDeployment {
            name: "D".to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    };
    Table::new(v1::RouteTable {
        version: 1,
        applications: ["/a", "/a/b"].map(application).to_vec(),
        ..Default::default()
    })
}

/// The body of a unary gRPC call, cut in two where the first byte says.
pub fn grpc_message(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else {
        return;
    };
    let (one, other) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    let pieces = [one, other].map(Bytes::copy_from_slice);
    let frames = pieces.map(|piece| Ok::<_, UploadError>(Frame::data(piece)));
    let body = StreamBody::new(futures_util::stream::iter(frames));
    // Everything is there, so nothing waits.
    let opened = Message::open(body).now_or_never();
    let Some(Ok((message, size))) = opened else {
        assert!(opened.is_some(), "it waits for what will not come");
        return;
    };
    assert!(size <= GRPC_MESSAGE_BYTES_MAX as u64);
    if let Some(Ok(whole)) = message.collect().now_or_never() {
        let whole = whole.to_bytes();
        assert_eq!(whole.len() as u64, size);
        assert_eq!(grpc_message::wrap(&[whole]), bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line() -> impl Strategy<Value = Vec<u8>> {
        let names = prop::sample::select(vec![
            "x-request-id",
            "request_id",
            "x-request-timeout-seconds",
            "grpc-timeout",
            "connection",
            "upgrade",
            "te",
            "sec-websocket-key",
            "sec-websocket-version",
            "x-priority",
            "x-tenant",
            "application",
        ]);
        let values = prop_oneof![
            prop::sample::select(vec![
                "",
                "13",
                "1S",
                "1e308",
                "-1",
                "nan",
                "high",
                "upgrade, te"
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
            proptest::collection::vec(any::<u8>(), 0..40),
        ];
        (names, values).prop_map(|(name, value)| [name.as_bytes(), b":", &value].concat())
    }

    /// What `make fuzz` found: an empty message, and a piece after it.
    #[test]
    fn what_follows_an_empty_message_is_seen() {
        grpc_message(&[5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 184]);
    }

    proptest! {
        #[test]
        fn no_request_is_too_strange_to_be_checked(
            path in "(/a|/a/b|/p.S/M|/|)\\PC{0,12}",
            lines in proptest::collection::vec(line(), 0..12),
        ) {
            let mut bytes = path.replace('\n', "").into_bytes();
            for line in lines {
                bytes.push(b'\n');
                bytes.extend(line);
            }
            request(&bytes);
        }

        #[test]
        fn no_bytes_are_too_strange_to_be_checked(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            request(&bytes);
            grpc_message(&bytes);
        }

        #[test]
        fn a_message_is_read_back_wherever_it_was_cut(
            cut in any::<u8>(),
            message in proptest::collection::vec(any::<u8>(), 0..200),
            change in proptest::option::of((0usize..8, any::<u8>())),
        ) {
            let mut bytes = grpc_message::wrap(&[message.into()]).to_vec();
            if let Some((at, byte)) = change
                && let Some(changed) = bytes.get_mut(at)
            {
                *changed = byte;
            }
            bytes.insert(0, cut);
            grpc_message(&bytes);
        }
    }
}
