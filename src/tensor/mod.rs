// SPDX-License-Identifier: MPL-2.0
//! Tensors of f32 with reverse-mode automatic differentiation.
//!
//! Operations record the graph as they compute (`graph.rs` has the engine, `ops/` the operations, each with its
//! derivative); [`Tensor::backward`] walks it once, from the result to the leaves. A [`Tensor`] is a handle: clones are
//! the same tensor. Values and gradients are row-major and live in a [`Storage`], which may be memory of somebody else.
//!
//! ```
//! use annulus::tensor::Tensor;
//!
//! let weight = Tensor::new(vec![1.0, -2.0, 0.5], &[3])?.trainable();
//! let input = Tensor::new(vec![3.0, 1.0, 4.0], &[3])?;
//! let loss = weight.mul(&input)?.sum()?;
//! loss.backward()?;
//! assert_eq!(loss.item()?, 3.0);
//! assert_eq!(*weight.grad().unwrap().read()?, [3.0, 1.0, 4.0]);
//! # Ok::<(), annulus::Error>(())
//! ```
//!
//! **Bits.** Everything runs on the calling thread in a fixed order. The bits of a result depend on the inputs, their
//! shapes and the machine's instruction set and caches (the matrix products choose their kernel and their blocking by
//! them), and on nothing else: not on the number of cores, and not on where the memory lies.

mod graph;
mod memory;
mod ops;
mod product;
mod random;

use std::cell::{Ref, RefCell, RefMut};
use std::fmt;
use std::rc::{Rc, Weak};

pub use graph::{Hook, no_grad};
pub use memory::{Lent, Memory, Storage};
pub use random::Random;

use crate::error::{Error, Result};
use graph::Op;

/// A handle to an array of f32 and to how it was computed.
#[derive(Clone)]
pub struct Tensor(Rc<Node>);

/// What a handle points to.
struct Node {
    /// Counts up on each thread: a result's number is greater than those of all its inputs.
    number: u64,
    shape: Vec<usize>,
    storage: Storage,
    requires_grad: bool,
    grad: RefCell<Option<Storage>>,
    hooks: RefCell<Vec<Weak<graph::HookCell>>>,
    /// How it was computed; `None` for a leaf.
    op: Option<Op>,
}

impl Tensor {
    /// A constant of these values, row-major. The shape `[]` is a scalar.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if shape and length disagree.
    pub fn new(values: Vec<f32>, shape: &[usize]) -> Result<Self> {
        Self::over(Storage::new(values), shape)
    }

    /// A constant over this storage, which other tensors may share.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if shape and length disagree.
    pub fn over(storage: Storage, shape: &[usize]) -> Result<Self> {
        if elements(shape) != Some(storage.len()) {
            let (have, shape) = (storage.len(), Shape(shape));
            return Err(Error::invalid(format!("a tensor of shape {shape} cannot be made of {have} values")));
        }
        Ok(Self::node(storage, shape, false, None))
    }

    fn node(storage: Storage, shape: &[usize], requires_grad: bool, op: Option<Op>) -> Self {
        Tensor(Rc::new(Node {
            number: graph::next_number(),
            shape: shape.to_vec(),
            storage,
            requires_grad,
            grad: RefCell::new(None),
            hooks: RefCell::new(Vec::new()),
            op,
        }))
    }

    /// A leaf over the same storage that requires a gradient: a parameter.
    pub fn trainable(&self) -> Self {
        Self::node(self.0.storage.clone(), &self.0.shape, true, None)
    }

    /// A constant over the same storage: no gradient flows through it.
    pub fn detach(&self) -> Self {
        Self::node(self.0.storage.clone(), &self.0.shape, false, None)
    }

    /// The extent of each dimension, the slowest first.
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    /// How many elements.
    pub fn len(&self) -> usize {
        self.0.storage.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.storage.is_empty()
    }

    /// Where the values are.
    pub fn storage(&self) -> &Storage {
        &self.0.storage
    }

    /// The values, for reading: [`Storage::read`].
    ///
    /// # Errors
    ///
    /// As [`Storage::read`].
    pub fn values(&self) -> Result<Ref<'_, [f32]>> {
        self.0.storage.read()
    }

    /// The values, for writing: [`Storage::write`]. The graph does not see it; a later `backward` uses the new values.
    ///
    /// # Errors
    ///
    /// As [`Storage::write`].
    pub fn values_mut(&self) -> Result<RefMut<'_, [f32]>> {
        self.0.storage.write()
    }

    /// A copy of the values.
    ///
    /// # Errors
    ///
    /// As [`Storage::read`].
    pub fn to_vec(&self) -> Result<Vec<f32>> {
        Ok(self.values()?.to_vec())
    }

    /// The value of a tensor of one element.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for any other.
    pub fn item(&self) -> Result<f32> {
        match *self.values()? {
            [value] => Ok(value),
            _ => {
                let shape = Shape(self.shape());
                Err(Error::invalid(format!("item needs a tensor of one element; this one has shape {shape}")))
            }
        }
    }

    /// Whether `backward` computes a gradient for it.
    pub fn requires_grad(&self) -> bool {
        self.0.requires_grad
    }

    /// Whether it was made, not computed.
    pub fn is_leaf(&self) -> bool {
        self.0.op.is_none()
    }

    /// Where the gradient is: `None` until the first `backward` or [`set_grad_storage`](Self::set_grad_storage). Only
    /// leaves keep a gradient.
    pub fn grad(&self) -> Option<Storage> {
        self.0.grad.borrow().clone()
    }

    /// From now on gradients of this leaf accumulate here, on top of what is there.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the tensor is not a leaf that requires a gradient, or the length is not the tensor's.
    pub fn set_grad_storage(&self, storage: Storage) -> Result<()> {
        self.check_trainable("a gradient's storage")?;
        if storage.len() != self.len() {
            let (have, shape) = (storage.len(), Shape(self.shape()));
            return Err(Error::invalid(format!(
                "the gradient of a tensor of shape {shape} cannot be {have} values long"
            )));
        }
        *self.0.grad.borrow_mut() = Some(storage);
        Ok(())
    }

    /// Sets the gradient to zero, where there is one.
    ///
    /// # Errors
    ///
    /// As [`Storage::write`].
    pub fn zero_grad(&self) -> Result<()> {
        if let Some(grad) = self.grad() {
            grad.write()?.fill(0.0);
        }
        Ok(())
    }

    fn check_trainable(&self, what: &str) -> Result<()> {
        if self.is_leaf() && self.requires_grad() {
            return Ok(());
        }
        Err(Error::invalid(format!("{what} belongs to a leaf that requires a gradient: make one with `trainable()`")))
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor{}", Shape(self.shape()))?;
        match self.values() {
            Ok(values) if values.len() <= 16 => write!(f, " {:?}", &*values),
            Ok(values) => write!(f, " {:?}..", &values[..16]),
            Err(error) => write!(f, " ({error})"),
        }
    }
}

impl Drop for Node {
    /// Takes the graph apart without recursion, so that its depth is not limited by the stack.
    fn drop(&mut self) {
        let mut orphans = self.op.take().map_or(Vec::new(), |op| op.inputs);
        while let Some(tensor) = orphans.pop() {
            if let Some(op) = Rc::into_inner(tensor.0).and_then(|mut node| node.op.take()) {
                orphans.extend(op.inputs);
            }
        }
    }
}

/// The elements of a shape, or `None` if they cannot be counted.
fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent))
}

/// A shape as sentences show it: `[2, 3]`.
struct Shape<'a>(&'a [usize]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}
