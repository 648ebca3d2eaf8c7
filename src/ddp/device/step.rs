// SPDX-License-Identifier: MPL-2.0
//! What a step enqueues, in pieces: each is of one stream, so that each can be captured.

use std::ops::Range;

use super::super::Fault;
use super::super::reducer::grouped;
use crate::communicator::DeviceCommunicator;
use crate::driver::Stream;
use crate::element::ReduceOp;
use crate::error::{Error, Result};
use crate::perceptron::{Layout, Number, Pass, Perceptron, Update};

/// A replica, as the pieces of a step see it.
pub(super) struct Parts<T: Number> {
    pub comm: DeviceCommunicator,
    pub model: Perceptron<T>,
    pub update: Update,
    /// The step that is being enqueued, on its way through the layers.
    pub pass: Option<Pass<T>>,
    /// In the order of the backward pass.
    pub buckets: Vec<Bucket>,
    pub fault: Option<Fault>,
}

/// Neighbouring layers whose gradients are reduced together.
pub(super) struct Bucket {
    layers: Range<usize>,
    elements: Range<usize>,
}

/// A part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// All that is to be computed before this bucket can be reduced, after the one before could be.
    Gradients(usize),
    /// The bucket's all-reduce; on the other stream.
    Average(usize),
    /// The optimizer's step.
    Update,
    /// Both, of one rank that reduces nothing: a graph by itself.
    Alone,
}

impl Piece {
    /// Its stream, of the one that computes and the one that exchanges.
    pub fn stream_of(self, [compute, exchange]: [&Stream; 2]) -> &Stream {
        if matches!(self, Piece::Average(_)) { exchange } else { compute }
    }
}

/// What decides what a step enqueues.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub rows: usize,
    pub denominator: f32,
    /// The gradients are to be added to those of the step before: see [`Fault::StaleGradient`].
    pub accumulate: bool,
}

impl<T: Number> Parts<T> {
    /// The pieces of a step, in the order in which they are enqueued. The average of one rank's gradients is there.
    pub fn pieces(&self) -> Vec<Piece> {
        let is_alone = self.comm.world_size() == 1;
        // That fault comes between the two.
        if is_alone && !matches!(self.fault, Some(Fault::Overflow { .. })) {
            return vec![Piece::Alone];
        }
        let is_skipped = |number: usize| is_alone || (number == 0 && self.fault == Some(Fault::SkippedBucket));
        let buckets = (0..self.buckets.len()).flat_map(|number| [Piece::Gradients(number), Piece::Average(number)]);
        let buckets = buckets.filter(|piece| !matches!(piece, Piece::Average(number) if is_skipped(*number)));
        buckets.chain([Piece::Update]).collect()
    }

    /// Whether no fault changes what the pieces are, and what one enqueues.
    pub fn is_as_captured(&self) -> bool {
        match self.fault {
            None => true,
            Some(Fault::Overflow { .. }) => self.comm.world_size() > 1,
            Some(_) => false,
        }
    }

    /// Whether this rank's gradients are to be infinite in the step after so many.
    pub fn overflows(&self, made: u64) -> bool {
        let rank = self.comm.rank();
        matches!(self.fault, Some(Fault::Overflow { rank: of, step }) if of == rank && step == made)
    }

    /// Makes them so: see [`Fault::Overflow`].
    pub fn overflow(&self, stream: &Stream) -> Result<()> {
        stream.write(&self.model.gradients().part(..1)?, &[T::rounded(f32::INFINITY)])
    }

    /// Enqueues a piece.
    pub fn enqueue(&mut self, piece: Piece, share: Share, stream: &Stream) -> Result<()> {
        match piece {
            Piece::Gradients(number) => self.enqueue_gradients(number, share, stream),
            Piece::Average(number) => self.enqueue_average(number, stream),
            Piece::Update => self.update.step(&self.model, stream),
            Piece::Alone => {
                (0..self.buckets.len()).try_for_each(|number| self.enqueue_gradients(number, share, stream))?;
                self.update.step(&self.model, stream)
            }
        }
    }

    fn enqueue_gradients(&mut self, number: usize, share: Share, stream: &Stream) -> Result<()> {
        let (model, Share { rows, denominator, accumulate }) = (&self.model, share);
        let mut pass = match (number, self.pass.take()) {
            (0, _) => {
                let mut pass = model.forward(rows, stream)?;
                model.loss(&mut pass, denominator, stream)?;
                pass
            }
            (_, Some(pass)) => pass,
            (_, None) => return Err(Error::invalid("the buckets of a step are enqueued in their order")),
        };
        for layer in self.buckets[number].layers.clone().rev() {
            if layer + 1 < model.layout().layers().len() {
                model.inward(&mut pass, stream)?;
            }
            model.leaves(&mut pass, accumulate, stream)?;
        }
        // Behind the last bucket nothing of it is needed.
        self.pass = Some(pass).filter(|_| number + 1 < self.buckets.len());
        Ok(())
    }

    fn enqueue_average(&self, number: usize, stream: &Stream) -> Result<()> {
        let op = match self.fault {
            Some(Fault::ReciprocalAverage) => {
                let reciprocal = 1.0 / self.comm.world_size() as f32;
                ReduceOp::PreMulSum(f64::from(reciprocal).into())
            }
            _ => ReduceOp::Avg,
        };
        let bucket = self.model.gradients().part(self.buckets[number].elements.clone())?;
        self.comm.all_reduce_in_place(&bucket, op, stream)
    }
}

/// Buckets of whole layers, the last layer's first, each closed once it has `enough` elements.
pub(super) fn buckets(layout: &Layout, enough: usize) -> Vec<Bucket> {
    let layers = layout.layers();
    let lengths: Vec<usize> = layers.iter().rev().map(|layer| layer.all().len()).collect();
    let groups = grouped(&lengths, enough).into_iter();
    groups
        .map(|group| {
            let range = layers.len() - group.end..layers.len() - group.start;
            Bucket { elements: layers[range.end - 1].all().start..layers[range.start].all().end, layers: range }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_ranges_of_whole_layers_from_the_last() {
        let layout = Layout::new(&[64, 64, 64, 10]).unwrap();
        // 16 + 640, 64 + 4096 and 64 + 4096 elements.
        let ranges = |enough: usize| {
            let buckets = buckets(&layout, enough).into_iter();
            buckets.map(|bucket| (bucket.layers, bucket.elements)).collect::<Vec<_>>()
        };
        assert_eq!(ranges(4096), [(1..3, 0..4816), (0..1, 4816..8976)]);
        assert_eq!(ranges(0), [(2..3, 0..656), (1..2, 656..4816), (0..1, 4816..8976)]);
    }
}
