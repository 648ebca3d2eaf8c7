// SPDX-License-Identifier: MPL-2.0
//! The fold on the CPU: n sources, in the order given, to one or several destinations, in one pass over memory.
//!
//! Slices of the same type fold through [`fold`] and [`fold_into`]. The executor of schedules folds through [`Fold`]:
//! pointers, because peers' memory is shared and a destination may be a source, and accumulators as well as elements,
//! because a partial result travels unrounded. The rules on bits are those of [`ReduceOp`].
#![allow(unsafe_code)]

mod arithmetic;
mod environment;
mod instructions;
mod kernel;
mod vectors;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ptr;

pub(crate) use environment::DefaultEnvironment;
pub use instructions::Instructions;
use kernel::Kernel;

use crate::element::{DataType, Element, ReduceOp};
use crate::error::{Error, Result};

/// Which values lie behind a pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Elements of the call's data type.
    Element,
    /// Values of the type in which the call accumulates, [`DataType::accumulator`]: multiplied, not divided, not rounded.
    Accumulator,
}

/// What a fold reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The first value. Any alignment.
    pub data: *const u8,
    /// What the values are.
    pub kind: Kind,
}

/// Where a fold stores its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// The first value. Any alignment.
    pub data: *mut u8,
    /// What the values are.
    pub kind: Kind,
}

/// How results are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stores {
    /// Through the caches: right for whatever is read again soon.
    Cached,
    /// Past the caches, where the machine can: right for results larger than the caches. The stores are ordered before
    /// the call returns, so that a release store afterwards publishes them.
    Streaming,
}

/// A fold of one type, operation and number of ranks, resolved once to the code that this machine runs fastest.
#[derive(Debug, Clone, Copy)]
pub struct Fold {
    kernel: Kernel,
    /// What the operation divides or multiplies by.
    operand: u64,
}

impl Fold {
    /// The fold of `data_type` by `op`. `ranks` is what [`ReduceOp::Avg`] divides by, and matters to it alone; 0 counts
    /// as 1.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the operation does not [apply](ReduceOp::applies_to) to the type.
    pub fn new(data_type: DataType, op: ReduceOp, ranks: usize) -> Result<Self> {
        Self::resolve(Instructions::best(), data_type, op, ranks)
    }

    /// The same fold by an instruction set of one's choice.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if this machine does not have it; [`Error::InvalidArgument`] as for [`Fold::new`].
    pub fn with(instructions: Instructions, data_type: DataType, op: ReduceOp, ranks: usize) -> Result<Self> {
        if !instructions.is_available() {
            return Err(Error::unsupported(format!("this machine has no {instructions} instructions")));
        }
        Self::resolve(instructions, data_type, op, ranks)
    }

    fn resolve(instructions: Instructions, data_type: DataType, op: ReduceOp, ranks: usize) -> Result<Self> {
        op.check(data_type)?;
        let kernel = kernel::select(instructions, data_type, op).ok_or_else(|| op.inapplicable(data_type))?;
        let operand = match op {
            ReduceOp::PreMulSum(factor) => match (factor.as_f64(), data_type.accumulator(op)) {
                (Some(factor), DataType::F32) => u64::from((factor as f32).to_bits()),
                _ => factor.bits(),
            },
            _ => ranks as u64,
        };
        Ok(Fold { kernel, operand })
    }

    /// Folds `len` values of each of `from`, in that order, and stores the result to each of `to`: to elements
    /// finished, that is divided if the operation is `Avg`, and rounded once; to accumulators neither divided nor
    /// rounded. `PreMulSum` multiplies the elements among the sources; accumulators it takes as multiplied. Any NaN is
    /// canonical. Without sources nothing is stored.
    ///
    /// # Safety
    /// Each of `from` is readable and each of `to` is writable for `len` values of its kind, and no one else writes the
    /// former nor touches the latter meanwhile. A destination may be exactly a source (the same pointer and kind);
    /// otherwise destinations overlap neither sources nor one another.
    pub unsafe fn run(&self, from: &[Source], to: &[Destination], len: usize, stores: Stores) {
        let _environment = DefaultEnvironment::enter();
        // SAFETY: the caller's promise; the machine has the instructions of a kernel that was selected.
        unsafe { (self.kernel)(from, to, len, stores, self.operand) }
    }
}

/// Copies `bytes` bytes to each of `to`, bit for bit, in one pass over the source (one for each 16 destinations).
///
/// # Safety
/// `from` is readable and each of `to` is writable for `bytes` bytes, and no one else writes the former nor touches the
/// latter meanwhile; they do not overlap.
pub unsafe fn copy(from: *const u8, to: &[*mut u8], bytes: usize, stores: Stores) {
    if let ([to], Stores::Cached) = (to, stores) {
        // SAFETY: the caller's promise.
        return unsafe { to.copy_from_nonoverlapping(from, bytes) };
    }
    // More destinations than this take another pass.
    const TOGETHER: usize = 16;
    let kernel = kernel::copying();
    let source = Source { data: from, kind: Kind::Element };
    let mut destinations = [Destination { data: ptr::null_mut(), kind: Kind::Element }; TOGETHER];
    for to in to.chunks(TOGETHER) {
        for (destination, &to) in destinations.iter_mut().zip(to) {
            destination.data = to;
        }
        // SAFETY: the caller's promise; the machine has the instructions of `best`.
        unsafe { kernel(&[source], &destinations[..to.len()], bytes, stores, 1) }
    }
}

/// The name of the instruction set that folds use on this machine: `portable`, `AVX2` or `AVX-512`.
pub fn instructions() -> &'static str {
    Instructions::best().name()
}

/// Folds the sources, in their order, into `destination`. [`ReduceOp::Avg`] divides by the number of sources.
///
/// # Errors
/// [`Error::InvalidArgument`] if there is no source, a length differs, or the operation does not apply to the type.
pub fn fold<T: Element>(op: ReduceOp, sources: &[&[T]], destination: &mut [T]) -> Result<()> {
    fold_into(op, sources, &mut [destination])
}

/// Folds the sources, in their order, into each of the destinations. [`ReduceOp::Avg`] divides by the number of
/// sources.
///
/// # Errors
/// [`Error::InvalidArgument`] if there is no source or no destination, a length differs, or the operation does not apply
/// to the type.
pub fn fold_into<T: Element>(op: ReduceOp, sources: &[&[T]], destinations: &mut [&mut [T]]) -> Result<()> {
    let Some(first) = sources.first() else {
        return Err(Error::invalid("fold: there are no sources; a fold needs at least one"));
    };
    if destinations.is_empty() {
        return Err(Error::invalid("fold: there are no destinations; a fold needs at least one"));
    }
    let len = first.len();
    if let Some((i, source)) = sources.iter().enumerate().find(|(_, source)| source.len() != len) {
        let sentence =
            format!("fold: source {i} has {} elements and source 0 has {len}; all must be equal", source.len());
        return Err(Error::invalid(sentence));
    }
    if let Some((i, to)) = destinations.iter().enumerate().find(|(_, to)| to.len() != len) {
        let sentence =
            format!("fold: destination {i} has {} elements and the sources have {len}; all must be equal", to.len());
        return Err(Error::invalid(sentence));
    }
    let fold = Fold::new(T::DATA_TYPE, op, sources.len())?;
    let from: Vec<Source> =
        sources.iter().map(|source| Source { data: source.as_ptr().cast(), kind: Kind::Element }).collect();
    let to: Vec<Destination> =
        destinations.iter_mut().map(|to| Destination { data: to.as_mut_ptr().cast(), kind: Kind::Element }).collect();
    // SAFETY: each slice has `len` elements; the sources are borrowed and the destinations exclusively borrowed, so
    // that nothing overlaps a destination and nobody else touches it.
    unsafe { fold.run(&from, &to, len, Stores::Cached) };
    Ok(())
}
