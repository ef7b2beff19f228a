//! Which route a request is for. Pure.

use http::Method;

use super::dashboard::{self, File};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Home,
    Dashboard(&'static File),
    Version,
    /// Health routes whose whole answer is `success`.
    Success,
    AgentHealth,
    Authentication,
    Live,
    Ready,
    Metrics,
    GetApplications,
    PutApplications,
    DeleteApplications,
    Overview,
    History,
    Rollback,
    Preview,
    GetApplication(String),
    PutApplication(String),
    DeleteApplication(String),
    Scale {
        application: String,
        deployment: String,
    },
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Route(Route),
    Nowhere,
    WrongMethod { allow: &'static str },
}

/// Looks a path up. HEAD is answered where GET is. The trailing slash of the applications
/// path belongs to it, as with Ray.
pub fn find(method: &Method, path: &str) -> Found {
    let get = |route| match *method {
        Method::GET | Method::HEAD => Found::Route(route),
        _ => Found::WrongMethod { allow: "GET,HEAD" },
    };
    let post = |route| match *method {
        Method::POST => Found::Route(route),
        _ => Found::WrongMethod { allow: "POST" },
    };
    match path {
        "/" => get(Route::Home),
        "/api/ray/version" | "/api/version" => get(Route::Version),
        "/api/gcs_healthz" | "/api/local_raylet_healthz" => get(Route::Success),
        "/api/healthz" => get(Route::AgentHealth),
        "/api/authentication_mode" => get(Route::Authentication),
        "/livez" => get(Route::Live),
        "/readyz" => get(Route::Ready),
        "/metrics" => get(Route::Metrics),
        "/api/serve/applications/" => match *method {
            Method::GET | Method::HEAD => Found::Route(Route::GetApplications),
            Method::PUT => Found::Route(Route::PutApplications),
            Method::DELETE => Found::Route(Route::DeleteApplications),
            _ => Found::WrongMethod {
                allow: "DELETE,GET,HEAD,PUT",
            },
        },
        "/api/mobula/overview" => get(Route::Overview),
        "/api/mobula/history" => get(Route::History),
        "/api/mobula/rollback" => post(Route::Rollback),
        "/api/mobula/plan" => post(Route::Preview),
        _ => match path.strip_prefix("/api/mobula/applications/") {
            Some(name) => application_path(method, name),
            None => match dashboard::find(path) {
                Some(file) => get(Route::Dashboard(file)),
                None => scale_path(method, path),
            },
        },
    }
}

fn application_path(method: &Method, name: &str) -> Found {
    let Some(name) = Some(name)
        .filter(|name| !name.contains('/'))
        .and_then(decoded)
    else {
        return Found::Nowhere;
    };
    match *method {
        Method::GET | Method::HEAD => Found::Route(Route::GetApplication(name)),
        Method::PUT => Found::Route(Route::PutApplication(name)),
        Method::DELETE => Found::Route(Route::DeleteApplication(name)),
        _ => Found::WrongMethod {
            allow: "DELETE,GET,HEAD,PUT",
        },
    }
}

fn scale_path(method: &Method, path: &str) -> Found {
    let parts: Vec<&str> = path.split('/').collect();
    let [
        "",
        "api",
        "v1",
        "applications",
        application,
        "deployments",
        deployment,
        "scale",
    ] = parts.as_slice()
    else {
        return Found::Nowhere;
    };
    let (Some(application), Some(deployment)) = (decoded(application), decoded(deployment)) else {
        return Found::Nowhere;
    };
    if *method != Method::POST {
        return Found::WrongMethod { allow: "POST" };
    }
    Found::Route(Route::Scale {
        application,
        deployment,
    })
}

/// A path segment without its percent signs; None: empty, or not text.
pub(super) fn decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let high = digit(rest.next()?)?;
            let low = digit(rest.next()?)?;
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_applications_path_needs_its_slash() {
        assert_eq!(
            find(&Method::GET, "/api/serve/applications"),
            Found::Nowhere
        );
        let with = find(&Method::GET, "/api/serve/applications/");
        assert_eq!(with, Found::Route(Route::GetApplications));
    }

    #[test]
    fn other_methods_are_told_what_is_allowed() {
        let found = find(&Method::POST, "/api/serve/applications/");
        assert_eq!(
            found,
            Found::WrongMethod {
                allow: "DELETE,GET,HEAD,PUT"
            }
        );
        let found = find(&Method::GET, "/api/v1/applications/a/deployments/b/scale");
        assert_eq!(found, Found::WrongMethod { allow: "POST" });
    }

    #[test]
    fn one_application_has_its_own_path() {
        let found = find(&Method::PUT, "/api/mobula/applications/my%20app");
        let route = Route::PutApplication("my app".to_owned());
        assert_eq!(found, Found::Route(route));
        for nowhere in [
            "/api/mobula/applications/",
            "/api/mobula/applications",
            "/api/mobula/applications/a/b",
        ] {
            assert_eq!(find(&Method::PUT, nowhere), Found::Nowhere, "{nowhere}");
        }
        let found = find(&Method::GET, "/api/mobula/plan");
        assert_eq!(found, Found::WrongMethod { allow: "POST" });
    }

    #[test]
    fn names_in_the_scale_path_are_decoded() {
        let found = find(
            &Method::POST,
            "/api/v1/applications/my%20app/deployments/d%2Fe/scale",
        );
        let route = Route::Scale {
            application: "my app".to_owned(),
            deployment: "d/e".to_owned(),
        };
        assert_eq!(found, Found::Route(route));
        let broken = find(
            &Method::POST,
            "/api/v1/applications/a%2/deployments/b/scale",
        );
        assert_eq!(broken, Found::Nowhere);
    }
}
