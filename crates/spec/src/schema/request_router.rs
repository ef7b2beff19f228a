//! `request_router_config`: how a replica is chosen. Kept as a plain object until a deployment
//! is resolved, as Ray does.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::acting::Place;
use crate::decode::{At, Fields, POSITIVE, Unknown, float_in, object, string};
use crate::error::Findings;

/// Ray's power of two choices. Its command line imports what a status document names here, so
/// no other name is ever shown.
pub const REQUEST_ROUTER_CLASS_DEFAULT: &str =
    "ray.serve._private.request_router:PowerOfTwoChoicesRequestRouter";

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RequestRouterConfig {
    pub request_router_class: String,
    pub request_router_kwargs: Map<String, Value>,
    pub request_routing_stats_period_s: f64,
    pub request_routing_stats_timeout_s: f64,
    pub initial_backoff_s: f64,
    pub backoff_multiplier: f64,
    pub max_backoff_s: f64,
}

// === impl RequestRouterConfig ===

impl Default for RequestRouterConfig {
    fn default() -> Self {
        Self {
            request_router_class: REQUEST_ROUTER_CLASS_DEFAULT.to_owned(),
            request_router_kwargs: Map::new(),
            request_routing_stats_period_s: 10.0,
            request_routing_stats_timeout_s: 30.0,
            initial_backoff_s: 0.025,
            backoff_multiplier: 2.0,
            max_backoff_s: 0.5,
        }
    }
}

impl RequestRouterConfig {
    pub(crate) fn read(findings: &mut Findings, at: &At<'_>) -> Option<Self> {
        let mut fields = Fields::open(findings, at, Place::RequestRouterConfig)?;
        let mut config = Self::default();
        if let Some(class) = fields.get(findings, "request_router_class", string) {
            config.request_router_class = class;
        }
        if let Some(kwargs) = fields.get(findings, "request_router_kwargs", object) {
            config.request_router_kwargs = kwargs;
        }
        for (key, slot) in [
            (
                "request_routing_stats_period_s",
                &mut config.request_routing_stats_period_s,
            ),
            (
                "request_routing_stats_timeout_s",
                &mut config.request_routing_stats_timeout_s,
            ),
            ("initial_backoff_s", &mut config.initial_backoff_s),
            ("backoff_multiplier", &mut config.backoff_multiplier),
            ("max_backoff_s", &mut config.max_backoff_s),
        ] {
            if let Some(value) = fields.get(findings, key, float_in(POSITIVE)) {
                *slot = value;
            }
        }
        fields.close(findings, Unknown::Warn);
        Some(config)
    }

    /// Not the default: left out of the status document.
    pub fn is_foreign(&self) -> bool {
        self.request_router_class != REQUEST_ROUTER_CLASS_DEFAULT
    }
}
