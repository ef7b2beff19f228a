//! Bodies in and out. The one place where a request's bytes become values, with its limits:
//! length, nesting (the parser refuses more than 128 levels) and UTF-8.

use bytes::Bytes;
use http::StatusCode;
use mobula_app::{Body, BodyError, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Problem;

/// A request's body. What text-embeddings-inference allows; 2,000 texts of 1 KB fit.
pub const BODY_BYTES_MAX: usize = 2_000_000;
/// Of the parser's own text, which may quote the body.
const MESSAGE_CHARS_MAX: usize = 300;

/// The whole body, within the limit.
pub async fn collect(body: Body) -> Result<Bytes, Problem> {
    body.collect(BODY_BYTES_MAX)
        .await
        .map_err(|error| match error {
            BodyError::TooLarge { limit_bytes } => Problem::BodyTooLarge {
                bytes_max: limit_bytes,
            },
            BodyError::Aborted(reason) => Problem::Syntax(format!("the body broke off: {reason}")),
        })
}

/// The whole body as a value.
pub async fn read<T: DeserializeOwned>(body: Body) -> Result<T, Problem> {
    parse(&collect(body).await?)
}

/// Bytes as a value.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        let text: String = error.to_string().chars().take(MESSAGE_CHARS_MAX).collect();
        match error.classify() {
            serde_json::error::Category::Data => Problem::Value { field: None, text },
            serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof
            | serde_json::error::Category::Io => Problem::Syntax(text),
        }
    })
}

/// 200 with a value.
pub fn write(value: &impl Serialize) -> Result<Response, Problem> {
    let document = serde_json::to_vec(value)
        .map_err(|error| Problem::Backend(format!("the answer cannot be written: {error}")))?;
    Ok(Response::json(StatusCode::OK, document))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Shape {
        #[expect(dead_code, reason = "only its type matters here")]
        inputs: Vec<String>,
    }

    #[tokio::test]
    async fn each_kind_of_bad_body_is_told_apart() {
        let large = Body::whole(vec![b' '; BODY_BYTES_MAX + 1]);
        let problem = read::<Shape>(large).await.unwrap_err();
        assert_eq!(
            problem,
            Problem::BodyTooLarge {
                bytes_max: BODY_BYTES_MAX
            }
        );
        let deep = "[".repeat(100_000);
        for (body, syntax) in [
            (&b"{"[..], true),
            (b"", true),
            (b"{\"inputs\": [\"\xff\"]}", true),
            (deep.as_bytes(), false),
            (b"{\"inputs\": 3}", false),
            (b"{}", false),
            (b"[]", false),
        ] {
            let problem = parse::<Shape>(body).unwrap_err();
            assert_eq!(matches!(problem, Problem::Syntax(_)), syntax, "{problem:?}");
        }
        let nested = format!("{{\"inputs\": {}", "[".repeat(100_000));
        assert!(parse::<serde_json::Value>(nested.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = parse::<Shape>(&bytes);
            let _ = parse::<serde_json::Value>(&bytes);
        }
    }
}
