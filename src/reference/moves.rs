// SPDX-License-Identifier: MPL-2.0
//! The collectives that move elements and fold nothing.

use super::slices;
use crate::element::Element;
use crate::error::{Error, Result};

/// Every rank's output is all inputs, one after the other. Their lengths may differ.
///
/// # Errors
///
/// `InvalidArgument` if there are no inputs.
pub fn all_gather<T: Element>(inputs: &[impl AsRef<[T]>]) -> Result<Vec<Vec<T>>> {
    Ok(vec![slices(inputs)?.concat(); inputs.len()])
}

/// The root's output is all inputs, one after the other. Their lengths may differ. The others have no output.
///
/// ```
/// use annulus::reference;
///
/// assert_eq!(reference::gather(&[vec![1, 2], vec![3]], 1)?, [vec![], vec![1, 2, 3]]);
/// # Ok::<(), annulus::Error>(())
/// ```
///
/// # Errors
///
/// `InvalidArgument` if there are no inputs or there is no such root.
pub fn gather<T: Element>(inputs: &[impl AsRef<[T]>], root: usize) -> Result<Vec<Vec<T>>> {
    only_at(root, inputs.len(), slices(inputs)?.concat())
}

/// Every rank's output is the root's input. The other inputs are not looked at.
///
/// # Errors
///
/// `InvalidArgument` if there are no inputs or there is no such root.
pub fn broadcast<T: Element>(inputs: &[impl AsRef<[T]>], root: usize) -> Result<Vec<Vec<T>>> {
    let inputs = slices(inputs)?;
    match inputs.get(root) {
        Some(input) => Ok(vec![input.to_vec(); inputs.len()]),
        None => Err(no_root(root, inputs.len())),
    }
}

/// Rank r's output is part r, of `counts[r]` elements, of the root's input. The other inputs are not looked at.
///
/// ```
/// use annulus::reference;
///
/// assert_eq!(reference::scatter(&[vec![1, 2, 3], vec![]], 0, &[1, 2])?, [vec![1], vec![2, 3]]);
/// # Ok::<(), annulus::Error>(())
/// ```
///
/// # Errors
///
/// `InvalidArgument` if there are no inputs or there is no such root, if there is not one count a rank, or if they do
/// not add up to the length of the root's input.
pub fn scatter<T: Element>(inputs: &[impl AsRef<[T]>], root: usize, counts: &[usize]) -> Result<Vec<Vec<T>>> {
    let inputs = slices(inputs)?;
    let input = inputs.get(root).ok_or_else(|| no_root(root, inputs.len()))?;
    Ok(parts(root, input, inputs.len(), counts)?.into_iter().map(<[T]>::to_vec).collect())
}

/// Rank i's output is, in the order of the ranks r, the `counts[r][i]` elements that rank r has for it. An input is the
/// parts for all ranks, in their order.
///
/// ```
/// use annulus::reference;
///
/// let outputs = reference::all_to_all(&[[1, 2, 3], [4, 5, 6]], &[[1, 2], [2, 1]])?;
/// assert_eq!(outputs, [[1, 4, 5], [2, 3, 6]]);
/// # Ok::<(), annulus::Error>(())
/// ```
///
/// # Errors
///
/// `InvalidArgument` if there are no inputs, if there is not one count for each pair of ranks, or if a rank's do not add
/// up to the length of its input.
pub fn all_to_all<T: Element>(inputs: &[impl AsRef<[T]>], counts: &[impl AsRef<[usize]>]) -> Result<Vec<Vec<T>>> {
    let inputs = slices(inputs)?;
    let n = inputs.len();
    if counts.len() != n {
        return Err(Error::invalid(format!(
            "there are {} rows of counts for {n} ranks: give one a rank",
            counts.len()
        )));
    }
    let mut outputs = vec![Vec::new(); n];
    for (rank, (input, counts)) in inputs.iter().zip(counts).enumerate() {
        let parts = parts(rank, input, n, counts.as_ref())?;
        outputs.iter_mut().zip(parts).for_each(|(output, part)| output.extend_from_slice(part));
    }
    Ok(outputs)
}

/// An input as one part a rank.
fn parts<'a, T>(rank: usize, input: &'a [T], n: usize, counts: &[usize]) -> Result<Vec<&'a [T]>> {
    if counts.len() != n {
        return Err(Error::invalid(format!("there are {} counts for {n} ranks: give one a rank", counts.len())));
    }
    let total: u128 = counts.iter().map(|&count| count as u128).sum();
    if total != input.len() as u128 {
        let len = input.len();
        return Err(Error::invalid(format!("the counts add up to {total} elements; rank {rank}'s input has {len}")));
    }
    let mut rest = input;
    let part = |&count: &usize| {
        let (part, later) = rest.split_at(count);
        rest = later;
        part
    };
    Ok(counts.iter().map(part).collect())
}

/// Outputs of which the root has this one, and the others none.
pub(super) fn only_at<T: Element>(root: usize, n: usize, output: Vec<T>) -> Result<Vec<Vec<T>>> {
    let mut outputs = vec![Vec::new(); n];
    *outputs.get_mut(root).ok_or_else(|| no_root(root, n))? = output;
    Ok(outputs)
}

fn no_root(root: usize, n: usize) -> Error {
    Error::invalid(format!("the root is rank {root}, but there are {n} ranks: give one below {n}"))
}
