//! Which of the worker's GPUs a replica gets. Pure.
//!
//! As with Ray: whole GPUs are a replica's own, and a part of one is taken where the least is left
//! that still holds it, so that parts share a device and the others stay whole. Ray tells a
//! process by `CUDA_VISIBLE_DEVICES`; here replicas share one, so each is told its devices.
//!
//! The head counts a worker's GPUs as one sum. Parts that fit into the sum but into no device
//! (three of 0.6 on two GPUs) are refused here, with the reason.

use std::collections::BTreeMap;

use mobula_app::GpuShare;

/// Amounts are whole ten-thousandths, as the head counts them: floats would let ten replicas of
/// 0.1 miss a device.
const PARTS: u32 = 10_000;

/// More devices than any machine has.
const DEVICES_MAX: u32 = 1024;

/// The devices of a worker and who holds them.
#[derive(Clone, Debug)]
pub(crate) struct Gpus {
    /// Parts that each device has; only the last may have less than all.
    devices: Vec<u32>,
    /// (device, parts) by replica.
    held: BTreeMap<String, Vec<(u32, u32)>>,
}

impl Gpus {
    /// Devices 0 and up, for that many GPUs; `1.5` is one and a half.
    pub fn of(gpus: f64) -> Gpus {
        let mut left = parts(gpus).min(u64::from(DEVICES_MAX) * u64::from(PARTS));
        let mut devices = Vec::new();
        while left > 0 {
            let device = left.min(u64::from(PARTS));
            devices.push(device as u32);
            left -= device;
        }
        Gpus {
            devices,
            held: BTreeMap::new(),
        }
    }

    /// Takes what a replica asks for; without GPUs it gets none. The error is for people.
    pub fn take(&mut self, replica: &str, num_gpus: f64) -> Result<Vec<GpuShare>, String> {
        let wanted = parts(num_gpus);
        let whole = wanted / u64::from(PARTS);
        let part = (wanted % u64::from(PARTS)) as u32;
        let taken = match (whole, part) {
            (0, 0) => return Ok(Vec::new()),
            (0, part) => self.part(part).into_iter().collect(),
            (whole, 0) => self.whole(whole),
            _ => {
                return Err(format!(
                    "num_gpus {num_gpus}: above 1 only whole numbers are allowed"
                ));
            }
        };
        if taken.is_empty() {
            return Err(self.no_room(num_gpus));
        }
        self.held.insert(replica.to_owned(), taken.clone());
        let share = |(device, parts): (u32, u32)| GpuShare {
            device,
            share: f64::from(parts) / f64::from(PARTS),
        };
        Ok(taken.into_iter().map(share).collect())
    }

    /// Frees what replicas held that have ended.
    pub fn give_back(&mut self, has_ended: impl Fn(&str) -> bool) {
        self.held.retain(|replica, _| !has_ended(replica));
    }

    /// The fullest device with room for it.
    fn part(&self, part: u32) -> Option<(u32, u32)> {
        let fits = self.free().filter(|(_, free)| *free >= part);
        let fullest = fits.min_by_key(|(device, free)| (*free, *device));
        fullest.map(|(device, _)| (device, part))
    }

    /// The first devices that nobody uses; none if they are too few.
    fn whole(&self, count: u64) -> Vec<(u32, u32)> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let unused = self.free().filter(|(_, free)| *free == PARTS);
        let unused: Vec<(u32, u32)> = unused.take(count).collect();
        if unused.len() == count {
            unused
        } else {
            Vec::new()
        }
    }

    /// What is free of each device.
    fn free(&self) -> impl Iterator<Item = (u32, u32)> {
        (0..).zip(&self.devices).map(|(device, has)| {
            let of_device = self.held.values().flatten().filter(|held| held.0 == device);
            let held: u32 = of_device.map(|(_, parts)| parts).sum();
            (device, has.saturating_sub(held))
        })
    }

    fn no_room(&self, num_gpus: f64) -> String {
        let free: Vec<String> = self
            .free()
            .map(|(device, free)| format!("{} of {device}", f64::from(free) / f64::from(PARTS)))
            .collect();
        let free = if free.is_empty() {
            "it has none".to_owned()
        } else {
            format!("free are {}", free.join(", "))
        };
        format!(
            "num_gpus {num_gpus}: this worker has no room for it on its GPUs, {free}; a part of a \
             GPU must fit into one of them"
        )
    }
}

/// Ten-thousandths; what is no amount (negative, NaN) is zero.
fn parts(gpus: f64) -> u64 {
    (gpus * f64::from(PARTS)).round() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn devices(taken: Result<Vec<GpuShare>, String>) -> Vec<u32> {
        taken.unwrap().iter().map(|share| share.device).collect()
    }

    #[test]
    fn halves_share_a_device_and_whole_ones_get_their_own() {
        let mut gpus = Gpus::of(3.0);
        assert_eq!(devices(gpus.take("a", 0.5)), [0]);
        assert_eq!(devices(gpus.take("b", 1.0)), [1]);
        assert_eq!(devices(gpus.take("c", 0.5)), [0]);
        assert_eq!(devices(gpus.take("d", 0.25)), [2]);
        gpus.give_back(|replica| replica == "d");
        assert_eq!(devices(gpus.take("e", 1.0)), [2]);
        gpus.give_back(|replica| replica == "b" || replica == "e");
        assert_eq!(devices(gpus.take("f", 2.0)), [1, 2]);
        assert!(devices(gpus.take("g", 0.0)).is_empty());
    }

    #[test]
    fn ten_tenths_fill_a_device() {
        let mut gpus = Gpus::of(1.0);
        for replica in 0..10 {
            assert_eq!(devices(gpus.take(&replica.to_string(), 0.1)), [0]);
        }
        assert!(gpus.take("11", 0.0001).is_err());
    }

    #[test]
    fn what_does_not_fit_is_told_what_is_free() {
        let mut gpus = Gpus::of(2.0);
        gpus.take("a", 0.6).unwrap();
        gpus.take("b", 0.6).unwrap();
        let error = gpus.take("c", 0.6).unwrap_err();
        assert!(error.contains("num_gpus 0.6"), "{error}");
        assert!(error.contains("free are 0.4 of 0, 0.4 of 1"), "{error}");
        let error = gpus.take("d", 1.5).unwrap_err();
        assert!(error.contains("whole numbers"), "{error}");
        let error = Gpus::of(0.0).take("e", 1.0).unwrap_err();
        assert!(error.contains("it has none"), "{error}");
    }

    #[test]
    fn a_worker_of_half_a_gpu_gives_no_more_of_it() {
        let mut gpus = Gpus::of(0.5);
        assert!(gpus.take("a", 1.0).is_err());
        assert_eq!(devices(gpus.take("b", 0.5)), [0]);
        assert!(gpus.take("c", 0.1).is_err());
        assert!(Gpus::of(f64::NAN).take("d", 0.1).is_err());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(f64),
        End(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let amount = prop_oneof![
            (1..=10u32).prop_map(|tenths| f64::from(tenths) / 10.0),
            (1..4u32).prop_map(f64::from),
            0.0..2.0f64,
        ];
        let step = prop_oneof![
            3 => amount.prop_map(Step::Take),
            2 => (0..20usize).prop_map(Step::End),
        ];
        proptest::collection::vec(step, 0..40)
    }

    proptest! {
        #[test]
        fn no_device_is_given_out_beyond_what_there_is_of_it(
            has in prop_oneof![(0..5u32).prop_map(f64::from), 0.0..5.0f64],
            steps in steps(),
        ) {
            let mut gpus = Gpus::of(has);
            let mut alive: Vec<(String, Vec<GpuShare>)> = Vec::new();
            for (index, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Take(amount) => {
                        let id = format!("r{index}");
                        if let Ok(shares) = gpus.take(&id, amount) {
                            let sum: f64 = shares.iter().map(|share| share.share).sum();
                            prop_assert!((sum - amount).abs() < 1e-4, "{sum} for {amount}");
                            prop_assert!(amount <= 1.0 || shares.iter().all(|s| s.share == 1.0));
                            alive.push((id, shares));
                        }
                    }
                    Step::End(at) if at < alive.len() => {
                        let (ended, _) = alive.remove(at);
                        gpus.give_back(|id| id == ended);
                    }
                    Step::End(_) => {}
                }
                let mut used: BTreeMap<u32, f64> = BTreeMap::new();
                for share in alive.iter().flat_map(|(_, shares)| shares) {
                    *used.entry(share.device).or_default() += share.share;
                }
                for (device, used) in used {
                    let there = (has - f64::from(device)).clamp(0.0, 1.0);
                    prop_assert!(used <= there + 1e-4, "{used} of device {device} of {has}");
                }
            }
        }

        #[test]
        fn everything_fits_again_when_all_have_ended(has in 1..5u32, steps in steps()) {
            let mut gpus = Gpus::of(f64::from(has));
            for (index, step) in steps.into_iter().enumerate() {
                if let Step::Take(amount) = step {
                    let _ = gpus.take(&format!("r{index}"), amount);
                }
            }
            gpus.give_back(|_| true);
            prop_assert_eq!(devices(gpus.take("all", f64::from(has))).len(), has as usize);
        }
    }
}
