// SPDX-License-Identifier: MPL-2.0
//! The folds of prefixes: each in the order of the ranks, and rounded once.

use super::{equally_long, fold};
use crate::element::{Element, FoldOrder, ReduceOp};
use crate::error::{Error, Result};

/// Rank r's output is the fold of the inputs of ranks 0 to r.
///
/// ```
/// use annulus::{ReduceOp, reference};
///
/// assert_eq!(reference::scan(ReduceOp::Sum, &[[1], [2], [3]])?, [[1], [3], [6]]);
/// # Ok::<(), annulus::Error>(())
/// ```
///
/// # Errors
///
/// `InvalidArgument` if there are no inputs, if their lengths differ, or if `op` is `Avg`: prefixes have no one number
/// of contributions to divide by.
pub fn scan<T: Element>(op: ReduceOp, inputs: &[impl AsRef<[T]>]) -> Result<Vec<Vec<T>>> {
    let inputs = equally_long(inputs)?;
    if op == ReduceOp::Avg {
        return Err(Error::invalid("a scan has no average, since its folds have different numbers of contributions"));
    }
    (1..=inputs.len()).map(|ranks| fold(&FoldOrder::Rank, op, &inputs[..ranks])).collect()
}

/// Rank r's output is the fold of the inputs of ranks 0 to r - 1. Rank 0 has none.
///
/// ```
/// use annulus::{ReduceOp, reference};
///
/// assert_eq!(reference::exclusive_scan(ReduceOp::Sum, &[[1], [2], [3]])?, [vec![], vec![1], vec![3]]);
/// # Ok::<(), annulus::Error>(())
/// ```
///
/// # Errors
///
/// Those of [`scan`].
pub fn exclusive_scan<T: Element>(op: ReduceOp, inputs: &[impl AsRef<[T]>]) -> Result<Vec<Vec<T>>> {
    let mut outputs = scan(op, inputs)?;
    outputs.pop();
    outputs.insert(0, Vec::new());
    Ok(outputs)
}
