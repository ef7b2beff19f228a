//! What happened, as lines and as one number: the same seed gives the same number.

use std::collections::VecDeque;

/// Lines kept for a failure.
const LINES_MAX: usize = 400;

pub struct Log {
    hash: u64,
    lines: VecDeque<String>,
    print: bool,
}

impl Log {
    pub fn new(print: bool) -> Log {
        Log {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: VecDeque::new(),
            print,
        }
    }

    pub fn line(&mut self, now: u64, text: &str) {
        self.mix(now);
        for byte in text.bytes() {
            self.mix(byte.into());
        }
        let line = format!("{:>8.3} {text}", now as f64 / 1000.0);
        if self.print {
            println!("{line}");
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// FNV-1a.
    pub fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x0100_0000_01b3);
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn tail(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}
