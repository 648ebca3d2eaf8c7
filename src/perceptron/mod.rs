// SPDX-License-Identifier: MPL-2.0
//! The perceptron in device memory: what [`nn::Mlp`](crate::nn::Mlp) and [`optim`](crate::optim) are on the CPU.
//!
//! | file | subject |
//! |---|---|
//! | `number` | the types that it computes with |
//! | `layout` | where each parameter lies in one buffer, last layer first |
//! | `kernels` | the trainer's kernels, each as a call that is checked |
//! | `model` | [`Perceptron`]: forward and backward, enqueued on a stream |
//! | `update` | [`Update`]: the optimizer's state, and its step |
//!
//! Nothing here waits, and nothing knows of ranks. Formulas and orders are the CPU's, in the same precision; matrix
//! products, exponential and logarithm alone may round otherwise.

mod kernels;
mod layout;
mod model;
mod number;
mod update;

pub use layout::{Layer, Layout};
pub use model::Perceptron;
pub use number::Number;
pub use update::Update;
