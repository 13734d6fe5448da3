//! Latency histogram with fixed buckets: what proxies count and controllers compare.

/// Buckets within one power of two: a bucket is at most 1/8 wide, so a percentile is off by at most 12.5 %.
const SUB_BUCKETS: u32 = 8;

/// Counts of latencies in microseconds over log-linear buckets.
///
/// Values up to 7 µs have a bucket each; above, each power of two is cut into 8. Values from 2^36 µs (19 hours) share
/// the last bucket. Source of the form: Gil Tene, HdrHistogram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: Box<[u64; Histogram::BUCKETS]>,
    sum_us: u64,
}

impl Histogram {
    /// Number of buckets.
    pub const BUCKETS: usize = (SUB_BUCKETS as usize) * 35;

    /// The bucket of a value.
    pub const fn bucket(us: u64) -> usize {
        if us < SUB_BUCKETS as u64 {
            return us as usize;
        }
        let power = 63 - us.leading_zeros(); // 3 or more
        let sub = (us >> (power - 3)) as u32 & (SUB_BUCKETS - 1);
        let bucket = ((power - 2) * SUB_BUCKETS + sub) as usize;
        if bucket < Self::BUCKETS { bucket } else { Self::BUCKETS - 1 }
    }

    /// Smallest value that lies above the bucket, in microseconds: its exclusive upper bound.
    pub const fn upper_bound_us(bucket: usize) -> u64 {
        let (row, sub) = (bucket as u64 / SUB_BUCKETS as u64, bucket as u64 % SUB_BUCKETS as u64);
        if row == 0 { sub + 1 } else { (SUB_BUCKETS as u64 + sub + 1) << (row - 1) }
    }

    /// Counts one value.
    pub fn record(&mut self, us: u64) {
        self.add(Self::bucket(us), 1);
        self.sum_us = self.sum_us.wrapping_add(us);
    }

    /// Adds to a bucket; a bucket that does not exist counts as the last.
    pub fn add(&mut self, bucket: usize, count: u64) {
        let place = &mut self.counts[bucket.min(Self::BUCKETS - 1)];
        *place = place.wrapping_add(count);
    }

    /// Adds to the sum of all values.
    pub fn add_sum_us(&mut self, us: u64) {
        self.sum_us = self.sum_us.wrapping_add(us);
    }

    /// Adds all of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (place, count) in self.counts.iter_mut().zip(other.counts.iter()) {
            *place = place.wrapping_add(*count);
        }
        self.add_sum_us(other.sum_us);
    }

    /// What was counted since `earlier`, a state of the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.clone();
        for (place, count) in difference.counts.iter_mut().zip(earlier.counts.iter()) {
            *place = place.saturating_sub(*count);
        }
        difference.sum_us = difference.sum_us.saturating_sub(earlier.sum_us);
        difference
    }

    /// Count per bucket.
    pub fn counts(&self) -> &[u64; Self::BUCKETS] {
        &self.counts
    }

    /// Sum of all values in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |total, count| total.saturating_add(*count))
    }

    /// The value below which `share_ppm` millionths of the counted values lie, in microseconds; `None` when empty.
    ///
    /// Rounded up to the end of its bucket.
    pub fn quantile_us(&self, share_ppm: u64) -> Option<u64> {
        let total = self.total();
        // Counts come from other machines: any number is possible.
        let rank = (u128::from(total) * u128::from(share_ppm)).div_ceil(1_000_000).max(1);
        let mut seen = 0;
        self.counts.iter().enumerate().find_map(|(bucket, count)| {
            seen += u128::from(*count);
            (total > 0 && seen >= rank).then(|| Self::upper_bound_us(bucket) - 1)
        })
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: Box::new([0; Self::BUCKETS]), sum_us: 0 }
    }
}

impl From<&Histogram> for crate::fleet::Histogram {
    fn from(histogram: &Histogram) -> Self {
        let filled = histogram.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        let (bucket, count) = filled.map(|(bucket, count)| (bucket as u32, *count)).unzip();
        Self { bucket, count, sum_us: histogram.sum_us }
    }
}

impl From<&crate::fleet::Histogram> for Histogram {
    fn from(message: &crate::fleet::Histogram) -> Self {
        let mut histogram = Self::default();
        for (bucket, count) in message.bucket.iter().zip(&message.count) {
            histogram.add(*bucket as usize, *count);
        }
        histogram.sum_us = message.sum_us;
        histogram
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_are_contiguous() {
        let mut expected = 0;
        for us in 0..200_000 {
            let bucket = Histogram::bucket(us);
            assert!(bucket == expected || bucket == expected + 1, "{us}");
            expected = bucket;
            assert!(us < Histogram::upper_bound_us(bucket), "{us}");
        }
        assert_eq!(Histogram::bucket(u64::MAX), Histogram::BUCKETS - 1);
    }

    #[test]
    fn counts_of_any_size_are_taken() {
        let mut histogram = Histogram::default();
        histogram.add(3, u64::MAX);
        histogram.add(7, u64::MAX);
        assert_eq!(histogram.total(), u64::MAX);
        assert!(histogram.quantile_us(990_000).is_some());
    }

    #[test]
    fn an_empty_histogram_has_no_quantile() {
        assert_eq!(Histogram::default().quantile_us(500_000), None);
    }

    proptest! {
        #[test]
        fn quantiles_are_within_an_eighth(mut values in proptest::collection::vec(0u64..1 << 34, 1..200), ppm in 1u64..=1_000_000) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|us| histogram.record(*us));
            values.sort_unstable();
            let rank = (values.len() as u64 * ppm).div_ceil(1_000_000).max(1) as usize;
            let (exact, told) = (values[rank - 1], histogram.quantile_us(ppm).expect("not empty"));
            prop_assert!(told >= exact && told <= exact + exact / 8, "{told} for {exact}");
        }

        #[test]
        fn messages_round_trip(values in proptest::collection::vec(any::<u64>(), 0..50)) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|us| histogram.record(*us));
            prop_assert_eq!(Histogram::from(&crate::fleet::Histogram::from(&histogram)), histogram);
        }
    }
}
