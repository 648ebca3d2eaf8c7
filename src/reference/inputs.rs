// SPDX-License-Identifier: MPL-2.0
//! Inputs for tests: every rank makes those of all ranks, the same everywhere, from a seed and the number of the call.
//!
//! `lengths[r]` is the length of rank r's input. Data differ from rank to rank and from call to call, so that a wrong
//! rank's or a previous call's data are seen.
//!
//! | function | values | what it is for |
//! |---|---|---|
//! | [`random`] | many binades, all integers | everyday bits |
//! | [`cancelling`] | two large numbers that cancel, small ones | bits: the order of a sum shows in every float type |
//! | [`exact`] | small integers, powers of two | algorithms of any order, even ones that round at each step |
//! | [`special`] | zeros, subnormals, extremes, infinities, NaN | the rules for what is not an ordinary number |

use super::bits;
use crate::element::{DataType, Element, ReduceOp};

/// The SplitMix64 generator: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators" (2014), with the
/// output function of Stafford's variant 13.
///
/// ```
/// let mut generator = annulus::reference::inputs::SplitMix64::new(0);
/// assert_eq!(generator.bits(), 0xe220_a839_7b1d_cdaf);
/// ```
#[derive(Debug, Clone)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// The generator that starts from this state.
    pub fn new(state: u64) -> Self {
        SplitMix64 { state }
    }

    /// A generator of its own for each sequence of words: the state is hashed with one word after the other.
    fn for_words(words: &[u64]) -> Self {
        words.iter().fold(SplitMix64::new(0), |mut hash, word| SplitMix64::new(hash.bits() ^ word))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An integer from `low` to `high`, both included; `low` is at most `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        // The high half of the product of a fraction and the number of choices. The bias, choices / 2^64, is harmless
        // in tests.
        let choices = u128::from(high.saturating_sub(low)) + 1;
        low + ((u128::from(self.bits()) * choices) >> 64) as u64
    }
}

/// Ordinary numbers: integers from their whole range; floats of either sign with random significands and magnitudes
/// from 2^-8 to 2^8.
///
/// So few binades that products over some ranks stay finite. Sums of f32 and f64 round at almost every step; those of
/// f16 and bf16 in f32 do too, but the one rounding at their end hides it: see [`cancelling`].
///
/// ```
/// use annulus::reference::inputs::random;
///
/// let (seed, call) = (1, 0);
/// let inputs = random::<f32>(seed, call, &[3, 3]);
/// assert_ne!(inputs[0], inputs[1]);
/// assert_eq!(inputs, random::<f32>(seed, call, &[3, 3]));
/// ```
pub fn random<T: Element>(seed: u64, call: u64, lengths: &[usize]) -> Vec<Vec<T>> {
    each_rank(seed, call, lengths, |own, _, _| match Float::of(T::DATA_TYPE) {
        Some(float) => float.ordinary(own),
        None => own.bits(),
    })
}

/// Inputs whose sum and average show the order of the fold: at each element two ranks hold large numbers that cancel,
/// and the others numbers near the last place of the large ones in the accumulator type, which are lost, rounded or
/// kept according to when they are added. For integers, and where fewer than three ranks leave no order to show,
/// [`random`].
///
/// ```
/// use annulus::{FoldOrder, ReduceOp, bf16, reference};
///
/// let inputs = reference::inputs::cancelling::<bf16>(1, 0, &[100; 4]);
/// let [by_rank, by_ring] = [FoldOrder::Rank, FoldOrder::Ring].map(|o| reference::fold(&o, ReduceOp::Sum, &inputs));
/// assert_ne!(by_rank, by_ring);
/// ```
pub fn cancelling<T: Element>(seed: u64, call: u64, lengths: &[usize]) -> Vec<Vec<T>> {
    const LARGE: u64 = 15; // the largest exponent of f16
    let n = lengths.len() as u64;
    let Some(float) = Float::of(T::DATA_TYPE).filter(|_| n >= 3) else {
        return random(seed, call, lengths);
    };
    let bias = u64::from(float.bias());
    let accumulator_precision = if T::DATA_TYPE == DataType::F64 { 53 } else { 24 };
    each_rank(seed, call, lengths, |own, rank, element| {
        let mut all = common(seed, call, element);
        let (positive, apart, significand) = (all.between(0, n - 1), all.between(1, n - 1), all.bits());
        match rank {
            _ if rank == positive => float.assemble(false, bias + LARGE, significand),
            _ if rank == (positive + apart) % n => float.assemble(true, bias + LARGE, significand),
            // From an eighth of the last place to four times it.
            _ => {
                let exponent = bias + LARGE - accumulator_precision - 2 + own.between(0, 4);
                float.assemble(own.bits() & 1 == 1, exponent, own.bits())
            }
        }
    })
}

/// Inputs for `op` on which every fold order gives the same bits, those of the exact result.
///
/// - `Sum`: integers of magnitude at most m = max(1, (2^p - 1) / n), where n is the number of ranks and p the bits of
///   the significand, or of an integer type's magnitude. Every partial sum is an integer of at most 2^p.
/// - `Avg`: b + d on one rank of a pair and b - d on the other, b alone where the number of ranks is odd, with b + d at
///   most m as above: the average is b.
/// - `Prod`: floats are powers of two with exponents of at most (largest exponent) / n; integers are odd, so that no
///   factor wipes out the others, and wrap, which is exact modulo 2^bits.
/// - `PreMulSum`: of floats, zeros on all ranks but one, so that only the product rounds; integers as for `Sum`.
/// - `Min`, `Max` and bitwise operations never round: [`random`], but for `BitAnd` and `BitOr`, bits that few ranks
///   clear or set, so that the result has both.
///
/// Every partial result of `Sum`, `Avg` and float `Prod` is exact in the element type itself, so this also holds for
/// implementations that round at each step. With 2^p ranks or more (128 of i8, 256 of bf16) partial sums may leave
/// that range: integers then wrap, and bf16 and f16 stay the same in every order because f32 holds the sums.
///
/// ```
/// use annulus::{FoldOrder, ReduceOp, bf16, reference};
///
/// let inputs = reference::inputs::exact::<bf16>(ReduceOp::Avg, 1, 0, &[1000; 5]);
/// let [by_rank, by_ring] = [FoldOrder::Rank, FoldOrder::Ring].map(|o| reference::fold(&o, ReduceOp::Avg, &inputs));
/// assert_eq!(by_rank, by_ring);
/// ```
pub fn exact<T: Element>(op: ReduceOp, seed: u64, call: u64, lengths: &[usize]) -> Vec<Vec<T>> {
    let n = lengths.len() as u64;
    let format = Float::of(T::DATA_TYPE);
    let signed = T::DATA_TYPE.is_signed();
    let precision = match format {
        Some(float) => float.significand + 1,
        None => 8 * T::DATA_TYPE.size() as u32 - u32::from(signed),
    };
    let integer = |magnitude: u64, negative: bool| match format {
        Some(float) => float.integer(magnitude, negative && magnitude != 0),
        None if negative && signed => magnitude.wrapping_neg(),
        None => magnitude,
    };
    let largest = ((u64::MAX >> (64 - precision)) / n.max(1)).max(1);
    match (op, format) {
        (ReduceOp::PreMulSum(_), Some(float)) => each_rank(seed, call, lengths, |own, rank, element| {
            match common(seed, call, element).between(0, n - 1) == rank {
                true => float.ordinary(own),
                false => float.assemble(own.bits() & 1 == 1, 0, 0),
            }
        }),
        (ReduceOp::Sum | ReduceOp::PreMulSum(_), _) => each_rank(seed, call, lengths, |own, _, _| {
            let magnitude = own.between(0, largest);
            integer(magnitude, own.bits() & 1 == 1)
        }),
        (ReduceOp::Avg, _) => each_rank(seed, call, lengths, |_, rank, element| {
            let difference_most = largest / 3;
            let mut all = common(seed, call, element);
            let (base, negative) = (all.between(difference_most, largest - difference_most), all.bits() & 1 == 1);
            // The same on both ranks of a pair.
            let difference = SplitMix64::for_words(&[all.bits(), rank / 2]).between(0, difference_most);
            match rank {
                _ if rank == n - 1 && n % 2 == 1 => integer(base, negative),
                _ if rank % 2 == 0 => integer(base + difference, negative),
                _ => integer(base - difference, negative),
            }
        }),
        (ReduceOp::Prod, _) => each_rank(seed, call, lengths, |own, _, _| match format {
            Some(float) => {
                let most = u64::from(float.bias() - 1) / n.max(1);
                let exponent = u64::from(float.bias()) - most + own.between(0, 2 * most);
                float.assemble(own.bits() & 1 == 1, exponent, 0)
            }
            None => own.bits() | 1,
        }),
        (ReduceOp::BitAnd | ReduceOp::BitOr, _) => each_rank(seed, call, lengths, |own, _, _| {
            let rare = (0..=n.max(1).ilog2()).fold(u64::MAX, |bits, _| bits & own.bits());
            if op == ReduceOp::BitAnd { !rare } else { rare }
        }),
        (ReduceOp::Min | ReduceOp::Max | ReduceOp::BitXor, _) => random(seed, call, lengths),
    }
}

/// What is not an ordinary number, mixed. Integers: the extremes, 0, 1 and -1 among ordinary ones. Floats: each element
/// draws, for all ranks together, one of these, and then a value for each rank:
///
/// - zeros of either sign;
/// - zeros and subnormals;
/// - the largest finite numbers, of either sign, where the order decides whether a sum overflows;
/// - now and then an infinity among ordinary numbers;
/// - now and then a NaN, quiet or signalling, of either sign, with or without payload, among all of these.
pub fn special<T: Element>(seed: u64, call: u64, lengths: &[usize]) -> Vec<Vec<T>> {
    let Some(float) = Float::of(T::DATA_TYPE) else {
        let sign = 1_u64 << (8 * T::DATA_TYPE.size() - 1);
        return each_rank(seed, call, lengths, |own, _, _| match own.between(0, 5) {
            0 => sign,
            1 => sign - 1,
            2 => 0,
            3 => 1,
            4 => u64::MAX,
            _ => own.bits(),
        });
    };
    each_rank(seed, call, lengths, |own, _, element| {
        let negative = own.bits() & 1 == 1;
        match common(seed, call, element).between(0, 4) {
            0 => float.assemble(negative, 0, 0),
            1 => match own.between(0, 3) {
                0 => float.assemble(negative, 0, 0),
                _ => float.assemble(negative, 0, own.bits()),
            },
            2 => float.assemble(negative, float.exponent_mask() - 1, u64::MAX),
            3 => match own.between(0, 7) {
                0 => float.assemble(negative, float.exponent_mask(), 0),
                _ => float.ordinary(own),
            },
            _ => match own.between(0, 15) {
                0 => float.assemble(negative, float.exponent_mask(), 1 << (float.significand - 1)),
                1 => float.assemble(negative, float.exponent_mask(), own.bits() | 1 << (float.significand - 1)),
                2 => float.assemble(negative, float.exponent_mask(), 1),
                3 => float.assemble(negative, float.exponent_mask(), 0),
                4 => float.assemble(negative, 0, own.bits()),
                _ => float.ordinary(own),
            },
        }
    })
}

/// Every rank's input, element by element: `bits_of(own, rank, element)` draws from `own`, the rank's generator.
fn each_rank<T: Element>(
    seed: u64,
    call: u64,
    lengths: &[usize],
    bits_of: impl Fn(&mut SplitMix64, u64, u64) -> u64,
) -> Vec<Vec<T>> {
    let input = |(rank, &len): (u64, &usize)| {
        let mut own = SplitMix64::for_words(&[seed, call, rank]);
        (0..len as u64).map(|element| bits::element(bits_of(&mut own, rank, element))).collect()
    };
    (0..).zip(lengths).map(input).collect()
}

/// The generator of what all ranks have in common at an element.
fn common(seed: u64, call: u64, element: u64) -> SplitMix64 {
    SplitMix64::for_words(&[seed, call, u64::MAX, element])
}

/// How a floating-point type lays out its bits: sign, exponent, significand without the leading one.
#[derive(Clone, Copy)]
struct Float {
    exponent: u32,
    significand: u32,
}

impl Float {
    fn of(data_type: DataType) -> Option<Self> {
        let (exponent, significand) = match data_type {
            DataType::F64 => (11, 52),
            DataType::F32 => (8, 23),
            DataType::F16 => (5, 10),
            DataType::Bf16 => (8, 7),
            _ => return None,
        };
        Some(Float { exponent, significand })
    }

    /// The exponent field of infinities and NaN.
    fn exponent_mask(self) -> u64 {
        (1 << self.exponent) - 1
    }

    /// The exponent field of 1.
    fn bias(self) -> u32 {
        (1 << (self.exponent - 1)) - 1
    }

    /// Bits of the significand beyond its size are ignored.
    fn assemble(self, negative: bool, exponent: u64, significand: u64) -> u64 {
        let significand = significand & ((1 << self.significand) - 1);
        u64::from(negative) << (self.exponent + self.significand) | exponent << self.significand | significand
    }

    /// Either sign, any significand, a magnitude from 2^-8 to 2^8.
    fn ordinary(self, generator: &mut SplitMix64) -> u64 {
        let exponent = u64::from(self.bias()) - 8 + generator.between(0, 15);
        self.assemble(generator.bits() & 1 == 1, exponent, generator.bits())
    }

    /// `magnitude`, which has at most as many bits as the significand and its leading one.
    fn integer(self, magnitude: u64, negative: bool) -> u64 {
        match magnitude.checked_ilog2() {
            None => self.assemble(negative, 0, 0),
            Some(log) => {
                let exponent = u64::from(self.bias() + log);
                self.assemble(negative, exponent, magnitude << (self.significand - log))
            }
        }
    }
}
