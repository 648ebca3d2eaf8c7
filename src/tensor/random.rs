// SPDX-License-Identifier: MPL-2.0
//! The generator behind everything random in training: first parameters, splits of data sets, orders of epochs.
//!
//! SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): a counter and a mixing
//! function. The same key gives the same numbers on every machine.

/// A sequence of pseudorandom numbers that its key determines.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The sequence of this key: a seed and what tells sequences of one seed apart. The rooms use `[seed, 0]` for first
    /// parameters, `[seed, 1]` for splits and `[seed, 2, epoch]` for the order of an epoch.
    pub fn new(key: &[u64]) -> Self {
        let state = key.iter().fold(key.len() as u64, |state, word| Random { state: state ^ word }.next());
        Random { state }
    }

    /// The next 64 bits.
    #[allow(clippy::should_implement_trait, reason = "the sequence never ends, so it is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = self.state;
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from `low` up to, but not including, `high` (unless rounding reaches it), in 2^24 even steps.
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.next() >> 40) as f32 / (1u32 << 24) as f32;
        low + (high - low) * unit
    }

    /// A number below `bound`; 0 if there is none. Its bias is below bound / 2^64.
    pub fn below(&mut self, bound: usize) -> usize {
        ((self.next() as u128 * bound as u128) >> 64) as usize
    }

    /// Puts the items in a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs of the published algorithm from state 1234567.
    #[test]
    fn is_split_mix() {
        let mut random = Random { state: 1234567 };
        let expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431];
        assert_eq!([random.next(), random.next(), random.next(), random.next()], expected);
    }

    #[test]
    fn keys_tell_sequences_apart() {
        let keys: [&[u64]; 6] = [&[0], &[1], &[0, 0], &[0, 1], &[1, 0], &[0, 1, 0]];
        let mut firsts: Vec<u64> = keys.iter().map(|key| Random::new(key).next()).collect();
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts.len(), keys.len());
    }

    #[test]
    fn ranges_hold() {
        let mut random = Random::new(&[3]);
        let mut seen = [0; 7];
        for _ in 0..7000 {
            seen[random.below(7)] += 1;
            assert!((-0.5..0.5).contains(&random.uniform(-0.5, 0.5)));
        }
        assert!(seen.iter().all(|&count| (850..1150).contains(&count)), "{seen:?}");
        let mut items: Vec<usize> = (0..100).collect();
        random.shuffle(&mut items);
        assert!(items.iter().enumerate().any(|(i, &item)| i != item));
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
