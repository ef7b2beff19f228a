//! What a deployment of a model is told: `args`, `user_config`, environment. Pure.
//!
//! `user_config` wins over `args`, both over the environment, all over the defaults.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::api::ServiceOptions;
use crate::batch::Limits;
use crate::model::Threads;
use crate::ort::Device;
use crate::resolve::{Choice, Task};
use crate::settings::{Env, value};

/// Rows of a batch where nobody says. With the token budget below it is seldom reached.
const BATCH_ROWS_DEFAULT: usize = 32;
/// Tokens of a batch where nobody says: eight rows of a usual length. Larger batches are slower
/// on a processor, since they leave its caches.
const BATCH_TOKENS_DEFAULT: usize = 512;
/// The same on a GPU, which is idle between small batches.
const GPU_BATCH_ROWS_DEFAULT: usize = 128;
const GPU_BATCH_TOKENS_DEFAULT: usize = 8192;
/// More would only pay padding for fewer calls of the runtime.
const PADDING_PERCENT_MAX: usize = 10;
/// A batch beyond this gains nothing and takes seconds.
const BATCH_ROWS_MAX: usize = 1024;
const BATCH_TOKENS_MAX: usize = 262_144;
/// A batch that waits longer has forgotten its callers.
const BATCH_WAIT_SECONDS_MAX: f64 = 60.0;
/// Rows of one request where nobody says: OpenAI's own limit.
const REQUEST_ROWS_DEFAULT: usize = 2048;
const REQUEST_ROWS_MAX: usize = 16_384;
const THREADS_MAX: usize = 1024;

/// The deployments of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Embedder,
    Reranker,
    Classifier,
}

/// What `args` and `user_config` may say; nothing of it is needed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(super) struct Wishes {
    /// A hub name, an id of the lock, or a directory.
    model: Option<String>,
    /// A graph of one's own; `model` is then its name and gives the tokenizer if none is beside.
    onnx_path: Option<String>,
    /// Threads inside one session.
    num_threads: Option<usize>,
    /// Rows of a batch.
    max_batch_size: Option<usize>,
    /// Tokens of a batch, padding included.
    max_batch_tokens: Option<usize>,
    /// How long the oldest row waits for company.
    batch_wait_timeout_s: Option<f64>,
    /// Rows of one request.
    max_client_batch_size: Option<usize>,
    /// Whether long texts are cut where the request does not say.
    auto_truncate: Option<bool>,
    /// Other names under which clients may ask for the model.
    served_model_names: Option<Vec<String>>,
}

/// Everything a replica is made with.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub choice: Choice,
    pub threads: Threads,
    pub devices: Vec<Device>,
    pub limits: Limits,
    pub service: ServiceOptions,
}

/// What a replica's place gives.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub num_cpus: f64,
    /// Devices by their number; none: it computes on the processor.
    pub gpus: Vec<u32>,
    pub machine_cpus: usize,
    pub calls_max: u32,
    pub siblings: Vec<String>,
}

// === impl Place ===

impl Place {
    fn devices(&self) -> Vec<Device> {
        if self.gpus.is_empty() {
            return vec![Device::Cpu];
        }
        self.gpus.iter().copied().map(Device::Cuda).collect()
    }

    /// Every GPU has a session.
    fn threads(&self, per_session: Option<usize>) -> Threads {
        let threads = Threads::of(self.num_cpus, per_session, self.machine_cpus);
        Threads {
            sessions: threads.sessions.max(self.gpus.len()),
            ..threads
        }
    }
}

// === impl Role ===

impl Role {
    pub const ALL: [Role; 3] = [Role::Embedder, Role::Reranker, Role::Classifier];

    /// The deployment's name.
    pub fn name(self) -> &'static str {
        match self {
            Role::Embedder => "Embedder",
            Role::Reranker => "Reranker",
            Role::Classifier => "Classifier",
        }
    }

    /// The key of its part of the `args` of `rag`.
    pub fn key(self) -> &'static str {
        match self {
            Role::Embedder => "embedder",
            Role::Reranker => "reranker",
            Role::Classifier => "classifier",
        }
    }

    pub fn task(self) -> Task {
        match self {
            Role::Embedder => Task::Embed,
            Role::Reranker => Task::Rerank,
            Role::Classifier => Task::Classify,
        }
    }

    /// The batch metrics' `function_name`.
    pub fn function(self) -> &'static str {
        match self {
            Role::Embedder => "embed",
            Role::Reranker => "rerank",
            Role::Classifier => "classify",
        }
    }

    fn model_default(self) -> &'static str {
        match self {
            Role::Embedder => "sentence-transformers/all-MiniLM-L6-v2",
            Role::Reranker => "cross-encoder/ms-marco-MiniLM-L-12-v2",
            Role::Classifier => "mobula/gte-small-sentiment",
        }
    }

    /// The model's name as the environment and `args` say it, for those beside it.
    pub fn model_name(self, env: &Env, args: &Wishes) -> String {
        let upper = self.name().to_ascii_uppercase();
        let by_env = || value(env, &format!("MODEL_{upper}_NAME")).map(str::to_owned);
        let named = args.model.clone().or_else(by_env);
        named.unwrap_or_else(|| self.model_default().to_owned())
    }
}

// === impl Wishes ===

impl Wishes {
    /// Reads an object; null is an empty one.
    pub fn read(value: &Value) -> Result<Wishes, String> {
        if value.is_null() {
            return Ok(Wishes::default());
        }
        if !value.is_object() {
            return Err("expected an object".to_owned());
        }
        Wishes::deserialize(value).map_err(|error| error.to_string())
    }

    /// What the environment says for a role.
    pub fn of_env(role: Role, env: &Env) -> Result<Wishes, String> {
        let upper = role.name().to_ascii_uppercase();
        let text = |name: String| value(env, &name).map(str::to_owned);
        let number = |name: String| {
            let Some(text) = value(env, &name) else {
                return Ok(None);
            };
            let parsed = text.parse::<usize>();
            parsed
                .map(Some)
                .map_err(|_| format!("{name}: '{text}' is not a whole number"))
        };
        Ok(Wishes {
            model: text(format!("MODEL_{upper}_NAME")),
            onnx_path: text(format!("{upper}_ONNX_PATH")),
            num_threads: number(format!("{upper}_OMP_NUM_THREADS"))?,
            max_batch_size: number(format!("{upper}_BATCH_MAX_SIZE"))?,
            ..Wishes::default()
        })
    }

    /// These wishes where they say something, `below` where they do not.
    pub fn over(self, below: Wishes) -> Wishes {
        Wishes {
            // A model named here takes no graph that was named below for another.
            onnx_path: match &self.model {
                Some(_) => self.onnx_path,
                None => self.onnx_path.or(below.onnx_path),
            },
            model: self.model.or(below.model),
            num_threads: self.num_threads.or(below.num_threads),
            max_batch_size: self.max_batch_size.or(below.max_batch_size),
            max_batch_tokens: self.max_batch_tokens.or(below.max_batch_tokens),
            batch_wait_timeout_s: self.batch_wait_timeout_s.or(below.batch_wait_timeout_s),
            max_client_batch_size: self.max_client_batch_size.or(below.max_client_batch_size),
            auto_truncate: self.auto_truncate.or(below.auto_truncate),
            served_model_names: self.served_model_names.or(below.served_model_names),
        }
    }

    /// Refuses values out of range.
    pub fn check(&self) -> Result<(), String> {
        for (name, value, max) in [
            ("num_threads", self.num_threads, THREADS_MAX),
            ("max_batch_size", self.max_batch_size, BATCH_ROWS_MAX),
            ("max_batch_tokens", self.max_batch_tokens, BATCH_TOKENS_MAX),
            (
                "max_client_batch_size",
                self.max_client_batch_size,
                REQUEST_ROWS_MAX,
            ),
        ] {
            if let Some(value) = value.filter(|value| !(1..=max).contains(value)) {
                return Err(format!("{name}: {value} is not between 1 and {max}"));
            }
        }
        let wait = self.batch_wait_timeout_s.unwrap_or(0.0);
        if !(0.0..=BATCH_WAIT_SECONDS_MAX).contains(&wait) {
            return Err(format!(
                "batch_wait_timeout_s: {wait} is not between 0 and {BATCH_WAIT_SECONDS_MAX}"
            ));
        }
        match self.model.as_deref() {
            Some("") => Err("model: cannot be empty".to_owned()),
            Some(_) | None => Ok(()),
        }
    }

    /// Everything that was not said by its default.
    pub fn plan(self, role: Role, place: &Place) -> Result<Plan, String> {
        self.check()?;
        let (rows_default, tokens_default) = match place.gpus.is_empty() {
            true => (BATCH_ROWS_DEFAULT, BATCH_TOKENS_DEFAULT),
            false => (GPU_BATCH_ROWS_DEFAULT, GPU_BATCH_TOKENS_DEFAULT),
        };
        let rows_max = self.max_batch_size.unwrap_or(rows_default);
        let tokens_max = self.max_batch_tokens.unwrap_or(tokens_default);
        let wait = Duration::from_secs_f64(self.batch_wait_timeout_s.unwrap_or(0.0));
        Ok(Plan {
            choice: Choice {
                name: self
                    .model
                    .unwrap_or_else(|| role.model_default().to_owned()),
                graph: self.onnx_path.map(PathBuf::from),
            },
            threads: place.threads(self.num_threads),
            devices: place.devices(),
            limits: Limits {
                rows_max,
                tokens_max,
                padding_percent_max: PADDING_PERCENT_MAX,
                wait,
            },
            service: ServiceOptions {
                rows_max: self.max_client_batch_size.unwrap_or(REQUEST_ROWS_DEFAULT),
                auto_truncate: self.auto_truncate.unwrap_or(false),
                aliases: self.served_model_names.unwrap_or_default(),
                siblings: place.siblings.clone(),
                calls_max: place.calls_max,
                batch_tokens_max: tokens_max,
                batch_rows_max: rows_max,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn place() -> Place {
        Place {
            num_cpus: 2.0,
            gpus: Vec::new(),
            machine_cpus: 2,
            calls_max: 64,
            siblings: Vec::new(),
        }
    }

    #[test]
    fn user_config_wins_over_args_and_both_over_the_environment() {
        let env: Env = [
            ("MODEL_EMBEDDER_NAME", "org/env"),
            ("EMBEDDER_ONNX_PATH", "/env/model.onnx"),
            ("EMBEDDER_OMP_NUM_THREADS", "2"),
            ("EMBEDDER_BATCH_MAX_SIZE", "7"),
            ("RERANKER_BATCH_MAX_SIZE", "9"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        let of_env = Wishes::of_env(Role::Embedder, &env).unwrap();
        let alone = of_env.clone().plan(Role::Embedder, &place()).unwrap();
        assert_eq!(alone.choice.name, "org/env");
        assert_eq!(alone.choice.graph, Some(PathBuf::from("/env/model.onnx")));
        assert_eq!(
            alone.threads,
            Threads {
                sessions: 1,
                intra: 2
            }
        );
        assert_eq!(alone.limits.rows_max, 7);

        let args = Wishes::read(&json!({"model": "org/args", "max_batch_size": 8})).unwrap();
        let user = Wishes::read(&json!({"max_batch_size": 16})).unwrap();
        let plan = user
            .over(args.over(of_env))
            .plan(Role::Embedder, &place())
            .unwrap();
        assert_eq!(
            plan.choice,
            Choice {
                name: "org/args".to_owned(),
                graph: None
            }
        );
        assert_eq!(plan.limits.rows_max, 16);
        assert_eq!(plan.threads.intra, 2);
    }

    #[test]
    fn an_environment_that_is_no_number_is_named() {
        let env = Env::from([("RERANKER_BATCH_MAX_SIZE".to_owned(), "many".to_owned())]);
        let error = Wishes::of_env(Role::Reranker, &env).unwrap_err();
        assert_eq!(
            error,
            "RERANKER_BATCH_MAX_SIZE: 'many' is not a whole number"
        );
    }

    #[test]
    fn a_gpu_changes_where_and_in_what_batches_and_nothing_else() {
        let plan = |gpus: &[u32], wishes: Value| {
            let place = Place {
                gpus: gpus.to_vec(),
                ..place()
            };
            let wishes = Wishes::read(&wishes).unwrap();
            wishes.plan(Role::Embedder, &place).unwrap()
        };
        let cpu = plan(&[], json!({}));
        assert_eq!(cpu.devices, [Device::Cpu]);
        assert_eq!((cpu.limits.rows_max, cpu.limits.tokens_max), (32, 512));
        let gpu = plan(&[3], json!({}));
        assert_eq!(gpu.devices, [Device::Cuda(3)]);
        assert_eq!((gpu.limits.rows_max, gpu.limits.tokens_max), (128, 8192));
        assert_eq!(gpu.threads, cpu.threads);
        // Every device has a session, however few the processors.
        let many = plan(&[0, 1, 2], json!({"max_batch_tokens": 64}));
        assert_eq!((many.threads.sessions, many.limits.tokens_max), (3, 64));
    }
}
