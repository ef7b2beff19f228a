//! Which GPUs a worker process sees. Pure.
//!
//! Within a process the worker gives its devices to replicas; between the processes of one machine
//! `CUDA_VISIBLE_DEVICES` keeps them apart, which CUDA reads once, at its first call.

use anyhow::{Result, bail};

/// The variable by which CUDA numbers the devices of a process anew.
pub const VISIBLE_DEVICES: &str = "CUDA_VISIBLE_DEVICES";

/// Amounts that differ by less are equal: a third is no exact float.
const EPSILON: f64 = 1e-4;

/// The devices of each of `workers` processes that share `num_gpus` evenly; nothing where one
/// process has them all. `visible` is the variable as this process has it.
pub fn divide(num_gpus: f64, workers: u32, visible: Option<&str>) -> Result<Vec<String>> {
    if num_gpus == 0.0 || workers == 1 {
        return Ok(Vec::new());
    }
    let share = num_gpus / f64::from(workers);
    let named = visible.map(named);
    (0..workers)
        .map(|slot| {
            let from = share * f64::from(slot);
            let (first, end) = ((from + EPSILON).floor(), (from + share - EPSILON).ceil());
            let is_whole = (from - from.round()).abs() < EPSILON;
            if !is_whole && end - first > 1.0 {
                bail!(
                    "--num-gpus {num_gpus}: {workers} workers cannot share them evenly; allowed \
                     are whole GPUs for each worker, or a number of workers for each GPU"
                );
            }
            let devices = (first as usize..end as usize).map(|device| match &named {
                None => Ok(device.to_string()),
                Some(names) => names
                    .get(device)
                    .cloned()
                    .ok_or_else(|| too_few(num_gpus, names)),
            });
            Ok(devices.collect::<Result<Vec<_>>>()?.join(","))
        })
        .collect()
}

/// Refuses more GPUs than CUDA will see.
pub fn check_visible(gpus: f64, visible: Option<&str>) -> Result<()> {
    match visible.map(named) {
        Some(names) if (names.len() as f64) < gpus.ceil() => Err(too_few(gpus, &names)),
        _ => Ok(()),
    }
}

fn too_few(gpus: f64, names: &[String]) -> anyhow::Error {
    anyhow::anyhow!(
        "{gpus} GPUs are to be used, and {VISIBLE_DEVICES} names {} ('{}')",
        names.len(),
        names.join(",")
    )
}

/// The devices of the variable; CUDA stops at the first that is none.
fn named(visible: &str) -> Vec<String> {
    let names = visible.split(',').map(str::trim);
    let devices = names.take_while(|name| !name.is_empty() && !name.starts_with('-'));
    devices.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_get_devices_of_their_own_or_share_one() {
        for (gpus, workers, visible, expected) in [
            (0.0, 4, None, vec![]),
            (2.0, 1, None, vec![]),
            (2.0, 2, None, vec!["0", "1"]),
            (4.0, 2, None, vec!["0,1", "2,3"]),
            (1.0, 3, None, vec!["0", "0", "0"]),
            (2.0, 4, None, vec!["0", "0", "1", "1"]),
            (2.0, 2, Some("5, 7"), vec!["5", "7"]),
            (1.0, 2, Some("GPU-8f2b"), vec!["GPU-8f2b", "GPU-8f2b"]),
        ] {
            assert_eq!(
                divide(gpus, workers, visible).unwrap(),
                expected,
                "{gpus} {workers}"
            );
        }
    }

    #[test]
    fn what_cannot_be_shared_evenly_is_refused() {
        for (gpus, workers) in [(3.0, 2), (2.0, 3)] {
            let error = divide(gpus, workers, None).unwrap_err().to_string();
            assert!(error.contains("--num-gpus"), "{error}");
            assert!(error.contains("evenly"), "{error}");
        }
    }

    #[test]
    fn more_gpus_than_cuda_sees_are_refused() {
        let error = divide(2.0, 2, Some("3")).unwrap_err().to_string();
        assert!(
            error.contains("CUDA_VISIBLE_DEVICES names 1 ('3')"),
            "{error}"
        );
        for (gpus, visible, fits) in [
            (1.0, None, true),
            (1.5, Some("0,1"), true),
            (1.5, Some("0"), false),
            (1.0, Some(""), false),
            (2.0, Some("0,-1,1"), false),
            (0.0, Some(""), true),
        ] {
            assert_eq!(
                check_visible(gpus, visible).is_ok(),
                fits,
                "{gpus} {visible:?}"
            );
        }
    }
}
