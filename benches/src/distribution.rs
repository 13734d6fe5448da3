//! Samples of one duration, and where they lie.

use std::time::Duration;

use serde::Serialize;

/// Durations in microseconds, all kept: percentiles are of the samples themselves, not of buckets.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<u64>);

/// Where samples lie, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Distribution {
    /// How many.
    pub count: usize,
    /// Half of them take no longer.
    pub p50_us: u64,
    /// 90 % take no longer.
    pub p90_us: u64,
    /// 99 % take no longer.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl Samples {
    /// Adds one.
    pub fn push(&mut self, took: Duration) {
        self.push_us(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds one, in microseconds.
    pub fn push_us(&mut self, us: u64) {
        self.0.push(us);
    }

    /// Where they lie; `None` without any.
    pub fn distribution(&self) -> Option<Distribution> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let max_us = *sorted.last()?;
        // Nearest rank: the smallest sample that so many of all do not exceed.
        let at = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
        Some(Distribution { count: sorted.len(), p50_us: at(50), p90_us: at(90), p99_us: at(99), max_us })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let distribution = |samples: &[u64]| Samples(samples.to_vec()).distribution();
        assert_eq!(distribution(&[]), None);
        for (samples, expected) in [
            (vec![7], [7, 7, 7, 7]),
            (vec![2, 1], [1, 2, 2, 2]),
            ((1..=100).rev().collect(), [50, 90, 99, 100]),
            ((1..=1000).collect(), [500, 900, 990, 1000]),
        ] {
            let found = distribution(&samples).expect("some");
            assert_eq!([found.p50_us, found.p90_us, found.p99_us, found.max_us], expected, "{samples:?}");
        }
    }
}
