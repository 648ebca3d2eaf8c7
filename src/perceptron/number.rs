// SPDX-License-Identifier: MPL-2.0
//! The types that a perceptron computes with, and what a run in each of them needs.

use std::fmt;
use std::str::FromStr;

use half::{bf16, f16};

use super::LossScale;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::kernel::training::{COPY_BF16, COPY_F16, NO_COPY};

/// A type of activations and gradients, and of the weights as layers read them. What the optimizer updates is f32,
/// whatever this is.
pub trait Number: Element {
    /// Which copy of its weights an update leaves for the layers; none in f32, where they read the weights themselves.
    #[doc(hidden)]
    const COPY: u32;

    /// The nearest number of this type; of two, the even one.
    fn rounded(value: f32) -> Self;

    /// The same number in f32.
    fn wide(self) -> f32;
}

impl Number for f32 {
    const COPY: u32 = NO_COPY;

    fn rounded(value: f32) -> f32 {
        value
    }

    fn wide(self) -> f32 {
        self
    }
}

impl Number for f16 {
    const COPY: u32 = COPY_F16;

    fn rounded(value: f32) -> f16 {
        f16::from_f32(value)
    }

    fn wide(self) -> f32 {
        self.to_f32()
    }
}

impl Number for bf16 {
    const COPY: u32 = COPY_BF16;

    fn rounded(value: f32) -> bf16 {
        bf16::from_f32(value)
    }

    fn wide(self) -> f32 {
        self.to_f32()
    }
}

/// The type that a run computes in. Weights are updated in f32 in each of them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Precision {
    /// Everything in f32.
    #[default]
    F32,
    /// Layers and gradients in bf16, whose range is that of f32.
    Bf16,
    /// Layers and gradients in f16, whose range is small: the loss is scaled.
    F16(LossScale),
}

impl Precision {
    /// How the loss is scaled, if it is.
    pub fn loss_scale(self) -> Option<LossScale> {
        match self {
            Precision::F16(scale) => Some(scale),
            Precision::F32 | Precision::Bf16 => None,
        }
    }
}

impl FromStr for Precision {
    type Err = Error;

    /// `f32`, `bf16`, or `f16`, with the default loss scale.
    fn from_str(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(Precision::F32),
            "bf16" => Ok(Precision::Bf16),
            "f16" => Ok(Precision::F16(LossScale::default())),
            _ => Err(Error::invalid(format!("there is no precision {name:?}; choose one of f32, bf16, f16"))),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::F16(_) => "f16",
        })
    }
}
