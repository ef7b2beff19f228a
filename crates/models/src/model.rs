//! A loaded text model: tokenizer, engine, facts; and the three things it can do.

use std::sync::Arc;

use crate::ModelError;
use crate::batch::{Limits, Tokens};
use crate::engine::{Engine, EngineOptions, RowOutput, Want};
use crate::fetch::{self, Progress};
use crate::head::Head;
use crate::metrics::{BatchMetrics, Origin};
use crate::ort::{Device, SessionOptions};
use crate::pool;
use crate::resolve::{Choice, Resolved, Task, resolve};
use crate::settings::Settings;
use crate::tokenize::{Cut, Text, Tokenizer};

/// Threads of a replica's engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads {
    /// Sessions side by side.
    pub sessions: usize,
    /// Threads inside one run.
    pub intra: usize,
}

/// What a model is loaded with.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Which one.
    pub choice: Choice,
    /// What for.
    pub task: Task,
    /// On how many threads.
    pub threads: Threads,
    /// Where; several share the sessions.
    pub devices: Vec<Device>,
    /// In which batches.
    pub limits: Limits,
    /// For its metrics.
    pub origin: Origin,
}

/// A model that is ready to run.
pub struct TextModel {
    facts: Resolved,
    task: Task,
    tokenizer: Tokenizer,
    engine: Engine,
    head: Option<Head>,
    labels: Vec<String>,
    width: Option<usize>,
}

/// A label and its score.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// The class's name.
    pub name: String,
    /// Probability, or the raw logit.
    pub score: f32,
}

// === impl Threads ===

impl Threads {
    /// One-thread sessions side by side as far as `num_cpus` goes, since on a processor they beat
    /// one session of many threads; `per_session` asks for those all the same.
    pub fn of(num_cpus: f64, per_session: Option<usize>, machine_cpus: usize) -> Threads {
        let machine = machine_cpus.max(1);
        let intra = per_session.unwrap_or(1).clamp(1, machine);
        // Fractions of a processor still need one thread.
        let cpus = (num_cpus.max(0.0).floor() as usize).clamp(1, machine);
        Threads {
            sessions: (cpus / intra).max(1),
            intra,
        }
    }
}

// === impl LoadOptions ===

impl LoadOptions {
    fn tell(&self, model: &str, sessions: usize) {
        let devices: Vec<String> = self.devices.iter().map(Device::to_string).collect();
        let devices = devices.join(",");
        let Origin {
            application,
            deployment,
            replica,
            ..
        } = &self.origin;
        tracing::info!(
            application,
            deployment,
            replica,
            model,
            devices,
            sessions,
            "model is loaded"
        );
    }
}

// === impl TextModel ===

impl TextModel {
    /// Fetches what is missing, loads, warms up. Blocking: seconds at worst without a download.
    pub fn load(
        settings: &Settings,
        options: &LoadOptions,
        progress: &dyn Progress,
    ) -> Result<TextModel, ModelError> {
        let library = fetch::ensure_runtime(settings, progress)?;
        let facts = resolve(settings, &options.choice, progress)?;
        let head = facts.head.as_deref().map(Head::named).transpose()?;
        let reads_hidden = options.task == Task::Embed || head.is_some();
        // Side by side: the tokenizer's file takes as long to read as the graph.
        let (tokenizer, engine) = std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| Tokenizer::load(&facts.tokenizer, facts.tokens_max));
            let engine_options = EngineOptions {
                library,
                session: SessionOptions {
                    graph: facts.graph.clone(),
                    intra_threads: options.threads.intra,
                    reads_hidden,
                },
                sessions: options.threads.sessions,
                devices: options.devices.clone(),
                pad_id: 0,
                limits: options.limits,
            };
            let metrics = BatchMetrics::new(&options.origin);
            let engine = Engine::start(&engine_options, metrics);
            let panicked = |_| ModelError::Engine("loading the tokenizer panicked".to_owned());
            (tokenizer.join().map_err(panicked).flatten(), engine)
        });
        let (tokenizer, engine) = (tokenizer?, engine?);
        engine.set_pad_id(tokenizer.pad_id());
        options.tell(&facts.name, engine.sessions());
        let width = engine.graph().width;
        let labels = match &head {
            Some(head) => head.labels.clone(),
            None => labels_for(&facts.labels, width),
        };
        Ok(TextModel {
            facts,
            task: options.task,
            tokenizer,
            engine,
            head,
            labels,
            width,
        })
    }

    /// The files' facts.
    pub fn facts(&self) -> &Resolved {
        &self.facts
    }

    /// What it is used for.
    pub fn task(&self) -> Task {
        self.task
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Its engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Class names by index.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Length of its vectors, where the graph says.
    pub fn width(&self) -> Option<usize> {
        self.width
    }

    /// Encodes texts; long ones are cut, or refused.
    pub fn encode(&self, texts: &[Text], cut: Cut) -> Result<Vec<Tokens>, ModelError> {
        let encode = |text: &Text| self.tokenizer.encode(text, cut);
        texts.iter().map(encode).collect()
    }

    /// One vector for each row.
    pub async fn embed(
        &self,
        rows: Vec<Tokens>,
        normalize: bool,
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let outputs = self
            .engine
            .run(rows, Want::Pooled(self.facts.pooling))
            .await?;
        let vector = |output: RowOutput| {
            let mut vector = output.data;
            if normalize {
                pool::normalize(&mut vector);
            }
            vector
        };
        Ok(outputs.into_iter().map(vector).collect())
    }

    /// Every token's vector for each row.
    pub async fn embed_tokens(&self, rows: Vec<Tokens>) -> Result<Vec<Vec<Vec<f32>>>, ModelError> {
        let outputs = self.engine.run(rows, Want::Tokens).await?;
        let vectors = |output: RowOutput| {
            let rows = output.data.chunks_exact(output.width);
            rows.map(<[f32]>::to_vec).collect()
        };
        Ok(outputs.into_iter().map(vectors).collect())
    }

    /// The raw score of each row: how well its document answers its query.
    pub async fn score(&self, rows: Vec<Tokens>) -> Result<Vec<f32>, ModelError> {
        let outputs = self.logits(rows).await?;
        let score = |logits: Vec<f32>| match logits.as_slice() {
            [score] => Ok(*score),
            // Two classes: irrelevant and relevant.
            [irrelevant, relevant] => Ok(relevant - irrelevant),
            other => Err(ModelError::Engine(format!(
                "a reranker gives 1 score for each row, this graph gives {}",
                other.len()
            ))),
        };
        outputs.into_iter().map(score).collect()
    }

    /// Every class's raw logit for each row.
    pub async fn logits(&self, rows: Vec<Tokens>) -> Result<Vec<Vec<f32>>, ModelError> {
        let want = match &self.head {
            Some(_) => Want::Pooled(self.facts.pooling),
            None => Want::Logits,
        };
        let outputs = self.engine.run(rows, want).await?;
        let logits = |output: RowOutput| match &self.head {
            Some(head) => head.apply(&output.data),
            None => output.data,
        };
        Ok(outputs.into_iter().map(logits).collect())
    }

    /// Every class and its score for each row, best first.
    pub async fn classify(
        &self,
        rows: Vec<Tokens>,
        raw_scores: bool,
    ) -> Result<Vec<Vec<Label>>, ModelError> {
        let logits = self.logits(rows).await?;
        Ok(logits
            .iter()
            .map(|row| self.label(row, raw_scores))
            .collect())
    }

    fn label(&self, logits: &[f32], raw_scores: bool) -> Vec<Label> {
        let scores = match logits {
            _ if raw_scores => logits.to_vec(),
            [single] => vec![pool::sigmoid(*single)],
            many => pool::softmax(many),
        };
        let mut labels: Vec<Label> = scores
            .into_iter()
            .enumerate()
            .map(|(index, score)| Label {
                name: self
                    .labels
                    .get(index)
                    .map_or_else(|| default_label(index), Clone::clone),
                score,
            })
            .collect();
        labels.sort_by(|a, b| b.score.total_cmp(&a.score));
        labels
    }
}

/// A model shared by calls that run at once.
pub type SharedModel = Arc<TextModel>;

fn labels_for(named: &[String], width: Option<usize>) -> Vec<String> {
    match width {
        Some(width) if named.len() != width => (0..width).map(default_label).collect(),
        _ => named.to_vec(),
    }
}

/// The name that the hub's models have for a class without one.
fn default_label(index: usize) -> String {
    format!("LABEL_{index}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_follow_num_cpus_and_never_pass_the_machine() {
        for (num_cpus, per_session, machine, sessions, intra) in [
            (1.0, None, 8, 1, 1),
            (4.0, None, 8, 4, 1),
            (4.0, None, 2, 2, 1),
            (0.25, None, 8, 1, 1),
            (4.0, Some(2), 8, 2, 2),
            (1.0, Some(4), 2, 1, 2),
            (f64::NAN, None, 2, 1, 1),
        ] {
            let threads = Threads::of(num_cpus, per_session, machine);
            assert_eq!(
                threads,
                Threads { sessions, intra },
                "{num_cpus} {per_session:?}"
            );
        }
    }
}
