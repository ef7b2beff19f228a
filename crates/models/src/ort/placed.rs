//! Which operators of a session run where. A GPU's provider leaves to the processor what it has
//! no kernel for, which may be all the work of a graph.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::ptr;

use ort::AsPointer;
use ort::session::Session;
use ort::sys::{OrtEpAssignedNode, OrtEpAssignedSubgraph};

/// The key that lets a session remember it.
pub const RECORD_KEY: &str = "session.record_ep_graph_assignment_info";

/// Parts of the names of operators that are work; the rest moves data or is small.
const WORK: [&str; 4] = ["MatMul", "Gemm", "Conv", "Attention"];

const PROCESSOR: &str = "CPUExecutionProvider";

/// Operators by provider, with their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed(BTreeMap<String, BTreeMap<String, usize>>);

// === impl Placed ===

impl Placed {
    /// Asks the runtime; the session was made with [`RECORD_KEY`].
    pub fn of(session: &Session) -> ort::Result<Placed> {
        let mut placed = Placed::default();
        for subgraph in subgraphs(session)? {
            let provider = provider(subgraph)?;
            for node in nodes(subgraph)? {
                placed.add(&provider, &operator(node)?);
            }
        }
        Ok(placed)
    }

    fn add(&mut self, provider: &str, operator: &str) {
        let operators = self.0.entry(provider.to_owned()).or_default();
        *operators.entry(operator.to_owned()).or_default() += 1;
    }

    /// How many operators run on the GPU, and how many on the processor.
    pub fn counts(&self) -> (usize, usize) {
        let count = |is_processor: bool| {
            let of = |(provider, _): &(&String, _)| (*provider == PROCESSOR) == is_processor;
            let operators = self.0.iter().filter(of);
            operators
                .flat_map(|(_, operators)| operators.values())
                .sum()
        };
        (count(false), count(true))
    }

    /// Refuses a graph most of whose work would be done by the processor.
    pub fn check(&self) -> Result<(), String> {
        let is_work = |operator: &str| WORK.iter().any(|part| operator.contains(part));
        let mut on_gpu = 0;
        let mut on_processor = BTreeMap::new();
        for (provider, operators) in &self.0 {
            for (operator, count) in operators.iter().filter(|(name, _)| is_work(name)) {
                if provider == PROCESSOR {
                    on_processor.insert(operator.as_str(), *count);
                } else {
                    on_gpu += count;
                }
            }
        }
        if on_processor.values().sum::<usize>() <= on_gpu {
            return Ok(());
        }
        let names = on_processor.iter();
        let names: Vec<String> = names
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        Err(format!(
            "most of the graph has no kernel there and would run on the processor: {}. Graphs \
             quantized to int8 are made for processors: name one in float32 or float16 (`model`, \
             `onnx_path`), or set num_gpus: 0",
            names.join(", ")
        ))
    }
}

#[expect(unsafe_code, reason = "ort has no safe binding for it yet")]
fn subgraphs(session: &Session) -> ort::Result<Vec<*const OrtEpAssignedSubgraph>> {
    let (mut list, mut count) = (ptr::null(), 0);
    // SAFETY: the session lives; the runtime gives an array of that length, which is the
    // session's own and stays as long as it does. It is copied while the session is borrowed.
    unsafe {
        let status =
            (ort::api().Session_GetEpGraphAssignmentInfo)(session.ptr(), &mut list, &mut count);
        ort::Error::result_from_status(status)?;
        Ok(copied(list, count))
    }
}

#[expect(unsafe_code, reason = "ort has no safe binding for it yet")]
fn nodes(subgraph: *const OrtEpAssignedSubgraph) -> ort::Result<Vec<*const OrtEpAssignedNode>> {
    let (mut list, mut count) = (ptr::null(), 0);
    // SAFETY: `subgraph` comes from `subgraphs`, whose session is still borrowed by `Placed::of`.
    unsafe {
        let status = (ort::api().EpAssignedSubgraph_GetNodes)(subgraph, &mut list, &mut count);
        ort::Error::result_from_status(status)?;
        Ok(copied(list, count))
    }
}

#[expect(unsafe_code, reason = "ort has no safe binding for it yet")]
fn provider(subgraph: *const OrtEpAssignedSubgraph) -> ort::Result<String> {
    let mut name = ptr::null();
    // SAFETY: as in `nodes`.
    unsafe {
        let status = (ort::api().EpAssignedSubgraph_GetEpName)(subgraph, &mut name);
        ort::Error::result_from_status(status)?;
        Ok(text(name))
    }
}

#[expect(unsafe_code, reason = "ort has no safe binding for it yet")]
fn operator(node: *const OrtEpAssignedNode) -> ort::Result<String> {
    let mut name = ptr::null();
    // SAFETY: `node` comes from `nodes`; the session is still borrowed.
    unsafe {
        let status = (ort::api().EpAssignedNode_GetOperatorType)(node, &mut name);
        ort::Error::result_from_status(status)?;
        Ok(text(name))
    }
}

/// # Safety
/// `list` is null or points to `count` values.
#[expect(unsafe_code, reason = "ort has no safe binding for it yet")]
unsafe fn copied<T>(list: *const *const T, count: usize) -> Vec<*const T> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller's.
    unsafe { std::slice::from_raw_parts(list, count) }.to_vec()
}

/// # Safety
/// `name` is null or a C string.
#[expect(unsafe_code, reason = "ort has no safe binding for it yet")]
unsafe fn text(name: *const c_char) -> String {
    if name.is_null() {
        return String::new();
    }
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(name) }
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(nodes: &[(&str, &str, usize)]) -> Placed {
        let mut placed = Placed::default();
        for (provider, operator, count) in nodes {
            (0..*count).for_each(|_| placed.add(provider, operator));
        }
        placed
    }

    #[test]
    fn small_things_on_the_processor_are_no_obstacle() {
        let placed = placed(&[
            ("CUDAExecutionProvider", "MatMul", 36),
            ("CUDAExecutionProvider", "Attention", 6),
            (PROCESSOR, "Shape", 50),
            (PROCESSOR, "MatMul", 1),
        ]);
        assert_eq!(placed.check(), Ok(()));
        assert_eq!(placed.counts(), (42, 51));
    }

    #[test]
    fn a_graph_whose_products_stay_on_the_processor_is_refused_by_their_names() {
        let placed = placed(&[
            ("CUDAExecutionProvider", "Softmax", 12),
            ("CUDAExecutionProvider", "MatMul", 24),
            (PROCESSOR, "MatMulInteger", 72),
        ]);
        let error = placed.check().unwrap_err();
        assert!(error.contains("72 MatMulInteger"), "{error}");
        assert!(error.contains("num_gpus: 0"), "{error}");
    }
}
