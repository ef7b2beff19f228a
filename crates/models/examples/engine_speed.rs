//! How fast a model loads and embeds on this machine, by batch limits. Run with `--release`.
//! Texts per processor second are told as well: on a busy machine they are what compares.
//!
//! Texts have the lengths of everyday ones: 8 to 200 tokens, 55 on average, in random order.
//! Arguments: sessions, callers at once, seconds for each setting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mobula_models::ModelError;
use mobula_models::batch::Limits;
use mobula_models::fetch::Terminal;
use mobula_models::metrics::Origin;
use mobula_models::model::{LoadOptions, TextModel, Threads};
use mobula_models::ort::Device;
use mobula_models::resolve::{Choice, Task};
use mobula_models::settings::Settings;
use mobula_models::tokenize::{Cut, Text};

const TEXTS: usize = 2000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| {
        let given = arguments.get(at).and_then(|argument| argument.parse().ok());
        given.unwrap_or(default)
    };
    let (sessions, callers, seconds) = (number(0, 1), number(1, 32), number(2, 5));
    let options = LoadOptions {
        choice: Choice {
            name: "sentence-transformers/all-MiniLM-L6-v2".to_owned(),
            graph: None,
        },
        task: Task::Embed,
        threads: Threads { sessions, intra: 1 },
        devices: vec![Device::Cpu],
        limits: limits(32, 512, 10),
        origin: Origin::default(),
    };
    let started = Instant::now();
    let settings = Settings::from_process();
    let model = Arc::new(TextModel::load(&settings, &options, &Terminal::default())?);
    println!(
        "loaded in {:?}, {:.2} processor s, {} MB resident",
        started.elapsed(),
        processor_seconds(),
        resident_mb()
    );
    let runtime = tokio::runtime::Runtime::new()?;
    for (rows, tokens, padding) in [
        (1, 512, 10),
        (8, 512, 10),
        (32, 512, 5),
        (32, 512, 10),
        (32, 512, 20),
        (32, 1024, 10),
        (32, 2048, 10),
        (32, 16384, 90),
    ] {
        model.engine().set_limits(limits(rows, tokens, padding));
        let before = processor_seconds();
        let (rate, texts) = runtime.block_on(measure(&model, callers, seconds))?;
        let per_processor = texts as f64 / (processor_seconds() - before);
        println!(
            "rows {rows:2} tokens {tokens:5} padding {padding:2} %: {rate:6.1} texts/s, \
             {per_processor:6.1} a processor second, {} MB",
            resident_mb()
        );
    }
    Ok(())
}

fn limits(rows_max: usize, tokens_max: usize, padding_percent_max: usize) -> Limits {
    Limits {
        rows_max,
        tokens_max,
        padding_percent_max,
        wait: Duration::ZERO,
    }
}

/// Texts per second, and how many, with so many callers, each asking for one after the other.
async fn measure(
    model: &Arc<TextModel>,
    callers: usize,
    seconds: usize,
) -> Result<(f64, usize), ModelError> {
    let texts = Arc::new(texts());
    let next = Arc::new(AtomicUsize::new(0));
    let until = Instant::now() + Duration::from_secs(seconds as u64);
    let started = Instant::now();
    let calls: Vec<_> = (0..callers)
        .map(|_| {
            let (model, texts, next) = (model.clone(), texts.clone(), next.clone());
            tokio::spawn(async move {
                while Instant::now() < until {
                    let at = next.fetch_add(1, Ordering::Relaxed) % TEXTS;
                    let text = Text::One(texts[at].clone());
                    let rows = model.encode(&[text], Cut::End)?;
                    model.embed(rows, true).await?;
                }
                Ok::<(), ModelError>(())
            })
        })
        .collect();
    for call in calls {
        call.await
            .map_err(|error| ModelError::Engine(error.to_string()))??;
    }
    let texts = next.load(Ordering::Relaxed);
    Ok((texts as f64 / started.elapsed().as_secs_f64(), texts))
}

/// Texts with an exponential spread of lengths, the same ones on every run.
fn texts() -> Vec<String> {
    let words = [
        "river", "bridge", "of", "the", "engine", "slowly", "turns", "and", "light",
    ];
    let mut seed = 7_u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as f64 / f64::from(1_u32 << 31)
    };
    let text = |_| {
        let length = (8.0 - 48.0 * (1.0 - random()).ln()).min(200.0) as usize;
        let word = |_| words[(random() * 9.0) as usize % 9];
        (0..length).map(word).collect::<Vec<_>>().join(" ")
    };
    (0..TEXTS).map(text).collect()
}

/// Processor time of all threads, in ticks of 10 ms; 0 where the system does not say.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
}

/// Resident memory of this process; 0 where the system does not say.
fn resident_mb() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kilobytes.unwrap_or(0) / 1024
}
