//! The default models against an independent implementation (`data/make_reference.py`).
//!
//! The files come from the user's cache and are fetched where they are missing.

#![expect(
    clippy::unwrap_used,
    reason = "a test says why it failed by where it panicked"
)]

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use mobula_models::ModelError;
use mobula_models::batch::{Limits, Tokens};
use mobula_models::fetch::{self, Logged};
use mobula_models::metrics::Origin;
use mobula_models::model::{LoadOptions, TextModel, Threads};
use mobula_models::ort::Device;
use mobula_models::resolve::{Choice, Task};
use mobula_models::settings::Settings;
use mobula_models::tokenize::{Cut, Text};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    embed: Vec<Embedding>,
    rerank: Vec<Ranking>,
    classify: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Embedding {
    text: String,
    ids: Vec<u32>,
    vector: String,
}

#[derive(Deserialize)]
struct Ranking {
    query: String,
    texts: Vec<String>,
    scores: Vec<f32>,
}

#[derive(Deserialize)]
struct Sentence {
    text: String,
    label: String,
    logits: Vec<f32>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("data/reference.json")).unwrap()
}

fn load(name: &str, task: Task, sessions: usize) -> TextModel {
    let options = LoadOptions {
        choice: Choice {
            name: name.to_owned(),
            graph: None,
        },
        task,
        threads: Threads { sessions, intra: 1 },
        devices: vec![Device::Cpu],
        limits: Limits {
            rows_max: 32,
            tokens_max: 4096,
            padding_percent_max: 90,
            wait: Duration::ZERO,
        },
        origin: Origin::default(),
    };
    TextModel::load(&Settings::from_process(), &options, &Logged).unwrap()
}

fn embedder() -> TextModel {
    load("sentence-transformers/all-MiniLM-L6-v2", Task::Embed, 1)
}

fn vector(packed: &str) -> Vec<f32> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(packed)
        .unwrap();
    let four = |four: &[u8]| f32::from_le_bytes(four.try_into().unwrap());
    bytes.chunks_exact(4).map(four).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum()
    };
    dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())
}

fn one(text: &str) -> Text {
    Text::One(text.to_owned())
}

#[tokio::test]
async fn tokens_are_those_of_the_reference_and_vectors_point_the_same_way_in_every_batch() {
    let (model, reference) = (embedder(), reference());
    assert!(reference.embed.len() >= 20);
    let texts: Vec<Text> = reference.embed.iter().map(|row| one(&row.text)).collect();
    let rows = model.encode(&texts, Cut::End).unwrap();
    for (row, expected) in rows.iter().zip(&reference.embed) {
        assert_eq!(row.ids, expected.ids, "{:?}", expected.text);
    }
    for batch in [1, 2, 3, 8, rows.len()] {
        for (rows, expected) in rows.chunks(batch).zip(reference.embed.chunks(batch)) {
            let vectors = model.embed(rows.to_vec(), true).await.unwrap();
            for (found, expected) in vectors.iter().zip(expected) {
                let cosine = cosine(found, &vector(&expected.vector));
                assert!(
                    cosine > 0.9999,
                    "{cosine} for {:?} in {batch}",
                    expected.text
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_at_once_each_get_their_own_answer_from_two_sessions() {
    let model = Arc::new(load(
        "sentence-transformers/all-MiniLM-L6-v2",
        Task::Embed,
        2,
    ));
    let reference = Arc::new(reference());
    let calls: Vec<_> = (0..60)
        .map(|n| {
            let (model, reference) = (model.clone(), reference.clone());
            tokio::spawn(async move {
                let expected = &reference.embed[n % 20];
                let rows = model.encode(&[one(&expected.text)], Cut::End).unwrap();
                let vectors = model.embed(rows, true).await.unwrap();
                cosine(&vectors[0], &vector(&expected.vector))
            })
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap() > 0.9999);
    }
    assert!(model.engine().is_alive());
}

#[tokio::test]
async fn a_text_that_is_too_long_is_refused_unless_it_may_be_cut() {
    let model = embedder();
    let long = [one(&"word ".repeat(1000))];
    let error = model.encode(&long, Cut::Never).unwrap_err();
    assert!(matches!(error, ModelError::TooLong { .. }));
    assert!(
        error.to_string().contains("1002 tokens, at most 256"),
        "{error}"
    );
    assert_eq!(model.encode(&long, Cut::End).unwrap()[0].ids.len(), 256);
}

#[tokio::test]
async fn every_token_has_a_vector_and_their_mean_is_the_text_s() {
    let model = embedder();
    let rows = model
        .encode(&[one("two words"), one("and three words")], Cut::Never)
        .unwrap();
    let tokens = model.embed_tokens(rows.clone()).await.unwrap();
    let pooled = model.embed(rows.clone(), false).await.unwrap();
    for ((tokens, pooled), row) in tokens.iter().zip(&pooled).zip(&rows) {
        assert_eq!(tokens.len(), row.ids.len());
        let mean: Vec<f32> = (0..pooled.len())
            .map(|at| tokens.iter().map(|token| token[at]).sum::<f32>() / tokens.len() as f32)
            .collect();
        assert!(cosine(&mean, pooled) > 0.99999);
    }
}

#[tokio::test]
async fn the_reranker_puts_the_relevant_text_first_and_scores_as_the_reference_does() {
    let model = load("cross-encoder/ms-marco-MiniLM-L-12-v2", Task::Rerank, 1);
    for ranking in reference().rerank {
        let pair = |text: &String| Text::Pair(ranking.query.clone(), text.clone());
        let texts: Vec<Text> = ranking.texts.iter().map(pair).collect();
        let rows = model.encode(&texts, Cut::Never).unwrap();
        let mut alone = Vec::new();
        for row in &rows {
            alone.extend(model.score(vec![row.clone()]).await.unwrap());
        }
        for (found, expected) in alone.iter().zip(&ranking.scores) {
            // int8: alone and batched differ, so the reference and this ran each row alone.
            assert!(
                (found - expected).abs() < 0.05,
                "{}: {alone:?}",
                ranking.query
            );
        }
        let together = model.score(rows).await.unwrap();
        assert_eq!(best(&together), best(&ranking.scores), "{}", ranking.query);
    }
}

fn best(scores: &[f32]) -> usize {
    let order = |a: &usize, b: &usize| scores[*a].total_cmp(&scores[*b]);
    (0..scores.len()).max_by(order).unwrap()
}

#[tokio::test]
async fn the_classifier_tells_obvious_sentences_apart() {
    let model = load("mobula/gte-small-sentiment", Task::Classify, 1);
    let sentences = reference().classify;
    assert!(sentences.len() >= 12);
    let texts: Vec<Text> = sentences
        .iter()
        .map(|sentence| one(&sentence.text))
        .collect();
    let rows = model.encode(&texts, Cut::Never).unwrap();
    let logits = model.logits(rows.clone()).await.unwrap();
    for (found, expected) in logits.iter().zip(&sentences) {
        for (found, expected) in found.iter().zip(&expected.logits) {
            assert!((found - expected).abs() < 0.01, "{found} {expected}");
        }
    }
    for (labels, expected) in model
        .classify(rows, false)
        .await
        .unwrap()
        .iter()
        .zip(&sentences)
    {
        assert_eq!(labels[0].name, expected.label, "{}", expected.text);
        assert!(labels[0].score > 0.5 && labels[0].score <= 1.0);
        let sum: f32 = labels.iter().map(|label| label.score).sum();
        assert!((sum - 1.0).abs() < 1e-5);
    }
}

#[tokio::test]
async fn a_graph_that_is_none_is_an_error_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.onnx"), "not a graph").unwrap();
    let name = "sentence-transformers/all-MiniLM-L6-v2";
    let real = fetch::ensure_model(&Settings::from_process(), name, &Logged).unwrap();
    std::fs::copy(
        real.join("tokenizer.json"),
        dir.path().join("tokenizer.json"),
    )
    .unwrap();
    let options = LoadOptions {
        choice: Choice {
            name: "own".to_owned(),
            graph: Some(dir.path().join("model.onnx")),
        },
        task: Task::Embed,
        threads: Threads {
            sessions: 1,
            intra: 1,
        },
        devices: vec![Device::Cpu],
        limits: Limits {
            rows_max: 1,
            tokens_max: 1,
            padding_percent_max: 0,
            wait: Duration::ZERO,
        },
        origin: Origin::default(),
    };
    let loaded = TextModel::load(&Settings::from_process(), &options, &Logged);
    let Err(error) = loaded else {
        panic!("a text file was loaded as a graph")
    };
    assert!(error.to_string().contains("model.onnx"), "{error}");
}

#[tokio::test]
async fn a_request_that_is_dropped_leaves_the_engine_free() {
    let model = embedder();
    let rows: Vec<Tokens> = model
        .encode(&vec![one(&"word ".repeat(200)); 200], Cut::End)
        .unwrap();
    let run = model.embed(rows, true);
    assert!(
        tokio::time::timeout(Duration::from_millis(1), run)
            .await
            .is_err()
    );
    let rows = model.encode(&[one("after")], Cut::Never).unwrap();
    assert_eq!(model.embed(rows, true).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_stopped_engine_has_let_its_sessions_go_and_takes_nothing_more() {
    let model = embedder();
    assert!(model.engine().is_alive());
    model.engine().stop();
    let rows = vec![Tokens {
        ids: vec![101, 102],
        types: Vec::new(),
    }];
    let refused = model.embed(rows, true).await;
    assert!(matches!(refused, Err(ModelError::Stopped)));
    // Threads end right behind their sessions.
    while model.engine().is_alive() {
        tokio::task::yield_now().await;
    }
}
