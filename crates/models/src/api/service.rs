//! A model as the APIs see it: with its limits, its names, and the work off the async threads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_app::Response;

use super::{PATHS, Problem};
use crate::batch::Tokens;
use crate::metrics::RequestMetrics;
use crate::model::{SharedModel, TextModel};
use crate::resolve::Task;
use crate::tokenize::{Cut, Text};

/// Texts up to this are tokenized where they are: it takes less than half a millisecond. More
/// goes to a thread that may be kept busy.
const ENCODE_INLINE_BYTES_MAX: usize = 4096;

/// A model in `/v1/models`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCard {
    /// Its name.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
}

/// How a model is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceOptions {
    /// Most rows of one request.
    pub rows_max: usize,
    /// Whether a text that is too long is cut where the request does not say.
    pub auto_truncate: bool,
    /// Other names under which clients may ask for the model.
    pub aliases: Vec<String>,
    /// Names of models beside this one, for `/v1/models`.
    pub siblings: Vec<String>,
    /// Most calls at once, for `/info`.
    pub calls_max: u32,
    /// Most tokens of a batch, for `/info`.
    pub batch_tokens_max: usize,
    /// Most rows of a batch, for `/info`.
    pub batch_rows_max: usize,
}

/// A loaded model and how it is offered.
pub struct Service {
    model: SharedModel,
    options: ServiceOptions,
    metrics: RequestMetrics,
}

// === impl Service ===

impl Service {
    /// Offers a model.
    pub fn new(model: SharedModel, options: ServiceOptions) -> Service {
        let metrics = RequestMetrics::new(&model.facts().name);
        Service {
            model,
            options,
            metrics,
        }
    }

    /// The model.
    pub fn model(&self) -> &TextModel {
        &self.model
    }

    /// The model, to be offered otherwise.
    pub fn shared_model(&self) -> SharedModel {
        Arc::clone(&self.model)
    }

    /// How it is offered.
    pub fn options(&self) -> &ServiceOptions {
        &self.options
    }

    /// What it can do.
    pub fn task(&self) -> Task {
        self.model.task()
    }

    /// The paths that it answers, for a message.
    pub fn paths(&self) -> String {
        let answers = |task: Option<Task>| task.is_none_or(|task| task == self.task());
        let paths = PATHS
            .iter()
            .filter(|(_, operation)| answers(operation.task()));
        paths.map(|(path, _)| *path).collect::<Vec<_>>().join(", ")
    }

    /// Counts a call and its time.
    pub fn answered(&self, took: Duration) {
        self.metrics.answered(took);
    }

    /// Whether and where a long text is cut, for a request that may say so.
    pub fn cut(&self, truncate: Option<bool>, from_left: bool) -> Cut {
        match (truncate.unwrap_or(self.options.auto_truncate), from_left) {
            (false, _) => Cut::Never,
            (true, false) => Cut::End,
            (true, true) => Cut::Beginning,
        }
    }

    /// Refuses no rows, and more than there may be.
    pub fn check_rows(&self, field: &'static str, rows: usize) -> Result<(), Problem> {
        let rows_max = self.options.rows_max;
        match rows {
            0 => Err(Problem::Empty(field)),
            rows if rows > rows_max => Err(Problem::TooManyRows { rows, rows_max }),
            _ => Ok(()),
        }
    }

    /// Refuses a model's name that is not this one's. An empty one asks for whatever is here.
    pub fn check_model(&self, name: Option<&str>) -> Result<(), Problem> {
        let own = &self.model.facts().name;
        let short = own.rsplit('/').next().unwrap_or(own);
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Ok(());
        };
        if name == own || name == short || self.options.aliases.iter().any(|alias| alias == name) {
            return Ok(());
        }
        let names = std::iter::once(own).chain(&self.options.aliases);
        Err(Problem::UnknownModel {
            name: name.chars().take(128).collect(),
            known: names.cloned().collect::<Vec<_>>().join(", "),
        })
    }

    /// Tokenizes, off the async threads when it is much.
    pub async fn encode(&self, texts: Vec<Text>, cut: Cut) -> Result<Vec<Tokens>, Problem> {
        let bytes: usize = texts.iter().map(Text::bytes).sum();
        if bytes <= ENCODE_INLINE_BYTES_MAX {
            return Ok(self.model.encode(&texts, cut)?);
        }
        let model = self.shared_model();
        self.off_thread(move || model.encode(&texts, cut)).await
    }

    /// Runs what may take long on a thread that may be kept busy.
    pub async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, crate::ModelError> + Send + 'static,
    ) -> Result<T, Problem> {
        let done = tokio::task::spawn_blocking(work).await;
        let done = done.map_err(|error| Problem::Backend(error.to_string()))?;
        Ok(done?)
    }

    /// Refuses when no engine runs any more.
    pub fn check_alive(&self) -> Result<(), Problem> {
        if self.model.engine().is_alive() {
            return Ok(());
        }
        Err(Problem::Unavailable("the engine has stopped".to_owned()))
    }
}

/// Answers and counts one call that asks the model for something.
pub async fn counted(
    service: &Service,
    call: impl Future<Output = Result<Response, Problem>>,
) -> Result<Response, Problem> {
    let started = Instant::now();
    let answer = call.await;
    service.answered(started.elapsed());
    answer
}
