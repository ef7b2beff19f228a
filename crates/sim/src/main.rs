//! `mobula-sim [--seed N] [--seeds N] [--first N] [--sabotage NAME]`: simulates one seed with its
//! log, or many.

use std::collections::BTreeMap;
use std::process::ExitCode;

use mobula_sim::{FAULTS_MS, Outcome, Sabotage, simulate};

/// Failing seeds that are shown with their logs; all are counted.
const FAILURES_SHOWN_MAX: usize = 3;

/// Lines of the log of a failing seed.
const LINES_SHOWN_MAX: usize = 40;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    let sabotage = Sabotage::ALL.into_iter().find(|sabotage| {
        let mut pairs = arguments.windows(2);
        pairs.any(|pair| pair[0] == "--sabotage" && pair[1] == format!("{sabotage:?}"))
    });
    if let Some(seed) = number("--seed") {
        let outcome = simulate(seed, FAULTS_MS, true, sabotage);
        for violation in &outcome.violations {
            println!("VIOLATED {violation}");
        }
        println!("hash {:016x}", outcome.hash);
        return code(outcome.violations.is_empty());
    }
    let (Some(seeds), first) = (number("--seeds"), number("--first").unwrap_or(1)) else {
        eprintln!("usage: mobula-sim --seed N | --seeds N [--first N] [--sabotage NAME]");
        return ExitCode::from(2);
    };
    code(many(first, seeds, sabotage))
}

fn code(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn many(first: u64, seeds: u64, sabotage: Option<Sabotage>) -> bool {
    let mut failed = 0;
    let mut sum = Sum::default();
    for seed in first..first + seeds {
        let outcome = simulate(seed, FAULTS_MS, false, sabotage);
        sum.add(&outcome);
        if outcome.violations.is_empty() {
            continue;
        }
        failed += 1;
        println!("seed {seed}: {}", outcome.violations.join("; "));
        println!("  replay with: make sim SEED={seed}");
        if failed <= FAILURES_SHOWN_MAX {
            let from = outcome.tail.len().saturating_sub(LINES_SHOWN_MAX);
            for line in &outcome.tail[from..] {
                println!("    {line}");
            }
        }
    }
    sum.print();
    println!("{seeds} seeds, {failed} failed");
    failed == 0
}

#[derive(Default)]
struct Sum {
    events: u64,
    virtual_ms: u64,
    answers: BTreeMap<String, u64>,
    unheard_repeats: u64,
    canaries: (u64, u64),
    emptied: u64,
    commits: u64,
    unknown: u64,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.events += outcome.events;
        self.virtual_ms += outcome.virtual_ms;
        for (answer, count) in &outcome.answers {
            *self.answers.entry(answer.clone()).or_default() += count;
        }
        self.unheard_repeats += outcome.unheard_repeats;
        self.canaries.0 += outcome.canaries.0;
        self.canaries.1 += outcome.canaries.1;
        self.emptied += outcome.emptied;
        self.commits += outcome.commits;
        self.unknown += outcome.unknown;
    }

    fn print(&self) {
        println!(
            "{} events in {} simulated hours; answers {:?}; {} requests ran again unheard; \
             {} good and {} bad canaries; {} workers emptied; \
             {} writes, {} with an unknown outcome",
            self.events,
            self.virtual_ms / 3_600_000,
            self.answers,
            self.unheard_repeats,
            self.canaries.0,
            self.canaries.1,
            self.emptied,
            self.commits,
            self.unknown,
        );
    }
}
