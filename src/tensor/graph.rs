// SPDX-License-Identifier: MPL-2.0
//! The engine of differentiation: what an operation records, and the walk back.
//!
//! A tensor that was computed keeps its operation: the inputs, and a closure that adds to the gradient of each input
//! what the gradient of the result implies. Numbers count up with every tensor of a thread, so that a result always has
//! a greater number than its inputs. `Tensor::backward` therefore needs no sorting: it takes the pending tensor with
//! the greatest number; nobody who used it is left, its gradient is final, and its closure can run.
//!
//! A leaf's gradient goes straight to the leaf's storage. A first walk counts how often each leaf is used, and the
//! leaf's hooks are called as soon as the last use was added, while the rest of the walk is still to come: this is how
//! gradients are exchanged during the backward pass. For a chain of layers the hooks are so called from the last layer
//! to the first, bias before weight. The order depends on the graph alone.
//!
//! A closure holds numbers but no tensor; it finds those in `Flow`. So the graph is a tree of nodes that can be
//! dropped without recursion.

use std::cell::{Cell, Ref, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::{Shape, Storage, Tensor};
use crate::error::{Error, Result};

thread_local! {
    static NUMBER: Cell<u64> = const { Cell::new(0) };
    static RECORDING: Cell<bool> = const { Cell::new(true) };
}

pub(super) fn next_number() -> u64 {
    NUMBER.replace(NUMBER.get() + 1)
}

/// Runs `body` without recording: results do not require gradients, whatever their inputs do.
pub fn no_grad<R>(body: impl FnOnce() -> R) -> R {
    /// Restores the former state also when `body` panics.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            RECORDING.set(self.0);
        }
    }
    let _restore = Restore(RECORDING.replace(false));
    body()
}

/// How a tensor was computed.
pub(super) struct Op {
    pub(super) inputs: Vec<Tensor>,
    derivative: Box<Derivative>,
}

/// Calls [`Flow::add`] once for each input.
type Derivative = dyn Fn(&mut Flow<'_>) -> Result<()>;

impl Tensor {
    /// The result of an operation, recorded if some input requires a gradient and recording is on.
    pub(super) fn computed(
        storage: Storage,
        shape: &[usize],
        inputs: &[&Tensor],
        derivative: impl Fn(&mut Flow<'_>) -> Result<()> + 'static,
    ) -> Tensor {
        let record = RECORDING.get() && inputs.iter().any(|input| input.requires_grad());
        let op = record.then(|| Op {
            inputs: inputs.iter().map(|&input| input.clone()).collect(),
            derivative: Box::new(derivative),
        });
        Tensor::node(storage, shape, record, op)
    }

    /// Adds the gradient of this scalar to that of every leaf that it was computed from and that requires one.
    ///
    /// Gradients accumulate: what a leaf's storage held before stays in the sum, and a second `backward` adds once
    /// more. Hooks ([`on_grad`](Self::on_grad)) are called on the way.
    ///
    /// # Errors
    ///
    /// If this is not one element that requires a gradient; if a leaf's storage is away; whatever a hook returns. The
    /// walk ends there, and the gradients are then unspecified.
    pub fn backward(&self) -> Result<()> {
        if self.len() != 1 {
            let shape = Shape(self.shape());
            return Err(Error::invalid(format!("backward starts from one element; this tensor has shape {shape}")));
        }
        if !self.requires_grad() {
            return Err(Error::invalid(
                "backward needs a result of tensors that require gradients, computed outside no_grad",
            ));
        }
        let mut walk = Walk { pending: BTreeMap::new(), uses: leaf_uses(self) };
        walk.add(self, |grad| {
            grad[0] += 1.0;
            Ok(())
        })?;
        while let Some((_, (tensor, grad))) = walk.pending.pop_last() {
            if let Some(op) = &tensor.0.op {
                (op.derivative)(&mut Flow { output: &tensor, grad: &grad, inputs: &op.inputs, walk: &mut walk })?;
            }
        }
        Ok(())
    }

    /// Calls `hook` in every `backward` that reaches this leaf, as soon as the leaf's gradient is final in it, until
    /// the returned handle is dropped. Hooks of one leaf are called in the order of registration. The gradient is not
    /// borrowed meanwhile: the hook may read and write it, and may take its memory away. Values may be, those of the
    /// leaf among them: an attempt to change them here is an error. A hook's error ends `backward`.
    ///
    /// A leaf that the graph does not use is not reached: its hook is not called.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the tensor is not a leaf that requires a gradient.
    pub fn on_grad(&self, hook: impl FnMut() -> Result<()> + 'static) -> Result<Hook> {
        self.check_trainable("a hook")?;
        let hook: Rc<HookCell> = Rc::new(RefCell::new(hook));
        let mut hooks = self.0.hooks.borrow_mut();
        hooks.retain(|hook| hook.strong_count() > 0);
        hooks.push(Rc::downgrade(&hook));
        Ok(Hook { _hook: hook })
    }
}

/// Keeps a hook registered; see [`Tensor::on_grad`].
#[must_use = "the hook is removed when this is dropped"]
pub struct Hook {
    _hook: Rc<HookCell>,
}

pub(super) type HookCell = RefCell<dyn FnMut() -> Result<()>>;

/// What a derivative sees.
pub(super) struct Flow<'a> {
    output: &'a Tensor,
    /// The gradient of the result, final.
    pub(super) grad: &'a [f32],
    inputs: &'a [Tensor],
    walk: &'a mut Walk,
}

impl<'a> Flow<'a> {
    /// The values of input `index`.
    pub(super) fn input(&self, index: usize) -> Result<Ref<'a, [f32]>> {
        self.inputs[index].values()
    }

    /// The values of the result.
    pub(super) fn output(&self) -> Result<Ref<'a, [f32]>> {
        self.output.values()
    }

    /// Lets `add` add to the gradient of input `index`, if that requires one.
    pub(super) fn add(&mut self, index: usize, add: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<()> {
        self.walk.add(&self.inputs[index], add)
    }
}

/// The state of one `backward`.
struct Walk {
    /// Computed tensors whose gradient has begun, by number.
    pending: BTreeMap<u64, (Tensor, Vec<f32>)>,
    /// The uses of each leaf that were not added yet, by number.
    uses: BTreeMap<u64, usize>,
}

impl Walk {
    /// Sums begin at zero and every use is added, also the first, so that a gradient's bits do not depend on where it
    /// accumulates.
    fn add(&mut self, tensor: &Tensor, add: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<()> {
        if !tensor.requires_grad() {
            return Ok(());
        }
        if !tensor.is_leaf() {
            let begin = || (tensor.clone(), vec![0.0; tensor.len()]);
            return add(&mut self.pending.entry(tensor.0.number).or_insert_with(begin).1);
        }
        let begin = || Storage::new(vec![0.0; tensor.len()]);
        let grad = tensor.0.grad.borrow_mut().get_or_insert_with(begin).clone();
        add(&mut grad.write()?)?;
        let left = self.uses.entry(tensor.0.number).or_default();
        *left = left.saturating_sub(1);
        if *left == 0 { call_hooks(tensor) } else { Ok(()) }
    }
}

fn call_hooks(leaf: &Tensor) -> Result<()> {
    let hooks = leaf.0.hooks.borrow().clone();
    for hook in hooks.iter().filter_map(|hook| hook.upgrade()) {
        let mut hook = hook.try_borrow_mut().map_err(|_| {
            Error::invalid("a gradient hook ran `backward` and was called by it: run it after the hook")
        })?;
        hook()?;
    }
    Ok(())
}

/// How often the graph of `root` uses each leaf that requires a gradient, by number.
fn leaf_uses(root: &Tensor) -> BTreeMap<u64, usize> {
    let mut uses = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut open = vec![root];
    while let Some(tensor) = open.pop() {
        match &tensor.0.op {
            None if tensor.requires_grad() => *uses.entry(tensor.0.number).or_default() += 1,
            None => {}
            Some(op) if seen.insert(tensor.0.number) => open.extend(&op.inputs),
            Some(_) => {}
        }
    }
    uses
}
