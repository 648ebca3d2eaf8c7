// SPDX-License-Identifier: MPL-2.0
//! How far a fold may be from the exact result: a bound for every order of the fold, derived and not tuned.
//!
//! Let n be the number of contributions x_i, u the unit roundoff of the accumulator (2^-53 for f64, 2^-24 for f32, f16
//! and bf16), v that of the element type (2^-11 for f16, 2^-8 for bf16), and h, k the smallest subnormals of the two.
//! The standard model of rounded arithmetic, with underflow, is fl(x op y) = (x op y)(1 + d) + e with |d| <= u and
//! |e| <= h/2, where e = 0 for sums, which underflow only exactly (Higham, "Accuracy and Stability of Numerical
//! Algorithms", 2nd edition, chapter 2). With g(m) = m u / (1 - m u), m factors 1 + d make at most 1 + g(m)
//! (Lemma 3.1 there). Then, for every bracketing:
//!
//! - **Sum.** Each x_i passes through at most n - 1 additions, so the error is at most E = g(n-1) sum |x_i| (section
//!   4.2 there).
//! - **Avg.** One division more: E/n + u (sum |x_i| + E)/n + h/2, as n, below 2^24, is exact.
//! - **Prod.** Without underflow, g(n-1) prod |x_i|, as there are n - 1 multiplications. With it, each of them adds at
//!   most h/2, which later multiplications enlarge at most to h/2 (1 + g(n)) M, where M = prod max(1, |x_i|): together
//!   E = g(n-1) prod |x_i| + (n-1) h/2 (1 + g(n)) M.
//! - **PreMulSum.** With the factor f, each product is off by at most two roundings, the factor's own and that of the
//!   product, each of which may underflow: E = g(n+1) |f| sum |x_i| + h (1 + g(n)) (n + sum |x_i|).
//! - **Min, Max and bitwise operations** do not round: 0.
//! - **The final rounding**, of f16 and bf16, of an accumulator of magnitude at most A + E adds v (A + E) + k/2, where
//!   A is sum |x_i|, that by n, or prod |x_i|.
//! - **Integers** wrap, and are exact modulo 2^bits: 0. Their average is cut off by at most (n-1)/n.

use crate::element::{DataType, ReduceOp};

/// The largest distance |result - exact| that a fold of `values` by `op` in elements of `data_type` may have, in any
/// order.
///
/// `values` are the contributions to one element; each must be one that the type has. Infinite, that is no bound at
/// all, where a contribution is not finite, where the fold may overflow, where a 64-bit integer average may wrap, and
/// where the operation does not apply to the type.
/// Integers must be compared modulo 2^bits.
///
/// ```
/// use annulus::reference::bounds::error_bound;
/// use annulus::{DataType, ReduceOp};
///
/// let thirds = [1.0_f32 / 3.0; 3].map(f64::from);
/// let bound = error_bound(ReduceOp::Sum, DataType::F32, &thirds);
/// assert!(bound > 1.1e-7 && bound < 1.3e-7); // two additions: 2 x 2^-24 x 1
/// ```
pub fn error_bound(op: ReduceOp, data_type: DataType, values: &[f64]) -> f64 {
    if !values.iter().all(|x| x.is_finite()) || !op.applies_to(data_type) {
        return f64::INFINITY;
    }
    if matches!(op, ReduceOp::Min | ReduceOp::Max) || op.is_bitwise() {
        return 0.0;
    }
    let n = values.len().max(1) as f64;
    let sum: f64 = values.iter().map(|x| x.abs()).sum();
    let Some(element) = Precision::of(data_type) else {
        return match (op, data_type.accumulator(op)) {
            (ReduceOp::Avg, DataType::I64) if sum >= 2_f64.powi(63) => f64::INFINITY,
            (ReduceOp::Avg, DataType::U64) if sum >= 2_f64.powi(64) => f64::INFINITY,
            (ReduceOp::Avg, _) => (n - 1.0) / n,
            _ => 0.0,
        };
    };
    let accumulator = Precision::of(data_type.accumulator(op)).unwrap_or(element);
    let gamma = |m: f64| m * accumulator.roundoff / (1.0 - m * accumulator.roundoff);
    // The magnitude of the exact result, the largest of any value on the way to it, and the accumulator's error. Where
    // half of a smallest subnormal stands above, the whole stands here: f64 has no half of its own.
    let (magnitude, largest, error) = match op {
        ReduceOp::Prod => {
            let product: f64 = values.iter().map(|x| x.abs()).product();
            let largest: f64 = values.iter().map(|x| x.abs().max(1.0)).product();
            let underflow = (n - 1.0) * accumulator.smallest * (1.0 + gamma(n)) * largest;
            (product, largest, gamma(n - 1.0) * product + underflow)
        }
        ReduceOp::Avg => {
            let error = gamma(n - 1.0) * sum;
            (sum / n, sum, error / n + accumulator.roundoff * (sum + error) / n + accumulator.smallest)
        }
        ReduceOp::PreMulSum(factor) => {
            let factor = factor.as_f64().map_or(f64::NAN, f64::abs);
            let underflow = accumulator.smallest * (1.0 + gamma(n)) * (n + sum);
            // A factor that overflows does so even where all contributions are zero.
            (factor * sum, factor.max(factor * sum), gamma(n + 1.0) * factor * sum + underflow)
        }
        _ => (sum, sum, gamma(n - 1.0) * sum),
    };
    let rounding = match data_type == data_type.accumulator(op) {
        true => 0.0,
        false => element.roundoff * (magnitude + error) + element.smallest,
    };
    // Computing this bound takes fewer than 4n + 16 roundings of f64, each of which may have made it too small.
    let bound = (error + rounding) * (1.0 + (4.0 * n + 16.0) * f64::EPSILON);
    let overflows = largest * (1.0 + gamma(n)) >= accumulator.largest || magnitude + bound >= element.largest;
    match overflows || !bound.is_finite() {
        true => f64::INFINITY,
        false => bound,
    }
}

/// What a floating-point type can tell apart.
#[derive(Clone, Copy)]
struct Precision {
    /// Half the distance from 1 to the next larger number.
    roundoff: f64,
    /// The smallest positive number, a subnormal one.
    smallest: f64,
    /// The largest finite number.
    largest: f64,
}

impl Precision {
    fn of(data_type: DataType) -> Option<Self> {
        let (precision, smallest, largest) = match data_type {
            DataType::F64 => (53, f64::from_bits(1), f64::MAX),
            DataType::F32 => (24, f32::from_bits(1).into(), f32::MAX.into()),
            DataType::F16 => (11, half::f16::from_bits(1).to_f64_const(), half::f16::MAX.to_f64_const()),
            DataType::Bf16 => (8, half::bf16::from_bits(1).to_f64_const(), half::bf16::MAX.to_f64_const()),
            _ => return None,
        };
        Some(Precision { roundoff: 2_f64.powi(-precision), smallest, largest })
    }
}
