// SPDX-License-Identifier: MPL-2.0
//! The perceptron in device memory: what [`nn::Mlp`](crate::nn::Mlp) and [`optim`](crate::optim) are on the CPU.
//!
//! | file | subject |
//! |---|---|
//! | `number` | the types that it computes with, [`Precision`] |
//! | `loss_scale` | [`LossScale`]: what a loss is multiplied by, in f16 |
//! | `memory` | [`Memory`]: a cache of device memory, for tensors that come and go |
//! | `account` | [`MemoryReport`]: what each class of tensors has, had, and had at the most |
//! | `layout` | where each parameter lies in one buffer, last layer first |
//! | `kernels` | the trainer's kernels, each as a call that is checked |
//! | `model` | [`Perceptron`]: weights, gradients, and a batch |
//! | `samples` | [`Samples`]: of which batches are made, in device memory |
//! | `pass` | [`Pass`]: forward and backward, enqueued on a stream; [`mean_loss`] |
//! | `update` | [`Update`]: the optimizer's state, and its step |
//!
//! Nothing here waits, and nothing knows of ranks. In f32, formulas and orders are the CPU's; matrix products,
//! exponential and logarithm alone may round otherwise. In f16 and bf16 every kernel computes in f32 and rounds what it
//! stores; the optimizer updates weights in f32, and leaves a rounded copy of them to the layers.

mod account;
mod kernels;
mod layout;
mod loss_scale;
mod memory;
mod model;
mod number;
mod pass;
mod samples;
mod update;

pub use account::{Account, MemoryReport, TensorClass};
pub use layout::{Layer, Layout};
pub use loss_scale::LossScale;
pub use memory::{DeviceTensor, Memory};
pub use model::Perceptron;
pub use number::{Number, Precision};
pub use pass::{Pass, mean_loss};
pub use samples::Samples;
pub use update::Update;

pub use crate::kernel::training::Scaling;
