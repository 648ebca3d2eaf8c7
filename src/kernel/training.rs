// SPDX-License-Identifier: MPL-2.0
//! The arguments of the trainer's kernels: one struct each, as the kernel's own source declares it. Matrices are
//! row-major without gaps where nothing else is said. Formulas, orders of summation and what may alias what are said in
//! `kernels/`.

/// `pick` (`kernels/pick.cu`): a batch of samples that an order names.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Pick {
    /// Address of all samples' inputs, in rows of `bytes` bytes.
    pub inputs: u64,
    /// Address of their labels, a u32 each.
    pub labels: u64,
    /// Address of the numbers of those that are picked, a u32 each.
    pub order: u64,
    /// Address of where their rows go.
    pub to: u64,
    /// Address of where their labels go.
    pub to_labels: u64,
    /// How many are picked.
    pub rows: u64,
    /// Bytes of a row.
    pub bytes: u64,
}

/// `product_*` (`kernels/product.cu`): `to = left x right`, or that added to what is there.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Product {
    /// Address of the left operand, `rows` x `inner`.
    pub left: u64,
    /// Address of the right operand, `inner` x `columns`.
    pub right: u64,
    /// Address of the result, `rows` x `columns`; neither operand.
    pub to: u64,
    /// Rows of the left operand and of the result.
    pub rows: u64,
    /// Columns of the right operand and of the result.
    pub columns: u64,
    /// Columns of the left operand and rows of the right one. 0: the product is zero.
    pub inner: u64,
    /// Elements from a row of the left operand to the next. This or `left_column` is 1.
    pub left_row: u64,
    /// Elements from a column of the left operand to the next.
    pub left_column: u64,
    /// Elements from a row of the right operand to the next. This or `right_column` is 1.
    pub right_row: u64,
    /// Elements from a column of the right operand to the next.
    pub right_column: u64,
    /// Not 0: the product is added to what is there.
    pub accumulate: u32,
    /// Not 0: tiles are small, since there would be few large ones ([`Shape::of_product`](super::Shape::of_product)).
    /// The bits are the same.
    pub small: u32,
}

/// No activation: [`Activate::activation`].
pub const NO_ACTIVATION: u32 = 0;

/// The rectifier: negative numbers become zero.
pub const RECTIFIER: u32 = 1;

/// `activate_*` (`kernels/activate.cu`): `to = activation(bias[column] + from)`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Activate {
    /// Address of what is activated.
    pub from: u64,
    /// Address of the bias, one element a column; 0: none.
    pub bias: u64,
    /// Address of the result; may be `from`.
    pub to: u64,
    /// Elements, rows times columns.
    pub elements: u64,
    /// Columns, at least 1 where there is a bias.
    pub columns: u64,
    /// [`NO_ACTIVATION`] or [`RECTIFIER`].
    pub activation: u32,
    /// Zero.
    pub unused: u32,
}

/// `cross_entropy_*` (`kernels/cross_entropy.cu`): the loss of each row of logits, and the gradient of the logits.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct CrossEntropy {
    /// Address of the logits, `rows` x `classes`.
    pub logits: u64,
    /// Address of the labels, a u32 a row.
    pub labels: u64,
    /// Address of the losses, an f32 a row.
    pub losses: u64,
    /// Address of the [`Scaling`] whose scale the gradient is multiplied by; 0: none.
    pub scaling: u64,
    /// Address of the gradient, `rows` x `classes`; it may be the logits'.
    pub to: u64,
    /// Rows.
    pub rows: u64,
    /// Classes.
    pub classes: u64,
    /// What the sum of the losses is divided by: [`Tensor::cross_entropy`](crate::tensor::Tensor::cross_entropy) says
    /// what it is among ranks.
    pub denominator: f32,
    /// Zero.
    pub unused: u32,
}

/// `column_sum_*` (`kernels/column_sum.cu`): the sum of each column, or that added to what is there; of a gradient that
/// comes back through a rectifier first, where its output is given.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct ColumnSum {
    /// Address of the matrix. With an output, it becomes zero wherever that is not positive.
    pub from: u64,
    /// Address of what the rectifier put out, `rows` x `columns`; 0: none.
    pub output: u64,
    /// Address of the sums.
    pub to: u64,
    /// Rows.
    pub rows: u64,
    /// Columns.
    pub columns: u64,
    /// Not 0: the sums are added to what is there.
    pub accumulate: u32,
    /// Zero.
    pub unused: u32,
}

/// The state of dynamic loss scaling, in device memory (`kernels/scaling.h`, `kernels/loss_scale.cu`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Scaling {
    /// What losses are multiplied by, and gradients divided by.
    pub scale: f32,
    /// Not 0: a gradient of this step is infinite or no number, and nothing is updated.
    pub overflow: u32,
    /// Steps since the scale has changed.
    pub steps: u32,
    /// Steps that updated nothing, in all.
    pub skipped: u32,
}

impl Scaling {
    /// How many words it takes.
    pub const WORDS: usize = size_of::<Scaling>() / 4;

    /// The state before the first step.
    pub const fn new(scale: f32) -> Self {
        Scaling { scale, overflow: 0, steps: 0, skipped: 0 }
    }
}

/// `find_overflow_*` (`kernels/loss_scale.cu`): looks for infinities and NaN.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct FindOverflow {
    /// Address of the elements.
    pub from: u64,
    /// Address of the [`Scaling`] whose overflow becomes 1, or stays.
    pub scaling: u64,
    /// Elements.
    pub elements: u64,
}

/// `update_scale` (`kernels/loss_scale.cu`): ends a step. One thread.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct UpdateScale {
    /// Address of the [`Scaling`].
    pub scaling: u64,
    /// Steps without an overflow after which the scale doubles.
    pub interval: u32,
    /// Zero.
    pub unused: u32,
}

/// No copy of the weights: [`Sgd::copy_type`], [`AdamW::copy_type`].
pub const NO_COPY: u32 = 0;

/// A copy of the weights in f16.
pub const COPY_F16: u32 = 1;

/// A copy of the weights in bf16.
pub const COPY_BF16: u32 = 2;

/// `sgd_*` (`kernels/sgd.cu`): a step of [`optim::Sgd`](crate::optim::Sgd).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Sgd {
    /// Address of the weights, f32.
    pub weights: u64,
    /// Address of the velocities, f32, zero before the first step.
    pub velocities: u64,
    /// Address of the gradients.
    pub gradients: u64,
    /// Address of the copy.
    pub copy: u64,
    /// Address of the [`Scaling`] that gradients are divided by and that may skip the step; 0: none.
    pub scaling: u64,
    /// How many weights.
    pub elements: u64,
    /// The learning rate.
    pub rate: f32,
    /// The momentum.
    pub momentum: f32,
    /// [`NO_COPY`], [`COPY_F16`] or [`COPY_BF16`].
    pub copy_type: u32,
    /// Zero.
    pub unused: u32,
}

/// Which step [`AdamW`] is in, in device memory (`kernels/adamw.cu`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct AdamWStep {
    /// beta1 to the power of the steps.
    pub beta1_power: f64,
    /// beta2 to the power of the steps.
    pub beta2_power: f64,
    /// The learning rate, corrected for the step.
    pub pace: f32,
    /// What the second moment's root is divided by.
    pub root: f32,
}

impl AdamWStep {
    /// Before the first step.
    pub const START: AdamWStep = AdamWStep { beta1_power: 1.0, beta2_power: 1.0, pace: 0.0, root: 0.0 };
}

/// `adamw_begin` (`kernels/adamw.cu`): counts the step. One thread, before the step's other kernels.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct AdamWBegin {
    /// Address of the [`AdamWStep`], [`AdamWStep::START`] at first.
    pub step: u64,
    /// Address of the [`Scaling`] that may skip the step; 0: none.
    pub scaling: u64,
    /// The learning rate.
    pub rate: f32,
    /// beta1.
    pub beta1: f32,
    /// beta2.
    pub beta2: f32,
    /// Zero.
    pub unused: u32,
}

/// `adamw_*` (`kernels/adamw.cu`): a step of [`optim::AdamW`](crate::optim::AdamW).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct AdamW {
    /// Address of the weights, f32.
    pub weights: u64,
    /// Address of the first moments, f32, zero before the first step.
    pub moments: u64,
    /// Address of the second moments, f32, zero before the first step.
    pub squares: u64,
    /// Address of the gradients.
    pub gradients: u64,
    /// Address of the copy.
    pub copy: u64,
    /// Address of the [`AdamWStep`].
    pub step: u64,
    /// Address of the [`Scaling`] that gradients are divided by and that may skip the step; 0: none.
    pub scaling: u64,
    /// How many weights.
    pub elements: u64,
    /// beta1.
    pub beta1: f32,
    /// beta2.
    pub beta2: f32,
    /// 1 - beta1, by [`AdamW::factors`].
    pub first: f32,
    /// 1 - beta2, by [`AdamW::factors`].
    pub second: f32,
    /// 1 - rate x decay, by [`AdamW::factors`].
    pub keep: f32,
    /// epsilon.
    pub epsilon: f32,
    /// [`NO_COPY`], [`COPY_F16`] or [`COPY_BF16`].
    pub copy_type: u32,
    /// Zero.
    pub unused: u32,
}

impl AdamW {
    /// `first`, `second` and `keep` of these settings: computed in f64 and rounded once, as on the CPU.
    pub fn factors(rate: f32, betas: (f32, f32), decay: f32) -> [f32; 3] {
        let one_less = |factor: f64| (1.0 - factor) as f32;
        [one_less(betas.0.into()), one_less(betas.1.into()), one_less(f64::from(rate) * f64::from(decay))]
    }
}
