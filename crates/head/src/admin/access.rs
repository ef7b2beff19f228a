//! Who may use the admin API: everybody, or whoever shows the token. Ray's rules, so that its
//! clients work: the token comes in `Authorization`, in `X-Ray-Authorization` or in a cookie.

use http::header::{AUTHORIZATION, COOKIE};
use http::request::Parts;
use mobula_process::token::{Token, offered};
use serde_json::json;

use super::reply::{Reply, json_reply, text_reply};

/// The other header: proxies in between may need `Authorization` for themselves.
const RAY_AUTHORIZATION: &str = "x-ray-authorization";

const COOKIE_NAME: &str = "ray-authentication-token";

/// The answer to a request that is not let in.
pub fn refusal(token: Option<&Token>, request: &Parts) -> Option<Reply> {
    let token = token?;
    if is_open_to_all(request.uri.path()) {
        return None;
    }
    let mut is_shown = false;
    for shown in shown(request) {
        is_shown = true;
        if shown.is_some_and(|shown| token.is(shown)) {
            return None;
        }
    }
    Some(if is_shown {
        text_reply(403, "Forbidden: Invalid authentication token")
    } else {
        text_reply(401, "Unauthorized: Missing authentication token")
    })
}

/// The answer to a client that asks whether it needs a token.
pub fn mode(needs_token: bool) -> Reply {
    let mode = if needs_token { "token" } else { "disabled" };
    json_reply(200, &json!({ "authentication_mode": mode }))
}

/// The home page and the files of the dashboard, which asks for the token itself; whether one is
/// needed; and health, which probes ask without a token. Nothing of them tells what is deployed.
fn is_open_to_all(path: &str) -> bool {
    path.starts_with("/dashboard/")
        || matches!(
            path,
            "/" | "/api/authentication_mode"
                | "/api/gcs_healthz"
                | "/api/local_raylet_healthz"
                | "/api/healthz"
                | "/livez"
                | "/readyz"
        )
}

/// What a request shows, everywhere it may; None for what is no token at all.
fn shown(request: &Parts) -> impl Iterator<Item = Option<&[u8]>> {
    let headers = [AUTHORIZATION.as_str(), RAY_AUTHORIZATION];
    let headers = headers.into_iter().filter_map(|name| {
        let value = request.headers.get(name)?;
        Some(offered(value.as_bytes()))
    });
    headers.chain(cookie(request).map(Some))
}

fn cookie(request: &Parts) -> Option<&[u8]> {
    let lines = request.headers.get_all(COOKIE).iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE_NAME)
        .map(|(_, value)| value.trim_matches('"').as_bytes())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn outcome(path: &str, header: Option<(&str, &str)>) -> u16 {
        let mut request = Request::builder().uri(path);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let token = Token::new(TOKEN).unwrap();
        refusal(Some(&token), &parts).map_or(200, |reply| reply.status().as_u16())
    }

    #[test]
    fn the_token_is_taken_from_either_header_or_the_cookie() {
        let path = "/api/serve/applications/";
        for (name, value) in [
            ("authorization", "Bearer 0123456789abcdef"),
            ("x-ray-authorization", "Bearer 0123456789abcdef"),
            ("cookie", "a=b; ray-authentication-token=0123456789abcdef"),
        ] {
            assert_eq!(outcome(path, Some((name, value))), 200, "{name}");
            let wrong = value.replace("abcdef", "abcdeF");
            assert_eq!(outcome(path, Some((name, &wrong))), 403, "{name}");
        }
        assert_eq!(outcome(path, None), 401);
        assert_eq!(outcome(path, Some(("authorization", "Basic x"))), 403);
    }

    #[test]
    fn a_proxys_own_authorization_does_not_hide_the_token_in_the_other_header() {
        let mut request = Request::builder()
            .uri("/metrics")
            .header("authorization", "Basic of-the-proxy")
            .header("x-ray-authorization", format!("Bearer {TOKEN}"))
            .body(())
            .unwrap()
            .into_parts()
            .0;
        let token = Token::new(TOKEN).unwrap();
        assert!(refusal(Some(&token), &request).is_none());
        request.headers.remove("x-ray-authorization");
        assert!(refusal(Some(&token), &request).is_some());
    }

    #[test]
    fn health_needs_no_token_and_everything_that_tells_or_changes_does() {
        for path in [
            "/",
            "/livez",
            "/readyz",
            "/api/healthz",
            "/api/authentication_mode",
            "/dashboard/app.js",
        ] {
            assert_eq!(outcome(path, None), 200, "{path}");
        }
        for path in [
            "/metrics",
            "/api/ray/version",
            "/api/serve/applications/",
            "/api/v1/applications/a/deployments/b/scale",
            "/api/mobula/overview",
            "/nowhere",
        ] {
            assert_eq!(outcome(path, None), 401, "{path}");
        }
    }

    #[test]
    fn without_a_token_everybody_may() {
        let (parts, ()) = Request::new(()).into_parts();
        assert!(refusal(None, &parts).is_none());
    }
}
