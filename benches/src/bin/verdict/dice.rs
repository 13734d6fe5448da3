//! Random numbers from a seed: splitmix64 (Steele, Lea, Flood, *Fast Splittable Pseudorandom Number Generators*, 2014), and
//! binomial draws.

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Self(seed);
        // Streams of neighbouring seeds would otherwise be each other's, a step apart.
        Self(dice.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Above 0 and below 1.
    fn fraction(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// How many of `tries` succeed, each with this chance: jumps from one success to the next.
    pub(crate) fn binomial(&mut self, tries: u64, chance: f64) -> u64 {
        if chance <= 0.0 || tries == 0 {
            return 0;
        }
        if chance == 0.5 {
            return self.coins(tries);
        }
        if chance > 0.5 {
            return tries - self.binomial(tries, 1.0 - chance);
        }
        let per_try = (-chance).ln_1p();
        let (mut at, mut successes) = (0.0, 0);
        loop {
            at += (self.fraction().ln() / per_try).floor() + 1.0;
            if at > tries as f64 {
                return successes;
            }
            successes += 1;
        }
    }

    fn coins(&mut self, mut tries: u64) -> u64 {
        let mut heads = 0;
        while tries > 0 {
            let some = tries.min(64);
            heads += u64::from((self.next() >> (64 - some)).count_ones());
            tries -= some;
        }
        heads
    }
}
