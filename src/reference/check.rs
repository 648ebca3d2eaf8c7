// SPDX-License-Identifier: MPL-2.0
//! Comparison with the reference, bit for bit, in words: which rank, which element, how many.

use super::{
    all_gather, all_reduce, all_to_all, bits, broadcast, exclusive_scan, gather, reduce, reduce_scatter, scan, scatter,
};
use crate::element::{DataType, Element, FoldOrder, ReduceOp};
use crate::error::{Error, Result};

/// A collective that was called, as far as its result depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request<'a> {
    /// [`all_reduce`].
    AllReduce {
        /// The order in which contributions are folded.
        order: &'a FoldOrder,
        /// The operation.
        op: ReduceOp,
    },
    /// [`reduce_scatter`].
    ReduceScatter {
        /// The order in which contributions are folded.
        order: &'a FoldOrder,
        /// The operation.
        op: ReduceOp,
        /// Elements that each rank receives.
        counts: &'a [usize],
    },
    /// [`all_gather`].
    AllGather,
    /// [`broadcast`].
    Broadcast {
        /// The rank whose input all receive.
        root: usize,
    },
    /// [`reduce`].
    Reduce {
        /// The order in which contributions are folded.
        order: &'a FoldOrder,
        /// The operation.
        op: ReduceOp,
        /// The rank that receives.
        root: usize,
    },
    /// [`scatter`].
    Scatter {
        /// The rank whose input is dealt out.
        root: usize,
        /// Elements that each rank receives.
        counts: &'a [usize],
    },
    /// [`gather`].
    Gather {
        /// The rank that receives.
        root: usize,
    },
    /// [`all_to_all`].
    AllToAll {
        /// Elements from each rank, for each rank.
        counts: &'a [Vec<usize>],
    },
    /// [`scan`].
    Scan {
        /// The operation.
        op: ReduceOp,
    },
    /// [`exclusive_scan`].
    ExclusiveScan {
        /// The operation.
        op: ReduceOp,
    },
}

impl Request<'_> {
    /// Every rank's output by the reference; empty for a rank that has none.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the inputs do not fit the request.
    pub fn outputs<T: Element>(&self, inputs: &[impl AsRef<[T]>]) -> Result<Vec<Vec<T>>> {
        match *self {
            Request::AllReduce { order, op } => all_reduce(order, op, inputs),
            Request::ReduceScatter { order, op, counts } => reduce_scatter(order, op, inputs, counts),
            Request::AllGather => all_gather(inputs),
            Request::Broadcast { root } => broadcast(inputs, root),
            Request::Reduce { order, op, root } => reduce(order, op, inputs, root),
            Request::Scatter { root, counts } => scatter(inputs, root, counts),
            Request::Gather { root } => gather(inputs, root),
            Request::AllToAll { counts } => all_to_all(inputs, counts),
            Request::Scan { op } => scan(op, inputs),
            Request::ExclusiveScan { op } => exclusive_scan(op, inputs),
        }
    }
}

/// How an output differs from the reference's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// There is nothing to compare with: the inputs do not fit the request, or there is no such rank.
    #[error("no reference: {0}")]
    NoReference(Error),
    /// The output is too long or too short.
    #[error("rank {rank}: the output has {got} elements, the reference's {expected}")]
    Length {
        /// Whose output.
        rank: usize,
        /// Elements in the reference's.
        expected: usize,
        /// Elements in the output.
        got: usize,
    },
    /// Elements differ; this is the first.
    #[error(
        "rank {rank}: element {offset} is {}, the reference's is {}; {differing} of {len} {data_type} elements differ",
        written(*data_type, *got),
        written(*data_type, *expected)
    )]
    Elements {
        /// Whose output.
        rank: usize,
        /// The first element that differs.
        offset: usize,
        /// The reference's bits of that element, in the low bytes.
        expected: u64,
        /// The output's bits of that element.
        got: u64,
        /// How many elements differ.
        differing: usize,
        /// Elements in the output.
        len: usize,
        /// The elements' type.
        data_type: DataType,
    },
}

/// Compares `got`, the output of rank `rank`, with the reference's for the inputs of all ranks, bit for bit: zeros of
/// different sign differ, and so do NaN with different payloads.
///
/// ```
/// use annulus::reference::check::{Request, check};
///
/// let inputs = [[1_i32, 2], [3, 4]];
/// check(&[1, 2, 3, 4], &inputs, &Request::AllGather, 0)?;
/// let difference = check(&[1, 2, 3, 5], &inputs, &Request::AllGather, 0).unwrap_err();
/// assert_eq!(
///     difference.to_string(),
///     "rank 0: element 3 is 0x00000005 (5), the reference's is 0x00000004 (4); 1 of 4 i32 elements differ"
/// );
/// # Ok::<(), annulus::reference::check::Difference>(())
/// ```
///
/// # Errors
///
/// The [`Difference`], if there is one.
pub fn check<T: Element>(
    got: &[T],
    inputs: &[impl AsRef<[T]>],
    request: &Request<'_>,
    rank: usize,
) -> Result<(), Difference> {
    let outputs = request.outputs(inputs).map_err(Difference::NoReference)?;
    match outputs.get(rank) {
        Some(expected) => compare(got, expected, rank),
        None => {
            let sentence = format!("there is no rank {rank} among {} ranks", outputs.len());
            Err(Difference::NoReference(Error::invalid(sentence)))
        }
    }
}

/// Compares `got`, the output of rank `rank`, with `expected`, bit for bit. For tests that check many outputs against
/// one evaluation of [`Request::outputs`].
///
/// # Errors
///
/// The [`Difference`], if there is one.
pub fn compare<T: Element>(got: &[T], expected: &[T], rank: usize) -> Result<(), Difference> {
    if got.len() != expected.len() {
        return Err(Difference::Length { rank, expected: expected.len(), got: got.len() });
    }
    let pairs = got.iter().zip(expected).map(|(&got, &expected)| (bits::of(got), bits::of(expected)));
    let mut differing = pairs.enumerate().filter(|(_, (got, expected))| got != expected);
    match differing.next() {
        None => Ok(()),
        Some((offset, (element, reference))) => Err(Difference::Elements {
            rank,
            offset,
            expected: reference,
            got: element,
            differing: 1 + differing.count(),
            len: got.len(),
            data_type: T::DATA_TYPE,
        }),
    }
}

/// Bits in hexadecimal, with the value they stand for.
fn written(data_type: DataType, bits: u64) -> String {
    let width = 2 + 2 * data_type.size();
    match data_type {
        DataType::I64 => format!("{bits:#0width$x} ({})", bits as i64),
        DataType::U64 => format!("{bits:#0width$x} ({bits})"),
        _ => format!("{bits:#0width$x} ({})", bits::to_f64(data_type, bits)),
    }
}
