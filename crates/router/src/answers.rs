//! How replicas of one version answer, while requests are shared between two versions: what the
//! head judges a new version by.
//!
//! Counted is every request that a replica answered or failed: by the status with which the
//! answer begins, or as an error when there is none, when it breaks off, or when the time-out of
//! the config passes. Not counted: what the replica did not take, and what the client gave up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mobula_proto::latency::{BUCKETS, bucket_of};
use mobula_proto::v1;

/// The counts of one version of one deployment.
pub struct Answers {
    answers: AtomicU64,
    errors: AtomicU64,
    latencies: [AtomicU64; BUCKETS],
}

/// One request at a replica whose answers are counted.
pub struct Trial {
    answers: Arc<Answers>,
    began: Instant,
    /// When the config's time-out passes: the replica's fault, other than a client that leaves.
    deadline: Option<Instant>,
    is_over: bool,
}

// === impl Answers ===

impl Default for Answers {
    fn default() -> Self {
        Answers {
            answers: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            latencies: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }
}

impl Answers {
    /// An answer begins, or there is none, so long after the replica's slot was taken.
    pub fn count(&self, latency: Duration, is_error: bool) {
        if let Some(latencies) = self.latencies.get(bucket_of(latency)) {
            latencies.fetch_add(1, Ordering::Relaxed);
        }
        self.answers.fetch_add(1, Ordering::Relaxed);
        if is_error {
            self.errors.fetch_add(1, Ordering::Release);
        }
    }

    /// An answer that was counted as a good one broke off.
    pub fn broke_off(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts as the head is told them. A request that is being counted may be in one of
    /// them and not yet in the others; the next report has it.
    pub fn report(&self, application: &str, deployment: &str, version: &str) -> v1::VersionAnswers {
        // Errors first, so that they never exceed the answers.
        let errors = self.errors.load(Ordering::Acquire);
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut latencies: Vec<u64> = self.latencies.iter().map(load).collect();
        let used = latencies.iter().rposition(|count| *count > 0);
        latencies.truncate(used.map_or(0, |last| last + 1));
        v1::VersionAnswers {
            application: application.to_owned(),
            deployment: deployment.to_owned(),
            code_version: version.to_owned(),
            answers: load(&self.answers),
            errors,
            latencies,
        }
    }
}

// === impl Trial ===

impl Trial {
    /// A request goes to a replica.
    pub fn begin(answers: &Arc<Answers>, deadline: Option<Instant>) -> Trial {
        Trial {
            answers: Arc::clone(answers),
            began: Instant::now(),
            deadline,
            is_over: false,
        }
    }

    /// The answer begins, or there is none. Gives the counts back when the answer may still
    /// break off.
    pub fn answered(mut self, is_error: bool) -> Option<Arc<Answers>> {
        self.count(is_error);
        (!is_error).then(|| Arc::clone(&self.answers))
    }

    /// The replica has nothing to do with how it ended.
    pub fn void(mut self) {
        self.is_over = true;
    }

    fn count(&mut self, is_error: bool) {
        self.is_over = true;
        self.answers.count(self.began.elapsed(), is_error);
    }
}

impl Drop for Trial {
    /// Nobody waits for the answer any more.
    fn drop(&mut self) {
        let timed_out = self.deadline.is_some_and(|at| at <= Instant::now());
        if !self.is_over && timed_out {
            self.count(true);
        }
    }
}

/// Whether a reply says that the replica failed, and not the client.
pub fn is_error(reply: &v1::Reply) -> bool {
    match &reply.grpc_status {
        None => !(200..500).contains(&reply.status),
        Some(status) => is_error_code(status.code),
    }
}

/// The gRPC codes that stand for an HTTP status of 5xx: UNKNOWN, DEADLINE_EXCEEDED,
/// UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS, and what is no code.
fn is_error_code(code: u32) -> bool {
    matches!(code, 2 | 4 | 12..=15) || code > 16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(answers: &Answers) -> (u64, u64, u64) {
        let report = answers.report("a", "d", "v");
        (report.answers, report.errors, report.latencies.iter().sum())
    }

    #[test]
    fn answers_errors_and_time_outs_count_and_clients_that_leave_do_not() {
        let answers = Arc::new(Answers::default());
        assert!(Trial::begin(&answers, None).answered(false).is_some());
        assert!(Trial::begin(&answers, None).answered(true).is_none());
        assert_eq!(counted(&answers), (2, 1, 2));
        Trial::begin(&answers, None).void();
        drop(Trial::begin(&answers, None));
        let later = Instant::now() + Duration::from_secs(3600);
        drop(Trial::begin(&answers, Some(later)));
        assert_eq!(counted(&answers), (2, 1, 2));
        drop(Trial::begin(&answers, Some(Instant::now())));
        assert_eq!(counted(&answers), (3, 2, 3));
        answers.broke_off();
        assert_eq!(counted(&answers), (3, 3, 3));
    }

    #[test]
    fn what_the_client_did_wrong_is_no_error_of_the_version() {
        let http = |status| {
            is_error(&v1::Reply {
                status,
                ..v1::Reply::default()
            })
        };
        assert_eq!(
            [200, 302, 404, 429, 499, 500, 503, 100, 0].map(http),
            [false, false, false, false, false, true, true, true, true]
        );
        let grpc = |code| {
            is_error(&v1::Reply {
                status: 200,
                grpc_status: Some(v1::GrpcStatus {
                    code,
                    message: String::new(),
                }),
                ..v1::Reply::default()
            })
        };
        let wrong: Vec<u32> = (0..=17).filter(|code| grpc(*code)).collect();
        assert_eq!(wrong, [2, 4, 12, 13, 14, 15, 17]);
    }
}
