// SPDX-License-Identifier: MPL-2.0
//! Captured steps: a graph for each piece of a step, since a graph is of one stream.
//!
//! Arguments are captured with the kernels, so a step is captured for each number of rows and denominator that occurs:
//! that of full batches, and that of the last of an epoch. What a step must remember is in device memory, so a replayed
//! step goes on where the last one was.

use std::collections::HashMap;
use std::sync::Arc;

use super::step::{Parts, Piece, Share};
use crate::driver::{Graph, Stream};
use crate::error::Result;
use crate::perceptron::Number;

/// Steps that are kept at the most; any other is enqueued each time.
const KEPT: usize = 4;

/// By rows and the denominator's bits, a graph for each piece.
#[derive(Default)]
pub(super) struct Graphs {
    captured: HashMap<(usize, u32), Arc<[Graph]>>,
}

impl Graphs {
    /// The graphs of a step's pieces, captured when first asked for. None if there is no room for more.
    pub fn of<T: Number>(
        &mut self,
        parts: &mut Parts<T>,
        share: Share,
        stream_of: impl Fn(Piece) -> Stream,
    ) -> Result<Option<Arc<[Graph]>>> {
        let key = (share.rows, share.denominator.to_bits());
        if !self.captured.contains_key(&key) {
            if self.captured.len() == KEPT {
                return Ok(None);
            }
            let pieces = parts.pieces().into_iter();
            let graphs = pieces.map(|piece| stream_of(piece).capture(|stream| parts.enqueue(piece, share, stream)));
            self.captured.insert(key, graphs.collect::<Result<_>>()?);
        }
        Ok(self.captured.get(&key).cloned())
    }

    /// How many steps were captured.
    pub fn len(&self) -> usize {
        self.captured.len()
    }
}
