//! What follows from the answers of a canary, and how it is said. Pure numbers.

use std::fmt;

use mobula_proto::latency;
use mobula_spec::Traffic;

use super::{Canary, CanaryStep, Stage};
use crate::world::Now;
use crate::world::observed::Answers;

/// A step without enough answers takes this many times its time at most; then it is judged by
/// those that there are. What nobody uses harms nobody, and must not hold a rollout for ever.
pub const PROLONGED_MAX: f64 = 10.0;

/// How far above a limit a step is given up before its time. The rate of few answers goes up
/// and down; twice the limit is more than chance.
const EARLY_FACTOR: f64 = 2.0;

/// The part of the answers that may be slower than `p99_ms_max`.
const SLOW_PART_MAX: f64 = 0.01;

/// What was seen of a canary when something was decided about it.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Enough replicas for the step.
    Ready { replicas: u32, percent: u32 },
    /// It answers well enough.
    Good {
        answers: u64,
        errors: u64,
        percent: u32,
    },
    /// No replicas shall run, so nothing can be judged.
    NothingToShare,
    /// Too many of its answers are errors.
    Failing {
        answers: u64,
        errors: u64,
        percent: u32,
        rate_max: f64,
    },
    /// All replicas run again, old ones and new ones.
    Recovered,
    /// Too many of its answers are slow.
    Slow {
        answers: u64,
        p99_ms: f64,
        percent: u32,
        p99_ms_max: f64,
    },
}

// === impl Canary ===

impl Canary {
    /// What follows now, and from what; `ready` replicas of it answer.
    pub fn next(
        &self,
        traffic: &Traffic,
        now: Now,
        ready: u32,
        target: u32,
    ) -> Option<(CanaryStep, Verdict)> {
        let Stage::Step { step, since_s } = self.stage else {
            return None;
        };
        if target == 0 {
            return Some((CanaryStep::Promote, Verdict::NothingToShare));
        }
        let percent = self.percent(traffic);
        if let Some(bad) = self.bad(traffic, percent, EARLY_FACTOR, traffic.requests_min) {
            return Some((CanaryStep::GiveUp(bad.to_string()), bad));
        }
        let Some(since_s) = since_s else {
            let needed = self.replicas(traffic, target);
            let percent = self.clone().at(Stage::begun(step, now)).percent(traffic);
            let replicas = ready;
            let ready = Verdict::Ready { replicas, percent };
            return (replicas >= needed).then_some((CanaryStep::Begin, ready));
        };
        let elapsed_s = now.unix_s - since_s;
        let enough = self.counted.answers >= traffic.requests_min.into();
        let limit = if enough { 1.0 } else { PROLONGED_MAX };
        if elapsed_s < traffic.step_s * limit {
            return None;
        }
        if let Some(bad) = self.bad(traffic, percent, 1.0, 0) {
            return Some((CanaryStep::GiveUp(bad.to_string()), bad));
        }
        let good = Verdict::Good {
            answers: self.counted.answers,
            errors: self.counted.errors,
            percent,
        };
        let is_last = step + 1 >= traffic.steps.len();
        let next = if is_last {
            CanaryStep::Promote
        } else {
            CanaryStep::Next
        };
        Some((next, good))
    }

    /// Whether more is wrong than `factor` times what is allowed, of at least so many answers:
    /// with fewer, of so many, since all that are missing might be good ones.
    fn bad(&self, traffic: &Traffic, percent: u32, factor: f64, least: u32) -> Option<Verdict> {
        let Answers {
            answers,
            errors,
            latencies,
        } = &self.counted;
        let of = (*answers).max(least.into()) as f64;
        if *errors as f64 > traffic.error_rate_max * factor * of {
            return Some(Verdict::Failing {
                answers: *answers,
                errors: *errors,
                percent,
                rate_max: traffic.error_rate_max,
            });
        }
        let p99_ms_max = traffic.p99_ms_max?;
        let slow = latency::above(latencies, p99_ms_max);
        (slow > SLOW_PART_MAX * factor * of).then(|| Verdict::Slow {
            answers: *answers,
            p99_ms: self.p99_ms(),
            percent,
            p99_ms_max,
        })
    }

    fn p99_ms(&self) -> f64 {
        latency::quantile_ms(&self.counted.latencies, 1.0 - SLOW_PART_MAX).unwrap_or(0.0)
    }

    pub(super) fn message(&self, traffic: &Traffic, now: Now, ready: u32, target: u32) -> String {
        let Stage::Step { step, since_s } = self.stage else {
            return match self.stage {
                Stage::Promoted => "canary: promoted, the old replicas are being replaced".into(),
                Stage::Step { .. } | Stage::GivenUp(_) => String::new(),
            };
        };
        let Answers {
            answers, errors, ..
        } = self.counted;
        let (of, percent) = (traffic.steps.len(), self.percent(traffic));
        let begin = format!(
            "canary: step {} of {of}, {percent} % of the requests; {answers} answers, {errors} \
             failed, p99 {:.0} ms; ",
            (step + 1).min(of),
            self.p99_ms()
        );
        let Some(since_s) = since_s else {
            let needed = self.replicas(traffic, target);
            return format!("{begin}{ready} of {needed} new replicas answer");
        };
        let left = |limit: f64| {
            (since_s + traffic.step_s * limit - now.unix_s)
                .max(0.0)
                .ceil()
        };
        if left(1.0) > 0.0 {
            return format!("{begin}judged in {} s", left(1.0));
        }
        format!(
            "{begin}prolonged until there are {} answers, by {} s at most",
            traffic.requests_min,
            left(PROLONGED_MAX)
        )
    }
}

// === impl Verdict ===

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Ready { replicas, percent } => {
                write!(
                    f,
                    "canary: {replicas} new replicas answer, {percent} % goes to them"
                )
            }
            Verdict::Good {
                answers,
                errors,
                percent,
            } => write!(
                f,
                "canary: {errors} of {answers} requests failed at {percent} %"
            ),
            Verdict::Recovered => f.write_str("canary: all replicas are well again"),
            Verdict::NothingToShare => f.write_str("canary: no replicas shall run"),
            Verdict::Failing {
                answers,
                errors,
                percent,
                rate_max,
            } => {
                let rate = rounded(100.0 * *errors as f64 / (*answers).max(1) as f64);
                let allowed = rounded(100.0 * rate_max);
                write!(
                    f,
                    "canary: {rate} % of {answers} requests failed at {percent} %, allowed \
                     {allowed} %"
                )
            }
            Verdict::Slow {
                answers,
                p99_ms,
                percent,
                p99_ms_max,
            } => write!(
                f,
                "canary: p99 of {answers} requests was {p99_ms:.0} ms at {percent} %, allowed \
                 {p99_ms_max} ms"
            ),
        }
    }
}

/// With at most two places behind the point, and none that say nothing.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
