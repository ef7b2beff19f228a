//! The dashboard: `/` for browsers, and its files under `/dashboard/`.
//!
//! The page is plain HTML, CSS and ES modules, embedded in the binary: it needs no other machine
//! and no build step. It tells nothing by itself, so it needs no token; it reads
//! `/api/mobula/overview`, which may. It can change nothing: the admin API has no login on a
//! developer's machine, and refuses changes that come from browsers (`guard`).

use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HeaderValue, IF_NONE_MATCH,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Method};
use sha2::{Digest, Sha256};

use super::reply::{Reply, reply, text_reply};

/// Only what this head serves itself, in no frame of another page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Digits of a tag; enough to tell two releases of a file apart.
const TAG_DIGITS: usize = 16;

/// One file of the page.
#[derive(Debug, PartialEq, Eq)]
pub struct File {
    /// Its path.
    pub path: &'static str,
    content_type: &'static str,
    content: &'static str,
}

macro_rules! file {
    ($content_type:expr, $name:literal) => {
        File {
            path: concat!("/dashboard/", $name),
            content_type: $content_type,
            content: include_str!(concat!("dashboard/", $name)),
        }
    };
}

static PAGE: File = file!(HTML, "index.html");

static FILES: [File; 14] = [
    file!(CSS, "style.css"),
    file!(SVG, "icon.svg"),
    file!(SCRIPT, "app.js"),
    file!(SCRIPT, "api.js"),
    file!(SCRIPT, "dom.js"),
    file!(SCRIPT, "format.js"),
    file!(SCRIPT, "trends.js"),
    file!(SCRIPT, "token.js"),
    file!(SCRIPT, "headline.js"),
    file!(SCRIPT, "applications.js"),
    file!(SCRIPT, "replicas.js"),
    file!(SCRIPT, "members.js"),
    file!(SCRIPT, "revisions.js"),
    file!(SCRIPT, "decisions.js"),
];

/// The file of a path.
pub fn find(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}

/// The page for whoever reads HTML, the list of routes for all others.
pub fn home(headers: &HeaderMap, routes: &str) -> Reply {
    let mut reply = if reads_html(headers) {
        file(headers, &PAGE)
    } else {
        text_reply(200, routes)
    };
    reply
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("accept"));
    reply
}

/// The answer for one file. Browsers ask again each time, so that a head that was upgraded shows
/// its own page; what did not change is not sent again.
pub fn file(headers: &HeaderMap, file: &File) -> Reply {
    let tag = tag(file);
    let known = headers.get_all(IF_NONE_MATCH).iter();
    let mut known = known.filter_map(|value| value.to_str().ok());
    let is_known = known.any(|tags| tags.split(',').any(|known| known.trim() == tag));
    let mut reply = if is_known {
        reply(304, file.content_type, "")
    } else {
        reply(200, file.content_type, file.content)
    };
    let headers = reply.headers_mut();
    for (name, value) in [
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    reply
}

/// The page and its files for a browser that asks a head which does not lead, so that it opens
/// while nobody does and says so; None: something else is asked for.
pub fn of_follower(method: &Method, path: &str, headers: &HeaderMap) -> Option<Reply> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    match path {
        "/" => reads_html(headers).then(|| home(headers, "")),
        _ => find(path).map(|found| file(headers, found)),
    }
}

/// Whether HTML is asked for by name: `*/*` is what command-line clients send.
fn reads_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains("text/html"))
}

fn tag(file: &File) -> String {
    let digest = Sha256::digest(file.content.as_bytes());
    let mut digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.truncate(TAG_DIGITS);
    format!("\"{digits}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    fn type_of(reply: &Reply) -> &str {
        reply.headers()["content-type"].to_str().unwrap()
    }

    #[test]
    fn browsers_get_the_page_and_command_lines_the_list_of_routes() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert_eq!(type_of(&home(&headers("accept", browser), "routes")), HTML);
        for accept in ["*/*", "application/json", ""] {
            let text = type_of(&home(&headers("accept", accept), "routes")).to_owned();
            assert!(text.starts_with("text/plain"), "{accept}: {text}");
        }
        assert!(of_follower(&Method::GET, "/", &HeaderMap::new()).is_none());
        assert!(of_follower(&Method::GET, "/", &headers("accept", browser)).is_some());
        assert!(of_follower(&Method::PUT, "/dashboard/app.js", &HeaderMap::new()).is_none());
    }

    #[test]
    fn every_file_that_the_page_names_is_there_and_none_is_of_another_machine() {
        let mut named = Vec::new();
        for file in FILES.iter().chain([&PAGE]) {
            assert!(!file.content.contains("innerHTML"), "{}", file.path);
            let quoted = file.content.split(['"', '\'']);
            for text in quoted {
                let path = match text.strip_prefix("./") {
                    Some(module) => format!("/dashboard/{module}"),
                    None if text.starts_with("/dashboard/") => text.to_owned(),
                    None => continue,
                };
                assert!(find(&path).is_some(), "{} names {path}", file.path);
                named.push(path);
            }
        }
        for file in &FILES {
            assert!(named.iter().any(|path| path == file.path), "{}", file.path);
        }
    }

    #[test]
    fn what_a_browser_has_already_is_not_sent_again() {
        let file = find("/dashboard/app.js").unwrap();
        let first = super::file(&HeaderMap::new(), file);
        assert_eq!(first.status(), 200);
        let tag = first.headers()["etag"].to_str().unwrap();
        let known = headers("if-none-match", &format!("\"other\", {tag}"));
        assert_eq!(super::file(&known, file).status(), 304);
        let other = headers("if-none-match", "\"other\"");
        assert_eq!(super::file(&other, file).status(), 200);
    }

    #[test]
    fn the_page_runs_nothing_that_this_head_does_not_serve() {
        let reply = super::file(&HeaderMap::new(), &PAGE);
        let policy = reply.headers()["content-security-policy"].to_str().unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(reply.headers()["x-content-type-options"], "nosniff");
    }
}
