//! Applications without a model, for tests and for measuring the path alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

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
struct Sleep {
    /// Where `user_config` says nothing.
    base: Manner,
    now: RwLock<Manner>,
    calls: AtomicU64,
}

/// How calls are answered.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Manner {
    seconds: Duration,
    /// Part of the calls that fail, spread evenly.
    failure_rate: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SleepWishes {
    seconds: Option<f64>,
    failure_rate: Option<f64>,
}

/// `mobula.apps:noop`
pub(super) fn noop(context: &BuildContext) -> Result<Application, BuildError> {
    no_args("Noop", context)?;
    Ok(single(Deployment::new("Noop", |_| async { Ok(Noop) })))
}

/// `mobula.apps:sleep`
pub(super) fn sleep(context: &BuildContext) -> Result<Application, BuildError> {
    let args = Value::Object(context.args.clone());
    wishes(&args).map_err(|reason| BuildError::Invalid(format!("args of Sleep: {reason}")))?;
    Ok(single(Deployment::new("Sleep", Sleep::start)))
}

pub(super) fn single(deployment: Deployment) -> Application {
    Application::single(deployment.option("max_ongoing_requests", CALLS_MAX_DEFAULT))
}

pub(super) fn no_args(name: &str, context: &BuildContext) -> Result<(), BuildError> {
    if context.args.is_empty() {
        return Ok(());
    }
    Err(BuildError::Invalid(format!("{name} takes no args")))
}

/// The wishes in an object; none where it is null.
fn wishes(value: &Value) -> Result<SleepWishes, String> {
    if value.is_null() {
        return Ok(SleepWishes::default());
    }
    let wishes = SleepWishes::deserialize(value).map_err(|error| error.to_string())?;
    within("seconds", wishes.seconds, SECONDS_MAX)?;
    within("failure_rate", wishes.failure_rate, 1.0)?;
    Ok(wishes)
}

fn within(field: &str, value: Option<f64>, most: f64) -> Result<(), String> {
    match value {
        Some(value) if !(0.0..=most).contains(&value) => {
            Err(format!("{field}: {value} is not between 0 and {most}"))
        }
        Some(_) | None => Ok(()),
    }
}

#[async_trait]
impl Replica for Noop {
    async fn call(&self, request: Request) -> Result<Response, CallError> {
        Ok(match request.protocol {
            Protocol::Http | Protocol::WebSocket => Response::text(NOOP_TEXT),
            Protocol::Grpc | Protocol::GrpcStream => Response::grpc(""),
        })
    }
}

// === impl Sleep ===

impl Sleep {
    async fn start(context: ReplicaContext) -> Result<Sleep, StartError> {
        let user = context.user_config.unwrap_or(Value::Null);
        let args = wishes(&context.args).map_err(StartError)?;
        let sleep = Sleep::new(Manner {
            seconds: Duration::from_secs_f64(args.seconds.unwrap_or(SECONDS_DEFAULT)),
            failure_rate: args.failure_rate.unwrap_or(0.0),
        });
        sleep.set(&user).map_err(StartError)?;
        Ok(sleep)
    }

    fn new(base: Manner) -> Sleep {
        Sleep {
            base,
            now: RwLock::new(base),
            calls: AtomicU64::new(0),
        }
    }

    fn set(&self, user_config: &Value) -> Result<(), String> {
        let wished = wishes(user_config)?;
        let seconds = wished.seconds.map(Duration::from_secs_f64);
        let manner = Manner {
            seconds: seconds.unwrap_or(self.base.seconds),
            failure_rate: wished.failure_rate.unwrap_or(self.base.failure_rate),
        };
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = manner;
        Ok(())
    }

    fn manner(&self) -> Manner {
        *self.now.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of any row of calls the part that the rate says, to within one.
    fn next_fails(&self, rate: f64) -> bool {
        let before = self.calls.fetch_add(1, Ordering::Relaxed) as f64;
        ((before + 1.0) * rate).floor() > (before * rate).floor()
    }
}

#[async_trait]
impl Replica for Sleep {
    async fn call(&self, request: Request) -> Result<Response, CallError> {
        let Manner {
            seconds,
            failure_rate,
        } = self.manner();
        tokio::time::sleep(seconds).await;
        if self.next_fails(failure_rate) {
            return Err(CallError(format!(
                "fails as told, {failure_rate} of the calls"
            )));
        }
        Ok(match request.protocol {
            Protocol::Http | Protocol::WebSocket => {
                Response::text(format!("slept {} s", seconds.as_secs_f64()))
            }
            Protocol::Grpc | Protocol::GrpcStream => Response::grpc(""),
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

    const AT_ONCE: Manner = Manner {
        seconds: Duration::ZERO,
        failure_rate: 0.0,
    };

    #[tokio::test]
    async fn the_no_op_answers_any_method_and_path_with_20_bytes() {
        for (method, path) in [(Method::GET, "/"), (Method::DELETE, "/a/b?c")] {
            let request = Request::new(method, path, Body::empty());
            let response = Noop.call(request).await.unwrap();
            assert_eq!(response.body.as_whole().unwrap().len(), 20);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sleep_takes_as_long_as_its_user_config_says_and_refuses_nonsense() {
        let sleep = Sleep::new(AT_ONCE);
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
            json!({"failure_rate": 1.5}),
        ] {
            assert!(sleep.reconfigure(wrong).await.is_err());
        }
        assert_eq!(sleep.manner().seconds, Duration::from_millis(2500));
    }

    #[tokio::test]
    async fn sleep_fails_as_often_as_it_is_told() {
        for (rate, failures) in [(0.0, 0), (0.05, 5), (0.33, 33), (1.0, 100)] {
            let sleep = Sleep::new(AT_ONCE);
            sleep
                .reconfigure(json!({"failure_rate": rate}))
                .await
                .unwrap();
            let mut failed = 0;
            for _ in 0..100 {
                let request = Request::new(Method::GET, "/", Body::empty());
                failed += u32::from(sleep.call(request).await.is_err());
            }
            assert_eq!(failed, failures, "{rate}");
        }
    }
}
