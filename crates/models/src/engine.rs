//! Engine threads: each owns one session and takes batches from a shared queue.
//!
//! What a batch is made of is decided by [`crate::batch::decide`]; here are only the threads, the
//! lock and the clock. A row whose caller has gone is dropped before it is run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::ModelError;
use crate::batch::{Decision, Limits, Padded, Queue, Queued, Tokens, decide};
use crate::metrics::{BatchMetrics, SessionCount};
use crate::ort::{Device, Graph, OutputTensor, Session, SessionOptions, give_back_memory, runtime};
use crate::pool::Pooling;

/// Rows that wait for an engine. Requests are admitted before they come here, so this is reached
/// only by many requests of many rows each; it bounds memory, at about 2 KB a row.
pub const QUEUE_ROWS_MAX: usize = 16_384;
/// Rows that one decision looks at: enough to find company of like length, little to sort.
const SCAN_ROWS_MAX: usize = 1024;
/// A run takes less by far; one that hangs does not hold up the process's end.
const STOP_WAIT_MAX: Duration = Duration::from_secs(10);
/// Tokens of the row that is run once before an engine is ready.
const WARM_UP_TOKENS: usize = 16;

/// What is read of a row's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// One vector, pooled from the tokens' (or the graph's own, if it pools by itself).
    Pooled(Pooling),
    /// Every token's vector, one behind the other.
    Tokens,
    /// The row of a rank 2 output: logits.
    Logits,
}

/// A row's output.
#[derive(Clone, Debug, PartialEq)]
pub struct RowOutput {
    /// The values.
    pub data: Vec<f32>,
    /// Length of one vector in `data`.
    pub width: usize,
}

/// How an engine is made.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The runtime library.
    pub library: std::path::PathBuf,
    /// The graph and its session.
    pub session: SessionOptions,
    /// Sessions side by side, each with its own thread.
    pub sessions: usize,
    /// Where they compute, in turn.
    pub devices: Vec<Device>,
    /// Fills short rows.
    pub pad_id: u32,
    /// Largest batch.
    pub limits: Limits,
}

/// Sessions and their threads; stopped when dropped.
pub struct Engine {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    graph: Graph,
    _counted: Vec<SessionCount>,
}

struct Shared {
    state: Mutex<State>,
    /// Rows came, limits changed, or it is over.
    changed: Condvar,
    metrics: BatchMetrics,
    /// Known only once the tokenizer is read, beside the graph.
    pad_id: AtomicU32,
}

struct State {
    queue: Queue<Row>,
    limits: Limits,
    stopping: bool,
    /// Threads that hold a session.
    running: usize,
}

/// A thread's part in `State::running`; dropped after its session.
struct Running(Arc<Shared>);

struct Row {
    tokens: Tokens,
    want: Want,
    answer: oneshot::Sender<Result<RowOutput, ModelError>>,
}

// === impl Engine ===

impl Engine {
    /// Loads the sessions side by side, runs each once, and starts their threads. Blocking.
    pub fn start(options: &EngineOptions, metrics: BatchMetrics) -> Result<Engine, ModelError> {
        let sessions = load_sessions(options)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                queue: Queue::default(),
                limits: options.limits,
                stopping: false,
                running: 0,
            }),
            changed: Condvar::new(),
            metrics,
            pad_id: AtomicU32::new(options.pad_id),
        });
        let graph = sessions
            .first()
            .map(|session| session.graph().clone())
            .ok_or(ModelError::Stopped)?;
        let devices = options.devices.iter().cycle().take(sessions.len());
        let counted = devices.map(|device| shared.metrics.session(*device));
        let mut engine = Engine {
            _counted: counted.collect(),
            shared: shared.clone(),
            threads: Vec::new(),
            graph,
        };
        for (index, session) in sessions.into_iter().enumerate() {
            let shared = shared.clone();
            let running = Running::new(&shared);
            let thread = std::thread::Builder::new()
                .name(format!("engine-{index}"))
                .spawn(move || {
                    let _running = running;
                    shared.run(session);
                })
                .map_err(|error| ModelError::Engine(error.to_string()))?;
            engine.threads.push(thread);
        }
        Ok(engine)
    }

    /// What is known of the graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Runs rows; their outputs come in the same order. Dropping the future withdraws what has
    /// not been run yet.
    pub async fn run(&self, rows: Vec<Tokens>, want: Want) -> Result<Vec<RowOutput>, ModelError> {
        let answers = self.enqueue(rows, want)?;
        let mut outputs = Vec::with_capacity(answers.len());
        for answer in answers {
            outputs.push(answer.await.map_err(|_| ModelError::Stopped)??);
        }
        Ok(outputs)
    }

    fn enqueue(
        &self,
        rows: Vec<Tokens>,
        want: Want,
    ) -> Result<Vec<oneshot::Receiver<Result<RowOutput, ModelError>>>, ModelError> {
        let since = Instant::now();
        let mut state = self.shared.lock();
        if state.stopping {
            return Err(ModelError::Stopped);
        }
        if state.queue.len() + rows.len() > QUEUE_ROWS_MAX {
            return Err(ModelError::Overloaded(QUEUE_ROWS_MAX));
        }
        let mut answers = Vec::with_capacity(rows.len());
        let queued = rows.into_iter().map(|tokens| {
            let (answer, receiver) = oneshot::channel();
            answers.push(receiver);
            let len = tokens.ids.len();
            (
                Row {
                    tokens,
                    want,
                    answer,
                },
                len,
            )
        });
        state.queue.push(queued, since);
        self.shared.metrics.queue_length(state.queue.len());
        drop(state);
        self.shared.changed.notify_all();
        Ok(answers)
    }

    /// Sets new limits; they hold from the next batch on.
    pub fn set_limits(&self, limits: Limits) {
        self.shared.lock().limits = limits;
        self.shared.changed.notify_all();
    }

    /// Sets what fills short rows. They are masked, so a batch on the way does not mind.
    pub fn set_pad_id(&self, pad_id: u32) {
        self.shared.pad_id.store(pad_id, Ordering::Relaxed);
    }

    /// Ends the threads and waits until their sessions are gone: only then is a GPU's memory free,
    /// and may the process end, as the runtime must not be in use when its library is unloaded.
    /// Blocking, a run long.
    pub fn stop(&self) {
        let state = self.shared.stop();
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, STOP_WAIT_MAX, |state| state.running > 0);
        let (state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            tracing::warn!(sessions = state.running, "sessions did not end in time");
        }
    }

    /// Whether every thread still lives.
    pub fn is_alive(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// How many sessions run side by side.
    pub fn sessions(&self) -> usize {
        self.threads.len()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The threads end after the batch they run; nobody waits for them here, since this may
        // be a thread that must not block.
        drop(self.shared.stop());
    }
}

/// Loads every session on a thread of its own, so that two take as long as one.
fn load_sessions(options: &EngineOptions) -> Result<Vec<Session>, ModelError> {
    let runtime = runtime(&options.library)?;
    let load = |device: Device| -> Result<Session, ModelError> {
        let mut session = Session::load(&runtime, &options.session, device)?;
        warm_up(&mut session, options.pad_id, &options.session.graph)?;
        Ok(session)
    };
    let sessions = std::thread::scope(|scope| {
        let devices = options.devices.iter().copied().cycle();
        let threads: Vec<_> = devices
            .take(options.sessions.max(1))
            .map(|device| scope.spawn(move || load(device)))
            .collect();
        let joined = threads.into_iter().map(|thread| {
            thread
                .join()
                .map_err(|_| ModelError::Engine("loading the graph panicked".to_owned()))?
        });
        joined.collect()
    });
    give_back_memory();
    sessions
}

fn warm_up(session: &mut Session, pad_id: u32, graph: &Path) -> Result<(), ModelError> {
    let row = Tokens {
        ids: vec![pad_id; WARM_UP_TOKENS],
        types: Vec::new(),
    };
    let padded = Padded::new(std::iter::once(&row), pad_id);
    session
        .run(&padded, |_| Ok(()))
        .map_err(|error| ModelError::BadFile {
            path: graph.to_owned(),
            reason: format!("the first run failed: {error}"),
        })
}

// === impl Running ===

impl Running {
    fn new(shared: &Arc<Shared>) -> Running {
        shared.lock().running += 1;
        Running(Arc::clone(shared))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
        self.0.changed.notify_all();
    }
}

// === impl Shared ===

impl Shared {
    /// Tells the threads to end; what waits is dropped.
    fn stop(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.stopping = true;
        state.queue.clear();
        self.changed.notify_all();
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements that may panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut session: Session) {
        while let Some(rows) = self.next_batch() {
            let started = Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let padded = Padded::new(
                    rows.iter().map(|row| &row.tokens),
                    self.pad_id.load(Ordering::Relaxed),
                );
                session.run(&padded, |output| read_rows(&rows, padded.len, &output))
            }));
            let outcome = outcome
                .unwrap_or_else(|_| Err(ModelError::Engine("the engine panicked".to_owned())));
            self.metrics.batch(rows.len(), started.elapsed());
            answer(rows, outcome);
        }
    }

    /// The next batch; `None` when it is over.
    fn next_batch(&self) -> Option<Vec<Row>> {
        let mut state = self.lock();
        loop {
            if state.stopping {
                return None;
            }
            state.queue.retain(|row| !row.answer.is_closed());
            let waiting = state.queue.waiting(SCAN_ROWS_MAX);
            let now = Instant::now();
            match decide(&waiting, now, &state.limits) {
                Decision::Take(rows) => {
                    let batch = state.queue.take(&rows);
                    let utilization = batch.len() * 100 / state.limits.rows_max.max(1);
                    self.metrics.taken(&batch_waits(&batch, now), utilization);
                    self.metrics.queue_length(state.queue.len());
                    return Some(batch.into_iter().map(|queued| queued.row).collect());
                }
                Decision::WaitUntil(at) => {
                    let wait = at.saturating_duration_since(now);
                    let woken = self.changed.wait_timeout(state, wait);
                    state = woken.unwrap_or_else(PoisonError::into_inner).0;
                }
                Decision::Idle => {
                    let woken = self.changed.wait(state);
                    state = woken.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

fn batch_waits(batch: &[Queued<Row>], now: Instant) -> Vec<Duration> {
    let wait = |row: &Queued<Row>| now.saturating_duration_since(row.since);
    batch.iter().map(wait).collect()
}

fn answer(rows: Vec<Row>, outcome: Result<Vec<RowOutput>, ModelError>) {
    match outcome {
        Ok(outputs) => {
            for (row, output) in rows.into_iter().zip(outputs) {
                // A caller that has gone does not want it.
                let _ = row.answer.send(Ok(output));
            }
        }
        Err(error) => {
            let text = error.to_string();
            for row in rows {
                let _ = row.answer.send(Err(ModelError::Engine(text.clone())));
            }
        }
    }
}

/// Cuts a batch's output into its rows.
fn read_rows(
    rows: &[Row],
    padded_len: usize,
    output: &OutputTensor<'_>,
) -> Result<Vec<RowOutput>, ModelError> {
    let dims: Vec<usize> = output
        .shape
        .iter()
        .map(|&dim| usize::try_from(dim).unwrap_or(0))
        .collect();
    let (row_cells, width) = match dims.as_slice() {
        [count, width] if *count == rows.len() => (*width, *width),
        [count, len, width] if *count == rows.len() && *len == padded_len => (len * width, *width),
        _ => {
            return Err(ModelError::Engine(format!(
                "the output has shape {dims:?} for {} rows of {padded_len} tokens",
                rows.len()
            )));
        }
    };
    if width == 0 {
        return Err(ModelError::Engine("the output is empty".to_owned()));
    }
    let read = |(row, cells): (&Row, &[f32])| {
        let len = row.tokens.ids.len();
        let data = match row.want {
            Want::Pooled(pooling) if dims.len() == 3 => pooling.apply(cells, width, len),
            Want::Tokens if dims.len() == 3 => cells[..len * width].to_vec(),
            Want::Pooled(_) | Want::Tokens | Want::Logits => cells.to_vec(),
        };
        RowOutput { data, width }
    };
    Ok(rows
        .iter()
        .zip(output.data.chunks_exact(row_cells))
        .map(read)
        .collect())
}
