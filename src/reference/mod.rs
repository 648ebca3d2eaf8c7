// SPDX-License-Identifier: MPL-2.0
//! The CPU reference: what every collective yields, to the last bit.
//!
//! This file, with the rules on bits in `arithmetic.rs`, is the specification as a program. It is sequential, handles
//! one element at a time, and shares nothing with the rooms it judges: it has its own partition, its own arithmetic and
//! its own conversions. Every function takes the inputs of all ranks (`inputs[r]` is rank r's), and every collective
//! returns the outputs of all ranks.
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

mod arithmetic;
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

use arithmetic::{Accumulator, Number};

use crate::element::{Bracketing, DataType, Element, FoldOrder, ReduceOp};
use crate::error::{Error, Result};

/// The fold of all inputs: element e of chunk c by the bracketing that `order` has for chunk c.
///
/// The inputs have one length, which is dealt to as many chunks as there are ranks: contiguous, in order, as even as
/// can be, the longer ones first. Each element is widened to the accumulator type, multiplied if `op` is `PreMulSum`,
/// folded from the first contribution of its bracketing on, divided if `op` is `Avg`, and rounded once; a fold of a
/// single contribution too.
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
/// `InvalidArgument` if there are no inputs, if their lengths differ, if the order does not fold each rank exactly once,
/// or if the operation does not apply to the type.
pub fn fold<T: Element>(order: &FoldOrder, op: ReduceOp, inputs: &[impl AsRef<[T]>]) -> Result<Vec<T>> {
    let inputs = equally_long(inputs)?;
    fold_chunks(order, op, &inputs, &partition(inputs[0].len(), inputs.len()))
}

/// The same with a function of one's own, as [`Operator`](crate::Operator) takes it: `f(a, b)` folds `b` into `a`. It is
/// given one element at a time, and its results are carried as they are.
///
/// ```
/// use annulus::{FoldOrder, reference};
///
/// let append = |a: &mut [u64], b: &[u64]| a[0] = 10 * a[0] + b[0];
/// assert_eq!(reference::fold_with(&FoldOrder::Rank, &[[1], [2], [3]], append)?, [123]);
/// # Ok::<(), annulus::Error>(())
/// ```
///
/// # Errors
///
/// Those of [`fold`], of a function that applies to every type.
pub fn fold_with<T: Element>(
    order: &FoldOrder,
    inputs: &[impl AsRef<[T]>],
    f: impl Fn(&mut [T], &[T]),
) -> Result<Vec<T>> {
    let inputs = equally_long(inputs)?;
    let combine = |mut left: T, right: T| {
        f(std::slice::from_mut(&mut left), std::slice::from_ref(&right));
        left
    };
    let counts = partition(inputs[0].len(), inputs.len());
    each_element(order, &inputs, &counts, |bracketing, contributions| {
        evaluate(bracketing, contributions, &combine).expect("a complete bracketing has a contribution")
    })
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
    op.check(T::DATA_TYPE)?;
    let fold_element: fn(&Bracketing, ReduceOp, &[T]) -> T = match T::DATA_TYPE {
        DataType::F64 => fold_element::<T, f64>,
        DataType::F32 => fold_element::<T, f32>,
        DataType::F16 => fold_element::<T, f16>,
        DataType::Bf16 => fold_element::<T, bf16>,
        DataType::I8 => fold_element::<T, i8>,
        DataType::U8 => fold_element::<T, u8>,
        DataType::I16 => fold_element::<T, i16>,
        DataType::U16 => fold_element::<T, u16>,
        DataType::I32 => fold_element::<T, i32>,
        DataType::U32 => fold_element::<T, u32>,
        DataType::I64 => fold_element::<T, i64>,
        DataType::U64 => fold_element::<T, u64>,
    };
    each_element(order, inputs, counts, |bracketing, contributions| fold_element(bracketing, op, contributions))
}

/// Every element of the result: `fold` is given its bracketing and the ranks' contributions to it.
fn each_element<T: Element>(
    order: &FoldOrder,
    inputs: &[&[T]],
    counts: &[usize],
    fold: impl Fn(&Bracketing, &[T]) -> T,
) -> Result<Vec<T>> {
    let mut output = Vec::with_capacity(inputs[0].len());
    let mut contributions = Vec::with_capacity(inputs.len());
    for (chunk, count) in counts.iter().enumerate() {
        let bracketing = complete_bracketing(order, chunk, inputs.len())?;
        for element in output.len()..output.len() + count {
            contributions.clear();
            contributions.extend(inputs.iter().map(|input| input[element]));
            output.push(fold(&bracketing, &contributions));
        }
    }
    Ok(output)
}

/// One element of the result. `N` is `T` under the name by which the compiler knows its arithmetic.
fn fold_element<T: Element, N: Number>(order: &Bracketing, op: ReduceOp, contributions: &[T]) -> T {
    let widened = contributions.iter().map(|&contribution| bytemuck::cast::<T, N>(contribution).widen());
    let widened: Vec<_> = match op {
        ReduceOp::PreMulSum(factor) => widened.map(|contribution| contribution.multiply(factor)).collect(),
        _ => widened.collect(),
    };
    let folded = evaluate(order, &widened, &|left, right| Accumulator::combine(op, left, right));
    let folded = folded.expect("a complete bracketing has a contribution");
    let result = if op == ReduceOp::Avg { folded.divide(contributions.len()) } else { folded };
    bytemuck::cast::<N, T>(N::round(result))
}

/// The folded contributions, children from left to right. `None` for a fold of nothing.
fn evaluate<A: Copy>(bracketing: &Bracketing, contributions: &[A], combine: &impl Fn(A, A) -> A) -> Option<A> {
    match bracketing {
        Bracketing::Leaf(rank) => Some(contributions[*rank]),
        Bracketing::Fold(children) => {
            children.iter().filter_map(|child| evaluate(child, contributions, combine)).reduce(combine)
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
