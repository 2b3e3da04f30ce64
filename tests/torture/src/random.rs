//! Random choices that a seed repeats. The timing of other threads and of the kernel is not repeated.

use std::time::Duration;

/// The generator SplitMix64: small, and good enough to choose moments.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Creates a generator for `name`. Each name of a seed gets its own sequence.
    #[must_use]
    pub fn new(seed: u64, name: &str) -> Self {
        Self(seed ^ hash(name.as_bytes()))
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `bound`. `bound` must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound.max(1) as u64) as usize
    }

    /// Returns true with a probability of 1 in `n`.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn millis(&mut self, least: u64, most: u64) -> Duration {
        let least = least * 1000;
        let micros = least + self.number() % (most * 1000 - least).max(1);
        Duration::from_micros(micros)
    }
}

/// The hash FNV-1a. No attacker chooses the checked text, so a simple hash is enough.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_a_name_differs() {
        let take = |seed, name| {
            let mut random = Random::new(seed, name);
            [random.number(), random.number(), random.number()]
        };
        assert_eq!(take(7, "a"), take(7, "a"));
        assert_ne!(take(7, "a"), take(7, "b"));
        assert_ne!(take(7, "a"), take(8, "a"));
    }

    #[test]
    fn durations_lie_between_their_bounds() {
        let mut random = Random::new(1, "");
        for _ in 0..1000 {
            let millis = random.millis(2, 5);
            assert!((2000..5000).contains(&millis.as_micros()), "{millis:?}");
        }
    }
}
