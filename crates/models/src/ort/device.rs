//! Where a session computes: on the processor, or on a GPU by way of the CUDA provider; and what
//! is missing where it cannot.

use std::fmt;
use std::path::Path;

use ort::ep::{ArenaExtendStrategy, CUDA, ExecutionProvider, cuda::CUDA_DYLIBS};
use ort::session::builder::SessionBuilder;

use crate::ModelError;

/// The driver's own library, which no package and no image brings.
const DRIVER_LIBRARY: &str = "libcuda.so.1";
/// It loads the others of its family itself.
const CUDNN_LIBRARY: &str = "libcudnn.so.9";

/// The runtime looks for it beside itself.
const PROVIDER_LIBRARY: &str = "libonnxruntime_providers_cuda.so";

/// Where a session computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    Cpu,
    /// The GPU that CUDA gives this number in this process.
    Cuda(u32),
}

/// Why a GPU cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Obstacle {
    /// The runtime library was built without CUDA.
    NoProvider,
    /// Libraries that the loader does not find.
    Missing(Vec<String>),
    /// Whatever the runtime says.
    Other(String),
}

// === impl Device ===

impl Device {
    /// Lets a session compute here, or says why it cannot; never elsewhere in silence.
    pub(super) fn register(
        self,
        builder: &mut SessionBuilder,
        library: &Path,
    ) -> Result<(), ModelError> {
        let Device::Cuda(index) = self else {
            return Ok(());
        };
        if !CUDA::is_available().unwrap_or(false) {
            return Err(self.unusable(library, &Obstacle::NoProvider));
        }
        let cuda = CUDA::default()
            .with_device_id(i32::try_from(index).unwrap_or(i32::MAX))
            // Replicas may share the device: each takes what it needs, not the next power of two.
            .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested);
        cuda.register(builder)
            .map_err(|error| self.failed(library, &error.to_string()))
    }

    /// What to say of the runtime's error.
    pub(super) fn failed(self, library: &Path, error: &str) -> ModelError {
        let libraries = [DRIVER_LIBRARY]
            .into_iter()
            .chain(CUDA_DYLIBS.iter().copied());
        let libraries = libraries.chain([CUDNN_LIBRARY]);
        let missing = libraries.filter(|name| ort::util::preload_dylib(*name).is_err());
        let mut missing: Vec<String> = missing.map(str::to_owned).collect();
        if !library.with_file_name(PROVIDER_LIBRARY).is_file() {
            missing.push(format!("{PROVIDER_LIBRARY} beside it"));
        }
        let obstacle = if missing.is_empty() {
            Obstacle::Other(error.to_owned())
        } else {
            Obstacle::Missing(missing)
        };
        self.unusable(library, &obstacle)
    }

    fn unusable(self, library: &Path, obstacle: &Obstacle) -> ModelError {
        ModelError::Gpu {
            device: self,
            reason: obstacle.text(library),
        }
    }
}

/// As PyTorch names them.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

// === impl Obstacle ===

impl Obstacle {
    fn text(&self, library: &Path) -> String {
        let library = library.display();
        match self {
            Obstacle::NoProvider => format!(
                "{library} is an ONNX Runtime without CUDA. Set MOBULA_RUNTIME=cuda (`mobula \
                 models fetch --runtime cuda` fetches it), or use the image's GPU variant, or an \
                 ORT_DYLIB_PATH of yours with libonnxruntime_providers_cuda.so beside it"
            ),
            Obstacle::Missing(names) => {
                let driver = if names.iter().any(|name| name == DRIVER_LIBRARY) {
                    format!(
                        " {DRIVER_LIBRARY} belongs to NVIDIA's driver on the machine; a container \
                         gets it from NVIDIA's container runtime or device plugin."
                    )
                } else {
                    String::new()
                };
                format!(
                    "{library} does not find {}.{driver} CUDA's libraries are those of CUDA 13 \
                     and cuDNN 9: in the image's GPU variant, in NVIDIA's \
                     packages, or in a folder that LD_LIBRARY_PATH names",
                    names.join(", ")
                )
            }
            Obstacle::Other(error) => format!(
                "{error} ({library}; `nvidia-smi` shows the devices and the driver, which must be \
                 580 or newer for CUDA 13)"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(obstacle: Obstacle) -> String {
        let library = Path::new("/usr/lib/libonnxruntime.so");
        Device::Cuda(1).unusable(library, &obstacle).to_string()
    }

    #[test]
    fn each_obstacle_names_what_is_missing_and_what_to_do() {
        let without = text(Obstacle::NoProvider);
        for part in [
            "num_gpus",
            "cuda:1",
            "/usr/lib/libonnxruntime.so",
            "MOBULA_RUNTIME=cuda",
        ] {
            assert!(without.contains(part), "{part}: {without}");
        }
        let libraries = text(Obstacle::Missing(vec!["libcudnn.so.9".to_owned()]));
        assert!(libraries.contains("libcudnn.so.9"), "{libraries}");
        assert!(libraries.contains("LD_LIBRARY_PATH"), "{libraries}");
        assert!(!libraries.contains("driver"), "{libraries}");
        let driver = text(Obstacle::Missing(vec![DRIVER_LIBRARY.to_owned()]));
        assert!(driver.contains("NVIDIA's driver"), "{driver}");
        let other = text(Obstacle::Other(
            "CUDA failure 101: invalid device".to_owned(),
        ));
        assert!(other.contains("CUDA failure 101"), "{other}");
    }
}
