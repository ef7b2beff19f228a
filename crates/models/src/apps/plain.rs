//! Applications without a model, for tests and for measuring the path alone.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use http::HeaderValue;
use http::header::CONTENT_TYPE;
use mobula_app::{
    Application, BuildContext, BuildError, CallError, ConfigError, Deployment, Protocol, Replica,
    ReplicaContext, Request, Response, StartError, async_trait,
};
use serde::Deserialize;
use serde_json::Value;

/// Exactly 20 bytes, as the peers' no-op answers have.
const NOOP_TEXT: &str = "mobula no-op is fine";
const SECONDS_DEFAULT: f64 = 1.0;
/// A call that sleeps longer has no caller any more.
const SECONDS_MAX: f64 = 3600.0;
/// These cost next to nothing a call, so many may run at once.
const CALLS_MAX_DEFAULT: u32 = 1024;

struct Noop;
struct Echo;
struct Sleep {
    /// Where `user_config` says nothing.
    base: Duration,
    now: RwLock<Duration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SleepWishes {
    seconds: Option<f64>,
}

/// `mobula.apps:noop`
pub(super) fn noop(context: &BuildContext) -> Result<Application, BuildError> {
    no_args("Noop", context)?;
    Ok(single(Deployment::new("Noop", |_| async { Ok(Noop) })))
}

/// `mobula.apps:echo`
pub(super) fn echo(context: &BuildContext) -> Result<Application, BuildError> {
    no_args("Echo", context)?;
    Ok(single(Deployment::new("Echo", |_| async { Ok(Echo) })))
}

/// `mobula.apps:sleep`
pub(super) fn sleep(context: &BuildContext) -> Result<Application, BuildError> {
    let args = Value::Object(context.args.clone());
    seconds(&args).map_err(|reason| BuildError::Invalid(format!("args of Sleep: {reason}")))?;
    Ok(single(Deployment::new("Sleep", Sleep::start)))
}

fn single(deployment: Deployment) -> Application {
    Application::single(deployment.option("max_ongoing_requests", CALLS_MAX_DEFAULT))
}

fn no_args(name: &str, context: &BuildContext) -> Result<(), BuildError> {
    if context.args.is_empty() {
        return Ok(());
    }
    Err(BuildError::Invalid(format!("{name} takes no args")))
}

/// The wish in an object; `None` where it has none.
fn seconds(value: &Value) -> Result<Option<f64>, String> {
    if value.is_null() {
        return Ok(None);
    }
    let wishes = SleepWishes::deserialize(value).map_err(|error| error.to_string())?;
    match wishes.seconds {
        Some(seconds) if !(0.0..=SECONDS_MAX).contains(&seconds) => Err(format!(
            "seconds: {seconds} is not between 0 and {SECONDS_MAX}"
        )),
        seconds => Ok(seconds),
    }
}

#[async_trait]
impl Replica for Noop {
    async fn call(&self, request: Request) -> Result<Response, CallError> {
        Ok(match request.protocol {
            Protocol::Http => Response::text(NOOP_TEXT),
            Protocol::Grpc => Response::grpc(""),
        })
    }
}

#[async_trait]
impl Replica for Echo {
    /// The body streams back as it comes.
    async fn call(&self, request: Request) -> Result<Response, CallError> {
        let mut response = match request.protocol {
            Protocol::Http => Response::text(""),
            Protocol::Grpc => Response::grpc(""),
        };
        if request.protocol == Protocol::Http {
            let bytes = || HeaderValue::from_static("application/octet-stream");
            let content_type = request.headers.get(CONTENT_TYPE).cloned();
            response
                .headers
                .insert(CONTENT_TYPE, content_type.unwrap_or_else(bytes));
        }
        response.body = request.body;
        Ok(response)
    }
}

// === impl Sleep ===

impl Sleep {
    async fn start(context: ReplicaContext) -> Result<Sleep, StartError> {
        let user = context.user_config.unwrap_or(Value::Null);
        let args = seconds(&context.args).map_err(StartError)?;
        let sleep = Sleep::new(Duration::from_secs_f64(args.unwrap_or(SECONDS_DEFAULT)));
        sleep.set(&user).map_err(StartError)?;
        Ok(sleep)
    }

    fn new(base: Duration) -> Sleep {
        Sleep {
            base,
            now: RwLock::new(base),
        }
    }

    fn set(&self, user_config: &Value) -> Result<(), String> {
        let wished = seconds(user_config)?.map(Duration::from_secs_f64);
        let duration = wished.unwrap_or(self.base);
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = duration;
        Ok(())
    }

    fn duration(&self) -> Duration {
        *self.now.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Replica for Sleep {
    async fn call(&self, request: Request) -> Result<Response, CallError> {
        let duration = self.duration();
        tokio::time::sleep(duration).await;
        Ok(match request.protocol {
            Protocol::Http => Response::text(format!("slept {} s", duration.as_secs_f64())),
            Protocol::Grpc => Response::grpc(""),
        })
    }

    async fn reconfigure(&self, user_config: Value) -> Result<(), ConfigError> {
        self.set(&user_config).map_err(ConfigError)
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use mobula_app::Body;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn the_no_op_answers_any_method_and_path_with_20_bytes() {
        for (method, path) in [(Method::GET, "/"), (Method::DELETE, "/a/b?c")] {
            let request = Request::new(method, path, Body::empty());
            let response = Noop.call(request).await.unwrap();
            assert_eq!(response.body.as_whole().unwrap().len(), 20);
        }
    }

    #[tokio::test]
    async fn echo_gives_back_the_body_and_its_content_type() {
        let mut request = Request::new(Method::POST, "/", Body::whole("<a/>"));
        let value = HeaderValue::from_static("text/xml");
        request.headers.insert(CONTENT_TYPE, value.clone());
        let response = Echo.call(request).await.unwrap();
        assert_eq!(response.headers.get(CONTENT_TYPE), Some(&value));
        assert_eq!(response.body.collect(100).await.unwrap(), "<a/>");
    }

    #[tokio::test(start_paused = true)]
    async fn sleep_takes_as_long_as_its_user_config_says_and_refuses_nonsense() {
        let sleep = Sleep::new(Duration::ZERO);
        sleep.reconfigure(json!({"seconds": 2.5})).await.unwrap();
        let before = tokio::time::Instant::now();
        let request = Request::new(Method::GET, "/", Body::empty());
        let response = sleep.call(request).await.unwrap();
        assert_eq!(before.elapsed(), Duration::from_millis(2500));
        assert_eq!(response.body.as_whole().unwrap(), "slept 2.5 s");
        for wrong in [
            json!({"seconds": -1}),
            json!({"second": 1}),
            json!({"seconds": "x"}),
        ] {
            assert!(sleep.reconfigure(wrong).await.is_err());
        }
        assert_eq!(sleep.duration(), Duration::from_millis(2500));
    }
}
