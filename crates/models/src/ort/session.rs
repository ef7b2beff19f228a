//! One session of a text model: which inputs its graph wants, which output to read, one run.

use std::path::PathBuf;

use ort::session::builder::SessionBuilder;
use ort::session::{Session as OrtSession, SessionInputValue};
use ort::value::{DynValue, TensorElementType, TensorRef, ValueType};

use super::placed::{Placed, RECORD_KEY};
use super::{Device, Runtime};
use crate::ModelError;
use crate::batch::Padded;

/// How a session is to be made.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The graph's file.
    pub graph: PathBuf,
    /// Threads inside one run.
    pub intra_threads: usize,
    /// Whether the model is read for its token vectors rather than for its logits.
    pub reads_hidden: bool,
}

/// What a graph looks like from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    inputs: Vec<GraphInput>,
    /// The output that is read.
    pub output: String,
    /// 3 for token vectors, 2 for logits or pooled vectors.
    pub output_rank: usize,
    /// The output's last dimension, where the graph fixes it.
    pub width: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct GraphInput {
    name: String,
    role: InputRole,
    is_int32: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InputRole {
    Ids,
    Mask,
    Types,
    Positions,
}

/// A session and what is known of its graph. `run` takes it for itself: one thread owns it.
pub struct Session {
    session: OrtSession,
    graph: Graph,
}

/// The output of a run, borrowed from the runtime.
pub struct OutputTensor<'a> {
    /// Rows, then tokens (rank 3 only), then width.
    pub shape: &'a [i64],
    /// All values, row by row.
    pub data: &'a [f32],
}

// === impl Session ===

impl Session {
    /// Loads a graph to compute on a device.
    pub fn load(
        runtime: &Runtime,
        options: &SessionOptions,
        device: Device,
    ) -> Result<Self, ModelError> {
        let bad = |reason: String| ModelError::BadFile {
            path: options.graph.clone(),
            reason,
        };
        let mut builder = builder(runtime, options).map_err(|error| bad(error.to_string()))?;
        device.register(&mut builder, &runtime.library)?;
        if device != Device::Cpu {
            let recorded = builder.with_config_entry(RECORD_KEY, "1");
            builder = recorded.map_err(|error| bad(error.to_string()))?;
        }
        let session = builder.commit_from_file(&options.graph);
        let session = session.map_err(|error| match error.to_string() {
            // The provider meets the device only here.
            text if device != Device::Cpu && text.contains("CU") => {
                device.failed(&runtime.library, &text)
            }
            text => bad(text),
        })?;
        if device != Device::Cpu {
            check_placed(&session, options, device)?;
        }
        let graph = Graph::of(&session, options.reads_hidden).map_err(bad)?;
        Ok(Session { session, graph })
    }

    /// What is known of the graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Runs one padded batch and hands its output to `read`.
    pub fn run<T>(
        &mut self,
        batch: &Padded,
        read: impl FnOnce(OutputTensor<'_>) -> Result<T, ModelError>,
    ) -> Result<T, ModelError> {
        let shape = [batch.rows as i64, batch.len as i64];
        let narrow = NarrowInputs::of(batch, &self.graph);
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = Vec::new();
        for input in &self.graph.inputs {
            let wide = batch_data(batch, input.role);
            let value = if input.is_int32 {
                let data = narrow.data(input.role);
                TensorRef::from_array_view((shape, data)).map(SessionInputValue::from)
            } else {
                TensorRef::from_array_view((shape, wide)).map(SessionInputValue::from)
            };
            inputs.push((&input.name, value.map_err(engine)?));
        }
        let outputs = self.session.run(inputs).map_err(engine)?;
        let output: &DynValue = outputs
            .get(&self.graph.output)
            .ok_or_else(|| ModelError::Engine(format!("no output {}", self.graph.output)))?;
        let (shape, data) = output.try_extract_tensor::<f32>().map_err(engine)?;
        read(OutputTensor { shape, data })
    }
}

fn builder(runtime: &Runtime, options: &SessionOptions) -> ort::Result<SessionBuilder> {
    Ok(OrtSession::builder(&runtime.environment)?
        .with_intra_threads(options.intra_threads.max(1))?
        // A waiting pool that spins takes the processor from the sessions beside it.
        .with_intra_op_spinning(false)?
        // Patterns are kept for each shape, and here every batch may have another one.
        .with_memory_pattern(false)?)
}

/// The runtime gives the processor what the device has no kernel for: said, and refused where
/// that is most of the work.
fn check_placed(
    session: &OrtSession,
    options: &SessionOptions,
    device: Device,
) -> Result<(), ModelError> {
    let placed = Placed::of(session).map_err(engine)?;
    let (on_device, on_processor) = placed.counts();
    let graph = options.graph.display();
    tracing::info!(%graph, %device, on_device, on_processor, "operators of the graph are placed");
    placed
        .check()
        .map_err(|reason| ModelError::Gpu { device, reason })
}

fn engine(error: ort::Error) -> ModelError {
    ModelError::Engine(error.to_string())
}

fn batch_data(batch: &Padded, role: InputRole) -> &[i64] {
    match role {
        InputRole::Ids => &batch.ids,
        InputRole::Mask => &batch.mask,
        InputRole::Types => &batch.types,
        InputRole::Positions => &batch.positions,
    }
}

/// Copies of the inputs for graphs that want 32 bits.
struct NarrowInputs(Vec<(InputRole, Vec<i32>)>);

impl NarrowInputs {
    fn of(batch: &Padded, graph: &Graph) -> NarrowInputs {
        let narrow = graph.inputs.iter().filter(|input| input.is_int32);
        // Ids, masks and positions are small numbers: the cast loses nothing.
        let copy = |role| {
            batch_data(batch, role)
                .iter()
                .map(|&id| id as i32)
                .collect()
        };
        NarrowInputs(narrow.map(|input| (input.role, copy(input.role))).collect())
    }

    fn data(&self, role: InputRole) -> &[i32] {
        let found = self.0.iter().find(|(of, _)| *of == role);
        found.map_or(&[], |(_, data)| data)
    }
}

// === impl Graph ===

impl Graph {
    fn of(session: &OrtSession, reads_hidden: bool) -> Result<Graph, String> {
        let inputs = session
            .inputs()
            .iter()
            .map(|input| GraphInput::of(input.name(), input.dtype()))
            .collect::<Result<Vec<_>, String>>()?;
        if !inputs.iter().any(|input| input.role == InputRole::Ids) {
            return Err("the graph has no input named input_ids".to_owned());
        }
        let outputs: Vec<(&str, &ValueType)> = session
            .outputs()
            .iter()
            .map(|output| (output.name(), output.dtype()))
            .collect();
        let (output, output_rank, width) = choose_output(&outputs, reads_hidden)?;
        Ok(Graph {
            inputs,
            output,
            output_rank,
            width,
        })
    }
}

impl GraphInput {
    fn of(name: &str, dtype: &ValueType) -> Result<GraphInput, String> {
        let role = match name {
            "input_ids" | "input" | "ids" => InputRole::Ids,
            "attention_mask" | "mask" | "input_mask" => InputRole::Mask,
            "token_type_ids" | "segment_ids" => InputRole::Types,
            "position_ids" => InputRole::Positions,
            other => {
                return Err(format!(
                    "the graph wants an input '{other}'; input_ids, attention_mask, \
                     token_type_ids and position_ids are known"
                ));
            }
        };
        let ValueType::Tensor { ty, .. } = dtype else {
            return Err(format!("input {name} is not a tensor"));
        };
        let is_int32 = match ty {
            TensorElementType::Int64 => false,
            TensorElementType::Int32 => true,
            other => return Err(format!("input {name} wants {other:?}, not int64 or int32")),
        };
        Ok(GraphInput {
            name: name.to_owned(),
            role,
            is_int32,
        })
    }
}

/// The output to read: by its usual name, else the first of the right rank.
fn choose_output(
    outputs: &[(&str, &ValueType)],
    reads_hidden: bool,
) -> Result<(String, usize, Option<usize>), String> {
    let known: &[&str] = if reads_hidden {
        &["last_hidden_state", "token_embeddings", "hidden_states"]
    } else {
        &["logits", "output", "scores"]
    };
    let rank = if reads_hidden { 3 } else { 2 };
    let tensors: Vec<(&str, &TensorElementType, Vec<i64>)> = outputs
        .iter()
        .filter_map(|(name, dtype)| match dtype {
            ValueType::Tensor { ty, shape, .. } => Some((*name, ty, shape.to_vec())),
            _ => None,
        })
        .collect();
    let by_name = known
        .iter()
        .find_map(|name| tensors.iter().find(|(output, ..)| output == name));
    let by_rank = || tensors.iter().find(|(_, _, shape)| shape.len() == rank);
    // A graph that pools by itself gives vectors of rank 2.
    let any = || tensors.iter().find(|(_, _, shape)| shape.len() == 2);
    let (name, dtype, shape) = by_name.or_else(by_rank).or_else(any).ok_or_else(|| {
        let names: Vec<&str> = outputs.iter().map(|(name, _)| *name).collect();
        format!("no output of rank {rank} among {}", names.join(", "))
    })?;
    if **dtype != TensorElementType::Float32 {
        return Err(format!("output {name} is {dtype:?}; only float32 is read"));
    }
    let width = shape.last().and_then(|&width| usize::try_from(width).ok());
    Ok(((*name).to_owned(), shape.len(), width))
}
