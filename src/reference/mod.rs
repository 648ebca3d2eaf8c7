// SPDX-License-Identifier: MPL-2.0
//! The CPU reference: what every collective yields, to the last bit.
//!
//! This file is the specification as a program. It is sequential, handles one element at a time, and shares nothing
//! with the rooms it judges: it has its own partition, its own arithmetic and its own conversions. Every function
//! takes the inputs of all ranks (`inputs[r]` is rank r's), and every collective returns the outputs of all ranks.
//!
//! The modules below are a kit for tests of one's own collectives: each rank makes the [`inputs`] of all ranks from a
//! seed, runs the collective on its own, and [`check`](check::check)s its output against this reference.
//!
//! ```
//! use annulus::reference::check::{Request, check};
//! use annulus::reference::inputs;
//! use annulus::{FoldOrder, ReduceOp};
//!
//! let (seed, call) = (7, 0);
//! let inputs = inputs::random::<f32>(seed, call, &[100; 4]); // four ranks, 100 elements each
//! let mine: Vec<f32> = (0..100).map(|e| inputs[0][e] + inputs[1][e] + inputs[2][e] + inputs[3][e]).collect();
//! check(&mine, &inputs, &Request::AllReduce { order: &FoldOrder::Rank, op: ReduceOp::Sum }, 2)?;
//! # Ok::<(), annulus::reference::check::Difference>(())
//! ```

pub mod bits;
pub mod bounds;
pub mod check;
pub mod inputs;
mod moves;
mod scans;
#[cfg(any(test, feature = "proptest"))]
pub mod strategies;

use half::{bf16, f16};
pub use moves::{all_gather, all_to_all, broadcast, gather, scatter};
pub use scans::{exclusive_scan, scan};

use crate::element::{Bracketing, DataType, Element, FoldOrder, ReduceOp};
use crate::error::{Error, Result};

/// The fold of all inputs: element e of chunk c by the bracketing that `order` has for chunk c.
///
/// The inputs have one length, which is dealt to as many chunks as there are ranks: contiguous, in order, as even as
/// can be, the longer ones first. Each element is widened to the accumulator type, folded from the first contribution
/// of its bracketing on, divided if `op` is `Avg`, and rounded once; a fold of a single contribution too.
///
/// ```
/// use annulus::{FoldOrder, ReduceOp, reference};
///
/// let inputs = [[1e8_f32], [-1e8], [1.0]];
/// assert_eq!(reference::fold(&FoldOrder::Rank, ReduceOp::Sum, &inputs)?, [1.0]); // (1e8 - 1e8) + 1
/// assert_eq!(reference::fold(&FoldOrder::Ring, ReduceOp::Sum, &inputs)?, [0.0]); // (-1e8 + 1) + 1e8
/// # Ok::<(), annulus::Error>(())
/// ```
///
/// # Errors
///
/// `InvalidArgument` if there are no inputs, if their lengths differ, or if the order does not fold each rank exactly
/// once.
pub fn fold<T: Element>(order: &FoldOrder, op: ReduceOp, inputs: &[impl AsRef<[T]>]) -> Result<Vec<T>> {
    let inputs = equally_long(inputs)?;
    fold_chunks(order, op, &inputs, &partition(inputs[0].len(), inputs.len()))
}

/// Every rank's output is the [`fold`] of all inputs.
///
/// # Errors
///
/// Those of [`fold`].
pub fn all_reduce<T: Element>(order: &FoldOrder, op: ReduceOp, inputs: &[impl AsRef<[T]>]) -> Result<Vec<Vec<T>>> {
    Ok(vec![fold(order, op, inputs)?; inputs.len()])
}

/// The root's output is the [`fold`] of all inputs. The others have none.
///
/// # Errors
///
/// Those of [`fold`], and `InvalidArgument` if there is no such root.
pub fn reduce<T: Element>(
    order: &FoldOrder,
    op: ReduceOp,
    inputs: &[impl AsRef<[T]>],
    root: usize,
) -> Result<Vec<Vec<T>>> {
    moves::only_at(root, inputs.len(), fold(order, op, inputs)?)
}

/// Rank r's output is part r, of `counts[r]` elements, of the fold of all inputs. The parts are also the chunks of the
/// fold order.
///
/// # Errors
///
/// Those of [`fold`], and `InvalidArgument` if there is not one count a rank or they do not add up to the inputs'
/// length.
pub fn reduce_scatter<T: Element>(
    order: &FoldOrder,
    op: ReduceOp,
    inputs: &[impl AsRef<[T]>],
    counts: &[usize],
) -> Result<Vec<Vec<T>>> {
    let inputs = equally_long(inputs)?;
    let (n, len) = (inputs.len(), inputs[0].len());
    if counts.len() != n {
        return Err(Error::invalid(format!("there are {} counts for {n} ranks: give one a rank", counts.len())));
    }
    let total: u128 = counts.iter().map(|&count| count as u128).sum();
    if total != len as u128 {
        return Err(Error::invalid(format!("the counts add up to {total} elements; each input has {len}")));
    }
    let folded = fold_chunks(order, op, &inputs, counts)?;
    let mut rest = folded.iter().copied();
    Ok(counts.iter().map(|&count| rest.by_ref().take(count).collect()).collect())
}

// Folding.

/// [`fold`] with chunks of these lengths.
fn fold_chunks<T: Element>(order: &FoldOrder, op: ReduceOp, inputs: &[&[T]], counts: &[usize]) -> Result<Vec<T>> {
    let fold_element: fn(&Bracketing, ReduceOp, &[T]) -> T = match T::DATA_TYPE {
        DataType::F64 => fold_element::<T, f64>,
        DataType::F32 => fold_element::<T, f32>,
        DataType::F16 => fold_element::<T, f16>,
        DataType::Bf16 => fold_element::<T, bf16>,
        DataType::I8 => fold_element::<T, i8>,
        DataType::U8 => fold_element::<T, u8>,
        DataType::I32 => fold_element::<T, i32>,
        DataType::U32 => fold_element::<T, u32>,
        DataType::I64 => fold_element::<T, i64>,
        DataType::U64 => fold_element::<T, u64>,
    };
    let mut output = Vec::with_capacity(inputs[0].len());
    for (chunk, count) in counts.iter().enumerate() {
        let bracketing = complete_bracketing(order, chunk, inputs.len())?;
        let elements = output.len()..output.len() + count;
        output.extend(elements.map(|element| {
            let contributions: Vec<T> = inputs.iter().map(|input| input[element]).collect();
            fold_element(&bracketing, op, &contributions)
        }));
    }
    Ok(output)
}

/// One element of the result. `N` is `T` under the name by which the compiler knows its arithmetic.
fn fold_element<T: Element, N: Number>(bracketing: &Bracketing, op: ReduceOp, contributions: &[T]) -> T {
    let widened: Vec<_> = contributions.iter().map(|&x| bytemuck::cast::<T, N>(x).widen()).collect();
    let folded = evaluate(bracketing, op, &widened).expect("a complete bracketing has a contribution");
    let result = if op == ReduceOp::Avg { folded.divide(contributions.len()) } else { folded };
    bytemuck::cast::<N, T>(N::round(result))
}

/// The folded contributions, children from left to right. `None` for a fold of nothing.
fn evaluate<A: Accumulator>(bracketing: &Bracketing, op: ReduceOp, contributions: &[A]) -> Option<A> {
    match bracketing {
        Bracketing::Leaf(rank) => Some(contributions[*rank]),
        Bracketing::Fold(children) => {
            let values = children.iter().filter_map(|child| evaluate(child, op, contributions));
            values.reduce(|left, right| A::combine(op, left, right))
        }
    }
}

/// The bracketing of this chunk, which has each rank exactly once.
fn complete_bracketing(order: &FoldOrder, chunk: usize, n: usize) -> Result<Bracketing> {
    if matches!(order, FoldOrder::Given(entries) if entries.is_empty()) {
        return Err(Error::invalid("the given fold order is empty: give at least one bracketing"));
    }
    let bracketing = order.bracketing(chunk, n);
    let mut ranks = bracketing.leaves();
    ranks.sort_unstable();
    if !ranks.iter().copied().eq(0..n) {
        return Err(Error::invalid(format!(
            "the fold order of chunk {chunk} folds ranks {:?}: each of the {n} ranks must occur exactly once",
            bracketing.leaves()
        )));
    }
    Ok(bracketing)
}

// Arithmetic.

/// What a fold carries from contribution to contribution.
trait Accumulator: Copy {
    fn combine(op: ReduceOp, left: Self, right: Self) -> Self;
    fn divide(self, n: usize) -> Self;
}

macro_rules! float_accumulators {
    ($($float:ty),*) => {$(
        impl Accumulator for $float {
            fn combine(op: ReduceOp, left: Self, right: Self) -> Self {
                match op {
                    ReduceOp::Sum | ReduceOp::Avg => left + right,
                    ReduceOp::Prod => left * right,
                    ReduceOp::Min | ReduceOp::Max if left.is_nan() || right.is_nan() => <$float>::NAN,
                    // The zeros compare equal; the sign decides between them.
                    ReduceOp::Min if left < right || left == right && left.is_sign_negative() => left,
                    ReduceOp::Max if left > right || left == right && left.is_sign_positive() => left,
                    ReduceOp::Min | ReduceOp::Max => right,
                }
            }

            fn divide(self, n: usize) -> Self {
                self / n as $float
            }
        }
    )*};
}

macro_rules! integer_accumulators {
    ($($integer:ty),*) => {$(
        impl Accumulator for $integer {
            fn combine(op: ReduceOp, left: Self, right: Self) -> Self {
                match op {
                    ReduceOp::Sum | ReduceOp::Avg => left.wrapping_add(right),
                    ReduceOp::Prod => left.wrapping_mul(right),
                    ReduceOp::Min => left.min(right),
                    ReduceOp::Max => left.max(right),
                }
            }

            fn divide(self, n: usize) -> Self {
                self / n as $integer
            }
        }
    )*};
}

float_accumulators!(f64, f32);
integer_accumulators!(i64, u64);

/// How an element becomes an accumulator, and the accumulator the result.
trait Number: Element {
    type Accumulator: Accumulator;
    fn widen(self) -> Self::Accumulator;
    fn round(result: Self::Accumulator) -> Self;
}

macro_rules! numbers {
    ($($number:ty, $accumulator:ty, $widen:expr, $round:expr;)*) => {$(
        impl Number for $number {
            type Accumulator = $accumulator;

            fn widen(self) -> $accumulator {
                $widen(self)
            }

            fn round(result: $accumulator) -> $number {
                $round(result)
            }
        }
    )*};
}

// NaN becomes the canonical one of the type. `half` rounds to nearest even and keeps subnormals; its `const` functions
// are software on every machine. Integers of every size are carried in 64 bits and cut off once at the end: modulo
// 2^bits that is the same as wrapping at each step, and for Avg it is the rule.
numbers! {
    f64, f64, f64::from, |a: f64| if a.is_nan() { f64::from_bits(0x7ff8_0000_0000_0000) } else { a };
    f32, f32, f32::from, |a: f32| if a.is_nan() { f32::from_bits(0x7fc0_0000) } else { a };
    f16, f32, f16::to_f32_const, |a: f32| if a.is_nan() { f16::from_bits(0x7e00) } else { f16::from_f32_const(a) };
    bf16, f32, bf16::to_f32_const, |a: f32| if a.is_nan() { bf16::from_bits(0x7fc0) } else { bf16::from_f32_const(a) };
    i8, i64, i64::from, |a| a as i8;
    i32, i64, i64::from, |a| a as i32;
    i64, i64, i64::from, |a| a;
    u8, u64, u64::from, |a| a as u8;
    u32, u64, u64::from, |a| a as u32;
    u64, u64, u64::from, |a| a;
}

// Parts and checks.

/// The lengths of `n` parts of `len` elements, as even as can be, the longer ones first.
fn partition(len: usize, n: usize) -> Vec<usize> {
    (0..n).map(|part| len / n + usize::from(part < len % n)).collect()
}

fn slices<T: Element>(inputs: &[impl AsRef<[T]>]) -> Result<Vec<&[T]>> {
    match inputs {
        [] => Err(Error::invalid("there are no inputs: give one for each rank, at least one")),
        _ => Ok(inputs.iter().map(AsRef::as_ref).collect()),
    }
}

fn equally_long<T: Element>(inputs: &[impl AsRef<[T]>]) -> Result<Vec<&[T]>> {
    let slices = slices(inputs)?;
    match slices.iter().position(|slice| slice.len() != slices[0].len()) {
        None => Ok(slices),
        Some(rank) => Err(Error::invalid(format!(
            "rank 0's input has {} elements and rank {rank}'s has {}: give all the same length",
            slices[0].len(),
            slices[rank].len()
        ))),
    }
}
