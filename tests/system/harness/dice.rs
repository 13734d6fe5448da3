//! Numbers that follow from a seed, which is printed: what was drawn can be drawn again.

use std::time::{SystemTime, UNIX_EPOCH};

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
pub(crate) struct Dice {
    pub(crate) seed: u64,
    state: u64,
}

impl Dice {
    /// By `POINTSMAN_SEED`, or by one that nobody chose. Prints it.
    pub(crate) fn thrown() -> Self {
        let given = std::env::var("POINTSMAN_SEED").ok();
        let seed = given.map_or_else(now_ms, |seed| seed.parse().expect("POINTSMAN_SEED is a number"));
        println!("POINTSMAN_SEED={seed} draws the same again");
        Self { seed, state: seed }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.state)
    }

    /// From 0 to `most - 1`; the bias of the remainder is of no account here.
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }
}

/// Its output function: every bit of the answer depends on every bit of what is given.
pub(crate) fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("before the year 584 million")
}
