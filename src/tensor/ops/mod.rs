// SPDX-License-Identifier: MPL-2.0
//! The operations, by subject. Each is a method of `Tensor` that checks shapes, computes, and records
//! its derivative; the derivative is stated where it is recorded, with `g` for the gradient of the result.

mod arithmetic;
mod cross_entropy;
mod matrix;
mod reduction;
mod relu;
mod reshape;
