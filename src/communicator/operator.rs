// SPDX-License-Identifier: MPL-2.0
//! Operations of one's own: a function, what is declared of it, and the name by which ranks agree on it; and the calls
//! that fold with it.
//!
//! The function runs on private copies and in no access window, so that a failing call need not wait for it, and what it
//! panics with is caught: see `execute`.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::Communicator;
use super::calls::Call;
use super::descriptor::hash;
use crate::element::Element;
use crate::error::Result;

/// An operation of one's own on elements of type `T`: `f(a, b)` folds each element of `b` into the element of `a` at the
/// same place.
///
/// The function must be associative for a result to mean anything, and depend on its two arguments alone, the same on
/// all ranks. It is called with blocks of any length, on any thread of the rank; it must not call the communicator, and
/// keeps the rank from everything else while it runs.
///
/// Contributions are folded in rank order, starting from rank 0's, in the element type itself (in another order only if
/// an algorithm that has one is chosen by name): every rank gets the same bits, whatever the length and the memory. The
/// function runs on whatever thread moves the call on, in the default floating-point environment. If it panics, the
/// call fails with [`Error::Aborted`] on all ranks, and so does every later one.
///
/// [`Error::Aborted`]: crate::Error::Aborted
///
/// ```
/// use annulus::{Operator, run};
///
/// let farthest = Operator::ordered("farthest from zero, the first of several", |a: &mut [f32], b: &[f32]| {
///     for (a, b) in a.iter_mut().zip(b) {
///         if b.abs() > a.abs() {
///             *a = *b;
///         }
///     }
/// });
/// let found = run(3, |comm| {
///     let mut value = [[-2.0, 2.0, 1.0][comm.rank()]];
///     comm.all_reduce_in_place_with(&mut value, &farthest)?;
///     Ok(value[0])
/// })?;
/// assert_eq!(found, [-2.0; 3]);
/// # Ok::<(), annulus::Error>(())
/// ```
pub struct Operator<T> {
    signature: Signature,
    combine: Combine,
    elements: PhantomData<fn(T)>,
}

/// The function of an operator, on the bytes of elements that are aligned for any element type.
pub(crate) type Combine = Arc<dyn Fn(&mut [u8], &[u8]) + Send + Sync>;

impl<T: Element> Operator<T> {
    /// An operator whose arguments may change places: algorithms that fold in another order than the ranks', which are
    /// chosen by name only, take it too.
    ///
    /// `name` is what ranks compare, with the type and this declaration: ranks with different ones get a `Mismatch`.
    pub fn commutative(name: &str, f: impl Fn(&mut [T], &[T]) + Send + Sync + 'static) -> Self {
        Self::new(Signature::new(name, false), f)
    }

    /// An operator whose arguments may not change places. Algorithms that would have them do so refuse it.
    pub fn ordered(name: &str, f: impl Fn(&mut [T], &[T]) + Send + Sync + 'static) -> Self {
        Self::new(Signature::new(name, true), f)
    }

    fn new(signature: Signature, f: impl Fn(&mut [T], &[T]) + Send + Sync + 'static) -> Self {
        let combine = move |folded: &mut [u8], next: &[u8]| {
            f(bytemuck::cast_slice_mut(folded), bytemuck::cast_slice(next));
        };
        Operator { signature, combine: Arc::new(combine), elements: PhantomData }
    }
}

impl<T> Clone for Operator<T> {
    fn clone(&self) -> Self {
        Operator { signature: self.signature, combine: self.combine.clone(), elements: PhantomData }
    }
}

impl<T> fmt::Debug for Operator<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Operator({})", self.signature)
    }
}

/// Words of a name that are shown.
const SHOWN: usize = 4;

/// An operator as ranks agree on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Signature {
    /// Whether its arguments may not change places.
    pub is_ordered: bool,
    /// The hash of the name, then its first 32 bytes, which is what sentences show.
    pub words: [u64; 1 + SHOWN],
}

impl Signature {
    fn new(name: &str, is_ordered: bool) -> Self {
        let mut words = [0; 1 + SHOWN];
        words[0] = Self::hash(name.as_bytes());
        for (word, bytes) in words[1..].iter_mut().zip(name.as_bytes().chunks(8)) {
            *word = word_of(bytes);
        }
        Signature { is_ordered, words }
    }

    fn hash(name: &[u8]) -> u64 {
        hash(name.chunks(8).map(word_of).chain([name.len() as u64]))
    }

    /// The name, cut after 32 bytes; a cut name ends in its hash.
    pub fn name(&self) -> String {
        let bytes: Vec<u8> = self.words[1..].iter().flat_map(|word| word.to_le_bytes()).collect();
        let shown = &bytes[..bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)];
        let name = String::from_utf8_lossy(shown);
        match Self::hash(shown) == self.words[0] {
            true => name.into_owned(),
            false => format!("{name}.. {:016x}", self.words[0]),
        }
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {}", self.name(), if self.is_ordered { "ordered" } else { "commutative" })
    }
}

fn word_of(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

impl Call<'_> {
    /// The same call, which folds with an operator of one's own.
    pub(super) fn folded_by<T>(mut self, operator: &Operator<T>) -> Self {
        self.descriptor.operator = Some(operator.signature);
        self.operator = Some(operator.combine.clone());
        self
    }
}

impl Communicator {
    /// [`Communicator::all_reduce`] with an operation of one's own.
    ///
    /// # Errors
    ///
    /// As `all_reduce`; `InvalidArgument` if the operator is ordered and the algorithm that was set folds in another
    /// order than the ranks'; `Aborted` if the operator panics on a rank.
    pub fn all_reduce_with<T: Element>(&self, send: &[T], recv: &mut [T], operator: &Operator<T>) -> Result<()> {
        self.engine.block(self.all_reduce_call(send, recv, None)?.folded_by(operator))
    }

    /// The same with `buffer` as both.
    ///
    /// # Errors
    ///
    /// As [`all_reduce_with`](Self::all_reduce_with).
    pub fn all_reduce_in_place_with<T: Element>(&self, buffer: &mut [T], operator: &Operator<T>) -> Result<()> {
        self.engine.block(self.all_reduce_in_place_call(buffer, None)?.folded_by(operator))
    }

    /// [`Communicator::reduce_scatter`] with an operation of one's own.
    ///
    /// # Errors
    ///
    /// As `reduce_scatter`, and those that an operator adds to [`Communicator::all_reduce_with`].
    pub fn reduce_scatter_with<T: Element>(&self, send: &[T], recv: &mut [T], operator: &Operator<T>) -> Result<()> {
        self.engine.block(self.reduce_scatter_call(send, recv, None)?.folded_by(operator))
    }

    /// The same with the output as part `rank` of `buffer`, whose other parts are left as they are.
    ///
    /// # Errors
    ///
    /// As `reduce_scatter_in_place`, and those that an operator adds.
    pub fn reduce_scatter_in_place_with<T: Element>(&self, buffer: &mut [T], operator: &Operator<T>) -> Result<()> {
        self.engine.block(self.reduce_scatter_in_place_call(buffer, None)?.folded_by(operator))
    }

    /// [`Communicator::reduce`] with an operation of one's own.
    ///
    /// # Errors
    ///
    /// As `reduce`, and those that an operator adds to [`Communicator::all_reduce_with`].
    pub fn reduce_with<T: Element>(
        &self,
        send: &[T],
        recv: Option<&mut [T]>,
        operator: &Operator<T>,
        root: usize,
    ) -> Result<()> {
        self.engine.block(self.reduce_call(send, recv, None, root)?.folded_by(operator))
    }

    /// The same with the root's `buffer` as both; the others' are only read.
    ///
    /// # Errors
    ///
    /// As `reduce_in_place`, and those that an operator adds.
    pub fn reduce_in_place_with<T: Element>(
        &self,
        buffer: &mut [T],
        operator: &Operator<T>,
        root: usize,
    ) -> Result<()> {
        self.engine.block(self.reduce_in_place_call(buffer, None, root)?.folded_by(operator))
    }

    /// [`Communicator::scan`] with an operation of one's own.
    ///
    /// # Errors
    ///
    /// As `scan`, and those that an operator adds.
    pub fn scan_with<T: Element>(&self, send: &[T], recv: &mut [T], operator: &Operator<T>) -> Result<()> {
        self.engine.block(self.scan_call(send, recv, None)?.folded_by(operator))
    }

    /// The same with `buffer` as both.
    ///
    /// # Errors
    ///
    /// As `scan_in_place`, and those that an operator adds.
    pub fn scan_in_place_with<T: Element>(&self, buffer: &mut [T], operator: &Operator<T>) -> Result<()> {
        self.engine.block(self.scan_in_place_call(buffer, None)?.folded_by(operator))
    }

    /// [`Communicator::exclusive_scan`] with an operation of one's own.
    ///
    /// # Errors
    ///
    /// As `exclusive_scan`, and those that an operator adds.
    pub fn exclusive_scan_with<T: Element>(&self, send: &[T], recv: &mut [T], operator: &Operator<T>) -> Result<()> {
        self.engine.block(self.exclusive_scan_call(send, recv, None)?.folded_by(operator))
    }

    /// The same with `buffer` as both.
    ///
    /// # Errors
    ///
    /// As `exclusive_scan_in_place`, and those that an operator adds.
    pub fn exclusive_scan_in_place_with<T: Element>(&self, buffer: &mut [T], operator: &Operator<T>) -> Result<()> {
        self.engine.block(self.exclusive_scan_in_place_call(buffer, None)?.folded_by(operator))
    }
}
