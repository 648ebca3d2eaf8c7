// SPDX-License-Identifier: MPL-2.0
//! What a classifier gets right.

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// How many rows of `logits`, `[rows, classes]`, have their greatest value at the label. Of equal values the first
/// counts; a row with a NaN is never right.
///
/// # Errors
///
/// `InvalidArgument` if there is not one label a row.
pub fn correct(logits: &Tensor, labels: &[u32]) -> Result<usize> {
    match *logits.shape() {
        [rows, _] if rows == labels.len() => {}
        ref shape => {
            let labels = labels.len();
            return Err(Error::invalid(format!("{labels} labels do not belong to logits of shape {shape:?}")));
        }
    }
    let values = logits.values()?;
    let rows = values.chunks_exact(logits.shape()[1].max(1));
    Ok(rows.zip(labels).filter(|(row, label)| greatest(row) == Some(**label as usize)).count())
}

fn greatest(row: &[f32]) -> Option<usize> {
    let mut best = 0;
    for (class, value) in row.iter().enumerate() {
        if value.is_nan() {
            return None;
        }
        if *value > row[best] {
            best = class;
        }
    }
    Some(best)
}
